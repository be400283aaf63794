"""Launchers, run from a clone as ``python -m experiments.<verb>``."""

from experiments import cpu

cpu.tune()
