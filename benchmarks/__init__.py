"""Speed and memory against others, one command each: ``python -m benchmarks.<name> [--quick]``."""

from benchmarks import environment

environment.restart()
