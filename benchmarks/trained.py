"""A training of ``benchmarks.peers``: what it gave and what it took, the same for both sides."""

import resource
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Trained(NamedTuple):
    """What a training gave, and what it took.

    Attributes:
      encode: images ``[n, h, w, 3]`` of uint8 to features, float32 ``[n, d]``.
      losses: of some steps, the last one at the end.
      seconds: wall time from the first batch to the last step.
      cpu_seconds: processor time of this process and its workers in it.
    """

    encode: Callable[[np.ndarray], np.ndarray]
    losses: list[float]
    seconds: float
    cpu_seconds: float


class Clock:
    """Wall and processor time since it was made, that of child processes that have ended included."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _spent()

    def read(self) -> tuple[float, float]:
        """Return seconds of wall time and of processor time."""
        return time.perf_counter() - self._wall, _spent() - self._cpu


def _spent() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))
