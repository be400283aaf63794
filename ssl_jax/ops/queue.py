"""A first-in-first-out queue of rows: negatives of MoCo, candidates of NNCLR and MeanShift."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key


class Queue(NamedTuple):
    """A ring of the last K vectors.

    Attributes:
      items: ``[K, D]`` float32.
      pointer: int32 scalar, the row that the next push overwrites first: the oldest one.
    """

    items: Float[Array, "size dim"]
    pointer: Int[Array, ""]


def queue_init(key: Key, size: int, dim: int) -> Queue:
    """Make a queue full of random unit vectors, uniform on the sphere.

    Args:
      key: PRNG key.
      size: K, the number of rows, 1 or more.
      dim: D, the length of a row, 1 or more.

    Returns:
      A :class:`Queue` with pointer 0.

    Raises:
      ValueError: a size or dimension below 1.

    Example:
      >>> import jax
      >>> queue = queue_init(jax.random.key(0), 8, 4)
      >>> queue.items.shape, int(queue.pointer)
      ((8, 4), 0)

    Reference: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
    algorithm 1.
    """
    check.require(size >= 1, "size", size, "an integer of 1 or more")
    check.require(dim >= 1, "dim", dim, "an integer of 1 or more")
    items = numerics.normalize(jax.random.normal(key, (size, dim), jnp.float32))
    return Queue(items, jnp.zeros((), jnp.int32))


def queue_push(queue: Queue, items: Float[Array, "n dim"]) -> Queue:
    """Overwrite the n oldest rows, first in first out.

    Row ``(pointer + i) mod K`` becomes ``items[i]``, and the pointer moves on by n, modulo K.

    Args:
      queue: with K rows of length D.
      items: ``[n, D]`` new rows, n ≤ K; K need not be a multiple of n. They are stored as they come (MoCo
        stores unit vectors), in the queue's dtype.

    Returns:
      The new :class:`Queue`.

    Raises:
      ValueError: more rows than the queue holds, or rows of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> queue = Queue(jnp.zeros((3, 1)), jnp.array(2, jnp.int32))
      >>> queue = queue_push(queue, jnp.array([[1.0], [2.0]]))
      >>> queue.items.ravel().tolist(), int(queue.pointer)
      ([2.0, 0.0, 1.0], 1)

    Reference: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
    algorithm 1.
    Deviation: the authors' code asserts that n divides K; here a push runs past the end and goes on at the
    start.
    """
    size, dim = queue.items.shape
    fits = items.ndim == 2 and items.shape[1] == dim and items.shape[0] <= size
    check.require(fits, "items.shape", items.shape, f"[n, {dim}] with n of at most the queue's {size} rows")
    rows = (queue.pointer + jnp.arange(items.shape[0], dtype=jnp.int32)) % size
    stored = queue.items.at[rows].set(items.astype(queue.items.dtype), unique_indices=True)
    return Queue(stored, (queue.pointer + items.shape[0]) % size)
