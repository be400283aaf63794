"""Speed and memory against others, one command each: ``python -m benchmarks.<name> [--quick] [--out=FILE]``."""

from benchmarks import environment

environment.restart()
