"""Ctrl-C and SIGTERM as a request to stop after the step under way."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Stopped(BaseException):
    """A request to stop came while nothing was under way that has to be finished."""


class StopRequest:
    """While entered, SIGINT and SIGTERM set ``requested`` instead of ending the process; a second SIGINT ends it at once.

    Outside the main thread (some notebooks) signals are left as they are.

    Args:
      alone: whether this process may stop without asking others: then a request ends what is ``interruptible`` at once. If not,
        SIGTERM is left to JAX, which makes all processes stop after the same step, SIGINT comes down to it, and ``requested``
        stays empty.

    >>> with StopRequest() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.requested
    'SIGTERM'
    """

    def __init__(self, *, alone: bool = True) -> None:
        self.requested = ""
        self._interrupted = False
        self._alone, self._waiting = alone, False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM) if self._alone else (signal.SIGINT,):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Break off what is waited for, of which nothing is kept, when a request comes or has come: raises :class:`Stopped`.

        >>> with StopRequest() as stop, stop.interruptible():
        ...     signal.raise_signal(signal.SIGTERM)
        Traceback (most recent call last):
        ...
        ssl_jax.train.signals.Stopped: SIGTERM
        """
        self._waiting = self._alone
        try:
            if self.requested and self._alone:
                raise Stopped(self.requested)
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self._interrupted or self.requested):
            raise KeyboardInterrupt
        self._interrupted = number == signal.SIGINT
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self.requested = signal.Signals(number).name
        if self._waiting:
            self._waiting = False
            raise Stopped(self.requested)
