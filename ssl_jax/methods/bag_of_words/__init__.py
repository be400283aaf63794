"""Bags of visual words."""
