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
    """Says once for each kind of collapse what is wrong, see :func:`ssl_jax.evaluate.health.diagnose`.

    Args:
      collapse: of the method, each ``at(batch_size)``.
      after: steps that are not judged; a tenth of the run is sensible.
      tell: what to do with a message; ``None``: ``warnings.warn`` with a :class:`CollapseWarning`.
      path: file of findings, a line of JSON each with ``step``, ``kind`` and ``message``, for the report.
      start: the step after which the run goes on: later findings in the file are dropped, earlier ones not told again.
      **thresholds: further options of ``diagnose``.

    >>> told = []
    >>> watch = CollapseWatch(tell=told.append)
    >>> for step in range(1, 5):
    ...     watch.write(step, {"batch/spread": 0.0})
    >>> len(told)
    1
    """

    def __init__(
        self,
        *,
        collapse: Sequence[CollapseValue] = (),
        after: int = 0,
        tell: Callable[[str], None] | None = None,
        path: Path | None = None,
        start: int = 0,
        **thresholds: Any,
    ) -> None:
        self._options = {"collapse": collapse, "after": after, **thresholds}
        self._tell = tell or (lambda message: warnings.warn(message, CollapseWarning, stacklevel=2))
        self._records: collections.deque[dict[str, Any]] = collections.deque(maxlen=RECORDS)
        self._path = path
        self._found = [line for line in _lines(path) if line["step"] <= start]

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Look at the scalars of one step."""
        self._records.append({"step": step, **scalars})
        for finding in diagnose(tuple(self._records), **self._options):
            if finding.kind not in [line["kind"] for line in self._found]:
                self._found.append(finding._asdict())
                if self._path is not None:
                    write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in self._found))
                self._tell(finding.message)

    def close(self) -> None:
        """Nothing is open."""


def _lines(path: Path | None) -> list[dict[str, Any]]:
    """The findings in a file, if it is there."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def tell_user(message: str) -> None:
    """Print a warning to standard error, on a line of its own."""
    sys.stderr.write(f"\nWARNING: {message}\n")
    sys.stderr.flush()
