"""The order of shards that are read one after the other, with a shuffle buffer, as a function of seed and position.

In epoch e the shards are shuffled and their samples put one behind the other; the sample at place i of n is then delayed:
the order is that of ``i + b u_i``, where b is the size of the buffer and the u_i are drawn from [0, 1). A reader that goes
through the shards once therefore holds at most b samples, each for a time that is uniform up to b. It is not the order in
which all samples are shuffled: neighbors in a shard stay near each other, so that batches of shards that are sorted by
class are of few classes.
"""

import dataclasses

import numpy as np

from ssl_jax.core import check

BUFFER = 10_000
"""Samples in the shuffle buffer, unless it is said otherwise."""


@dataclasses.dataclass(frozen=True, eq=False)
class ShardOrder:
    """Shards in random order, each sample delayed by up to ``buffer`` places.

    Attributes:
      ends: int ``[shards]``, number of samples in all shards up to each.
      buffer: largest delay, in samples; 1: none.

    Raises:
      ValueError: a buffer below 1.

    >>> order = ShardOrder(np.array([3, 5]), buffer=1)
    >>> order.indices(np.random.default_rng(0)).tolist()
    [0, 1, 2, 3, 4]
    """

    ends: np.ndarray
    buffer: int = BUFFER

    def __post_init__(self) -> None:
        check.require(self.buffer >= 1, "shuffle_buffer", self.buffer, "an integer of 1 or more")

    def indices(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the order of one epoch.

        Returns:
          int32 ``[n]``, every sample once.
        """
        starts = np.concatenate([[0], self.ends[:-1]])
        shards = rng.permutation(len(self.ends))
        parts = [np.arange(starts[shard], self.ends[shard], dtype=np.int32) for shard in shards]
        samples = np.concatenate(parts)
        keys = np.arange(len(samples)) + (self.buffer * rng.random(len(samples)) if self.buffer > 1 else 0)
        return samples[np.argsort(keys, kind="stable")]
