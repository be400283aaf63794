"""Names for what travels between the floors."""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
Key = jax.Array
"""A typed PRNG key (``jax.random.key``), used once."""

PyTree = Any
Params = dict[str, Any]
"""Nested plain dict of float32 arrays that an optimizer updates."""

State = dict[str, Any]
"""Nested plain dict of arrays that change by other means: batch statistics, teachers, queues, centres."""

Batch = dict[str, Any]
"""One global batch: ``views`` (tuple of ``[batch, views, h, w, c]`` float32), ``label`` and ``index`` (int32 ``[batch]``).
Of frames also ``clip`` and ``time`` (int32 ``[batch]``)."""

Metrics = dict[str, Array]
Schedule = Callable[[Any], Any]
"""Step (int or int array) -> value (float32 scalar)."""
