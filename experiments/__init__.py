"""Launchers, run from a clone as ``python -m experiments.<verb>``."""

from ssl_jax.cli import cpu

cpu.tune()
