"""Exact nearest neighbours by cosine, and the largest entries of long rows."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array

GROUP = 16
"""Entries of a group of :func:`largest_by_groups`: its maxima are a sixteenth of the row."""
SPARE = 8
"""Groups that it searches beyond the k best, for equal maxima."""
VECTOR = 16
"""The number of groups is a multiple of this: slices then fill whole vectors of the processor."""


def nearest_neighbors(
    queries: Float[Array, "n dim"],
    bank: Float[Array, "size dim"],
    k: int = 1,
    *,
    block_size: int | None = None,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Find the k rows of a bank that point most nearly in the direction of each query: exact, by cosine.

    ``indices_i = argtop-k_j u_i·c_j`` with u and c the unit rows of ``queries`` and ``bank``, in descending order;
    of equal similarities the lower index comes first.

    Args:
      queries: ``[n, D]``, any float dtype, any norm (rows are L2-normalised here).
      bank: ``[K, D]``, the same: a queue's items, or the features of a training set.
      k: neighbours of each query, 1 to K.
      block_size: ``None`` forms all similarities, ``[n, K]``. An integer of 1 or more goes through the bank in
        blocks of that many rows, and holds ``[n, k + block_size]`` at a time.

    Returns:
      ``(similarities, indices)``, each ``[n, k]``: cosines, float32 (float64 for float64 inputs), and int32 rows of
      the bank. A row of zeros has cosine 0 with everything.

    Raises:
      ValueError: arrays that do not fit each other, k out of range, a block size below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> bank = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
      >>> similarities, indices = nearest_neighbors(jnp.array([[0.0, 1.0]]), bank, 2)
      >>> indices.tolist(), (similarities**2).round(2).tolist()
      ([[1, 2]], [[1.0, 0.5]])

    Reference: Dwibedi et al., "With a Little Help from My Friends", ICCV 2021, equation 2 (k = 1); Koohpayegani
    et al., "Mean Shift for Self-Supervised Learning", ICCV 2021, section 3.
    """
    fits = queries.ndim == 2 and bank.ndim == 2 and queries.shape[1] == bank.shape[1]
    check.require(fits, "bank.shape", bank.shape, f"[K, D] for queries [n, D] of {queries.shape}")
    size = bank.shape[0]
    check.require(1 <= k <= size, "k", k, f"an integer from 1 to the bank's {size} rows")
    sized = block_size is None or block_size >= 1
    check.require(sized, "block_size", block_size, "None or an integer of 1 or more")
    queries, bank = numerics.normalize(queries), numerics.normalize(bank)
    if block_size is None:
        return _best(_cosines(queries, bank), k)
    count = -(-size // min(block_size, size))
    block = -(-size // count)
    blocks = jnp.pad(bank, ((0, count * block - size), (0, 0))).reshape(count, block, -1)

    def step(best: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        rows, first = part
        columns = first + jnp.arange(block, dtype=jnp.int32)
        cosines = jnp.where(columns < size, _cosines(queries, rows), -jnp.inf)
        # What was found earlier has lower indices and stands first, so that it wins where similarities are equal.
        among = jnp.concatenate([best[0], cosines], axis=1)
        indices = jnp.concatenate([best[1], jnp.broadcast_to(columns, cosines.shape)], axis=1)
        similarities, ranks = _best(among, k)
        return (similarities, jnp.take_along_axis(indices, ranks, axis=1)), None

    n = queries.shape[0]
    start = jnp.full((n, k), -jnp.inf, queries.dtype), jnp.zeros((n, k), jnp.int32)
    best, _ = jax.lax.scan(step, start, (blocks, block * jnp.arange(count, dtype=jnp.int32)))
    return best


def largest_by_groups(
    x: Float[Array, "n m"], k: int
) -> tuple[Float[Array, "n k"], Int[Array, "n k"], Bool[Array, ""]]:
    """Find the k largest entries of each row as ``numerics.top_k`` does, sooner where rows are long, and whether that is sure.

    A row is dealt into interleaved groups of 16. The k-th largest of the groups' maxima is no more than the k-th largest
    entry, so that the k lie in groups whose maximum reaches it. The k + 8 best groups are searched, which is exact, of equal
    entries the earlier first, if the last of their maxima is below the k-th. If not (equal maxima, a row of NaNs) the caller
    has to search whole rows. Rows too short to gain are searched whole here. A NaN among numbers is the caller's to exclude.

    Args:
      x: ``[n, m]``, any float dtype.
      k: entries of each row, 1 to m.

    Returns:
      ``(entries, places, sure)``: ``[n, k]`` in descending order, their int32 places, and whether all rows are exact.

    Raises:
      ValueError: k out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> entries, places, sure = largest_by_groups(jnp.arange(1024.0)[None] % 1000, 2)
      >>> entries.tolist(), places.tolist(), bool(sure)
      ([[999.0, 998.0]], [[999, 998]], True)
    """
    size = x.shape[1]
    check.require(1 <= k <= size, "k", k, f"an integer from 1 to the {size} entries of a row")
    groups = size // GROUP // VECTOR * VECTOR
    if groups < GROUP * k + SPARE:
        return *numerics.top_k(x, k), jnp.asarray(True)
    x = jax.lax.optimization_barrier(x)
    # Slices, not a reshape, which would copy what is left after whole groups are cut off.
    maxima = functools.reduce(jnp.maximum, [x[:, i * groups : (i + 1) * groups] for i in range(GROUP)])
    searched = k + SPARE
    reached, chosen = numerics.top_k(maxima, searched)
    sure = jnp.all(reached[:, k - 1] > reached[:, -1])
    # In the order of the row, and the entries outside of groups after them: the earlier of equals stays the earlier.
    columns = jnp.sort(chosen, axis=1)[:, None] + groups * jnp.arange(GROUP, dtype=jnp.int32)[:, None]
    columns = columns.reshape(len(x), -1)
    inside = jnp.take_along_axis(x, columns, axis=1, mode="promise_in_bounds")
    entries, ranks = numerics.top_k(jnp.concatenate([inside, x[:, GROUP * groups :]], axis=1), k)
    places = jnp.take_along_axis(columns, jnp.minimum(ranks, GROUP * searched - 1), axis=1)
    return entries, jnp.where(ranks < GROUP * searched, places, ranks + GROUP * (groups - searched)), sure


def _cosines(x: Array, y: Array) -> Array:
    """``x yᵀ`` of unit rows, in full precision: neighbours are often close to each other."""
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def _best(x: Float[Array, "n m"], k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The k largest entries of each row and where they stand, the earlier of equals first."""
    if k > 1:
        return numerics.top_k(x, k)
    place = jnp.argmax(x, axis=1).astype(jnp.int32)
    return jnp.max(x, axis=1)[:, None], place[:, None]
