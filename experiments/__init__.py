"""Launchers, run from a clone as ``python -m experiments.<verb>``."""
