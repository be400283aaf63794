"""Contrastive methods."""
