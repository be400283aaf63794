"""One line that says how the run goes."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO


class Progress:
    """Rewrites one line on a terminal; prints a line at each report elsewhere.

    Args:
      steps: length of the run.
      start: step at which this process began.
      batch_size: images a step, over all processes.
      stream: where to write; standard error by default.
    """

    def __init__(self, steps: int, start: int, batch_size: int, *, stream: TextIO | None = None) -> None:
        self._steps, self._batch_size = steps, batch_size
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._shown: dict[str, float] = {}
        self._since, self._step, self._stalled = time.perf_counter(), start, 0.0
        self._open = False

    def stall(self, seconds: float) -> None:
        """Count time that a step waited for its batch."""
        self._stalled += seconds

    def pause(self, step: int, reason: str) -> None:
        """Say what the run does instead of the next step."""
        self._write(f"step {step}/{self._steps} | {reason}")

    def note(self, line: str) -> None:
        """Say something on a line of its own; from any thread."""
        self._stream.write(f"\r\x1b[2K{line}\n" if self._live else line + "\n")
        self._stream.flush()

    def report(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
        """Show the run at ``step`` and return its speed since the last report: ``images_per_second``, ``stall_share``."""
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        speed = (step - self._step) * self._batch_size / seconds
        measured = {"images_per_second": speed, "stall_share": min(self._stalled / seconds, 1.0)}
        self._shown |= {**scalars, **measured}
        self._write(self._line(step))
        self._since, self._step, self._stalled = now, step, 0.0
        return measured

    def _line(self, step: int) -> str:
        shown = self._shown
        speed = shown["images_per_second"]
        parts = [f"step {step}/{self._steps}"]
        if speed > 0:
            parts += [
                f"{speed:,.0f} images/s",
                f"ETA {clock((self._steps - step) * self._batch_size / speed)}",
            ]
        for key, label, form in (("loss", "loss", ".4f"), ("online/knn", "kNN", ".1%")):
            if key in shown:
                parts.append(f"{label} {shown[key]:{form}}")
        parts.append(f"input stall {shown['stall_share']:.0%}")
        return " | ".join(parts)

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[2K{line}" if self._live else line + "\n")
        self._stream.flush()
        self._open = self._live

    def close(self) -> None:
        """End the line, so that what is printed next starts on its own."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


def clock(seconds: float) -> str:
    """Write seconds as ``m:ss`` or ``h:mm:ss``.

    >>> clock(75), clock(3725)
    ('1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
