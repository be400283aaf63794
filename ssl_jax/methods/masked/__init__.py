"""Masked image modelling methods."""
