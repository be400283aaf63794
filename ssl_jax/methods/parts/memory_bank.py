"""A memory with a row for each training image."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array
from ssl_jax.optim.ema import Ema, EmaState, ema


def update_memory_bank(
    bank: Float[Array, "m d"], index: Int[Array, " n"], q: Float[Array, "n d"], decay: float | Array
) -> Float[Array, "m d"]:
    """Write a batch into the memory: ``u_y ← n(decay · u_y + (1 − decay) · q)`` for the images y of the batch.

    Args:
      bank: ``[m, d]`` unit rows.
      index: ``[n]`` row of each image; of equal ones the last is written.
      q: ``[n, d]`` unit rows; no gradient passes.
      decay: share of the old row, 0 to 1.

    Returns:
      The new bank; rows of other images are untouched.

    >>> import jax.numpy as jnp
    >>> update_memory_bank(jnp.eye(2), jnp.array([1, 1]), jnp.array([[0.6, 0.8], [1.0, 0.0]]), 0.0).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    average = ema(decay)
    rows, _ = average.update(jax.lax.stop_gradient(q), average.init(bank[index]))
    return bank.at[drop_duplicate_writes(index, bank.shape[0])].set(normalize(rows), mode="drop")


def drop_duplicate_writes(index: Int[Array, " n"], rows: int) -> Int[Array, " n"]:
    """Return rows to write to with ``mode="drop"``: of equal ones the last stays, the others go beyond the end, to ``rows``.

    The order of several writes to one row is not defined.

    >>> drop_duplicate_writes(jnp.array([1, 0, 1]), 5).tolist()
    [5, 0, 1]
    """
    order = jnp.arange(index.shape[0])
    repeated = jnp.any((index[:, None] == index[None, :]) & (order[:, None] < order[None, :]), axis=1)
    return jnp.where(repeated, rows, index)


def update_row_averages(
    average: Ema, memory: EmaState, index: Int[Array, " n"], rows: Float[Array, "n d"]
) -> EmaState:
    """Write a batch into a memory of averages: rows ``index`` take in ``rows``, each with a weight of its own.

    Args:
      average: :func:`ssl_jax.optim.ema.ema` with ``debias`` and a constant decay.
      memory: ``average`` ``[m, d]`` and ``weight`` ``[m, 1]``; :func:`ssl_jax.optim.ema.debiased` reads it.
      index: ``[n]`` row of each image; of equal ones the last is written.
      rows: ``[n, d]`` what the averages take in; no gradient passes.

    Returns:
      The new memory; other rows are untouched.

    >>> average = ema(0.5, debias=True)
    >>> memory = average.init(jnp.zeros((3, 1)))._replace(weight=jnp.zeros((3, 1)))
    >>> memory = update_row_averages(average, memory, jnp.array([2, 0]), jnp.array([[4.0], [6.0]]))
    >>> memory.average.ravel().tolist(), memory.weight.ravel().tolist()
    ([3.0, 0.0, 2.0], [0.5, 0.0, 0.5])
    """
    old = memory._replace(average=memory.average[index], weight=memory.weight[index])
    _, new = average.update(jax.lax.stop_gradient(rows), old)
    rows_to_write = drop_duplicate_writes(index, memory.average.shape[0])
    average_rows = memory.average.at[rows_to_write].set(new.average, mode="drop")
    weight_rows = memory.weight.at[rows_to_write].set(new.weight, mode="drop")
    return new._replace(average=average_rows, weight=weight_rows)
