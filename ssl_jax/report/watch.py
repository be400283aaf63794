"""A writer that writes nothing: it watches the scalars of a run and says when the features collapse."""

import collections
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssl_jax.evaluate.health import diagnose
from ssl_jax.methods.method import Sign

RECORDS = 1000
"""So many of the last records are looked at."""


class CollapseWarning(UserWarning):
    """The features of a run have collapsed, or its loss sits where collapse has it."""


class CollapseWatch:
    """Says once for each kind of collapse what is wrong, see :func:`ssl_jax.evaluate.health.diagnose`.

    Args:
      signs: of the method, ``method.signs(batch_size)``.
      after: steps that are not judged; a tenth of the run is sensible.
      tell: what to do with a message; ``None``: ``warnings.warn`` with a :class:`CollapseWarning`.
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
        signs: Sequence[Sign] = (),
        after: int = 0,
        tell: Callable[[str], None] | None = None,
        **thresholds: Any,
    ) -> None:
        self._options = {"signs": signs, "after": after, **thresholds}
        self._tell = tell or (lambda message: warnings.warn(message, CollapseWarning, stacklevel=2))
        self._records: collections.deque[dict[str, Any]] = collections.deque(maxlen=RECORDS)
        self._told: set[str] = set()

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Look at the scalars of one step."""
        self._records.append({"step": step, **scalars})
        for finding in diagnose(tuple(self._records), **self._options):
            if finding.kind not in self._told:
                self._told.add(finding.kind)
                self._tell(finding.message)

    def close(self) -> None:
        """Nothing is open."""


def tell_user(message: str) -> None:
    """Print a warning to standard error, on a line of its own."""
    sys.stderr.write(f"\nWARNING: {message}\n")
    sys.stderr.flush()
