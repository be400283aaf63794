"""Says what a run waits for when it seems to stand still."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ssl_jax.core.check import require
from ssl_jax.train.progress import clock


class Watchdog:
    """Reports when no step has finished for a while, and again after twice, four times, ... as long.

    A thread that looks at a clock and at what the loop says it waits for, and touches nothing else of the run. The clock is
    the monotonic one: setting the machine's time neither wakes it nor puts it to sleep.

    Args:
      stall_seconds: seconds without a finished step, 0 or more; 0: it never reports.
      report: called with one line.

    Raises:
      ValueError: a negative number.

    >>> watchdog = Watchdog(60.0, print)
    >>> with watchdog.waiting("data"):
    ...     watchdog._check(now=watchdog._since + 75)
    no step has finished for 1:15 since the start: waiting for data
    >>> watchdog.finished(1)
    step 1 has finished
    >>> watchdog.close()
    """

    def __init__(self, stall_seconds: float, report: Callable[[str], None]) -> None:
        require(stall_seconds >= 0, "stall_seconds", stall_seconds, "a number of seconds of 0 or more")
        self._stall_seconds, self._next, self._report = stall_seconds, stall_seconds, report
        self._what, self._last = "the host", "the start"
        self._since = time.monotonic()
        self._reported = False
        self._end, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        if stall_seconds:
            self._thread = threading.Thread(target=self._run, name="ssl_jax-watchdog", daemon=True)
            self._thread.start()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say what the run waits for while this is entered."""
        before, self._what = self._what, what
        try:
            yield
        finally:
            self._what = before

    def finished(self, step: int) -> None:
        """Note that a step has finished."""
        with self._lock:
            self._since, self._last, self._next = time.monotonic(), f"step {step}", self._stall_seconds
            reported, self._reported = self._reported, False
        if reported:
            self._report(f"step {step} has finished")

    def close(self) -> None:
        """Stop the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(max(self._since + self._next - time.monotonic(), 0.01)):
            self._check(time.monotonic())

    def _check(self, now: float) -> None:
        with self._lock:
            seconds = now - self._since
            if seconds < self._next:
                return
            self._next, self._reported = 2 * self._next, True
            line = f"no step has finished for {clock(seconds)} since {self._last}: waiting for {self._what}"
        self._report(line)
