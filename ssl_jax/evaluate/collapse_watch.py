"""A writer that writes nothing: it watches the scalars of a run and says when the features collapse."""

import collections
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_jax.core.files import write_atomically
from ssl_jax.evaluate.health import diagnose
from ssl_jax.methods.method import CollapseValue

RECORDS = 1000
"""So many of the last records are looked at."""


class CollapseWarning(UserWarning):
    """The features of a run have collapsed, or its loss sits where collapse has it."""


class CollapseWatch:
    """Warns once for each kind of collapse, see :func:`ssl_jax.evaluate.health.diagnose`.

    Args:
      collapse: values of the method at which it has collapsed, each ``at(batch_size)``.
      after: number of steps that are not judged; a tenth of the run is sensible.
      warn: function of a message; ``None``: ``warnings.warn`` with a :class:`CollapseWarning`.
      path: file of findings, a line of JSON each with ``step``, ``kind`` and ``message``, for the report.
      start: step after which the run goes on: later findings in the file are dropped, earlier ones not repeated.
      **thresholds: further options of ``diagnose``.

    >>> messages = []
    >>> watch = CollapseWatch(warn=messages.append)
    >>> for step in range(1, 5):
    ...     watch.write(step, {"batch/spread": 0.0})
    >>> len(messages)
    1
    """

    def __init__(
        self,
        *,
        collapse: Sequence[CollapseValue] = (),
        after: int = 0,
        warn: Callable[[str], None] | None = None,
        path: Path | None = None,
        start: int = 0,
        **thresholds: Any,
    ) -> None:
        self._options = {"collapse": collapse, "after": after, **thresholds}
        self._warn = warn or (lambda message: warnings.warn(message, CollapseWarning, stacklevel=2))
        self._records: collections.deque[dict[str, Any]] = collections.deque(maxlen=RECORDS)
        self._path = path
        self._findings = [line for line in _lines(path) if line["step"] <= start]

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Look at the scalars of one step."""
        self._records.append({"step": step, **scalars})
        for finding in diagnose(tuple(self._records), **self._options):
            if finding.kind not in [line["kind"] for line in self._findings]:
                self._findings.append(finding._asdict())
                if self._path is not None:
                    write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in self._findings))
                self._warn(finding.message)

    def close(self) -> None:
        """Nothing is open."""


def _lines(path: Path | None) -> list[dict[str, Any]]:
    """Read the findings of a file, if it exists."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def print_warning(message: str) -> None:
    """Print a warning to standard error, on a line of its own."""
    sys.stderr.write(f"\nWARNING: {message}\n")
    sys.stderr.flush()
