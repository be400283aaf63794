"""Balanced soft assignment by Sinkhorn-Knopp."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike, Shaped

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sinkhorn:
    """Options of :func:`sinkhorn` beside the temperature.

    Attributes:
      iterations: 1 or more; more balance better.
      log_domain: sums as logsumexp; ``False``: products, cheaper, good while the temperature is not much below 0.03.
    """

    iterations: int = 3
    log_domain: bool = True


def sinkhorn(
    scores: Float[Array, "n k"],
    *,
    temperature: ScalarLike = 0.05,
    iterations: int = 3,
    weights: Shaped[Array, " n"] | None = None,
    log_domain: bool = True,
) -> Float[Array, "n k"]:
    """Assign n vectors softly to k prototypes, such that the prototypes are used about equally (Sinkhorn and Knopp).

    ``Q = diag(u) exp(scores/τ) diag(v)``; ``iterations`` times v is set so that every column of Q has the same
    (weighted) sum, then u so that every row has the sum 1. Rows come last: they are exact, equal use of the
    prototypes is approached as iterations grow. Factors common to all columns cancel and are left out.

    Nothing is detached here: methods pass the result through ``jax.lax.stop_gradient``.

    Args:
      scores: ``[n, k]`` similarities with the prototypes, any float dtype.
      temperature: τ > 0, may be traced. Low is sharp.
      iterations: 1 or more.
      weights: ``[n]`` bool or numbers ≥ 0, how many times each row counts in the sums over columns; ``None``:
        once. Rows of weight 0 take no part and come out as zeros, so that a static number of rows can hold a
        changing number of vectors.
      log_domain: sums as logsumexp, which neither overflows nor underflows. ``False``: products with
        ``exp((scores − max)/τ)``, a few times cheaper, good where ``max − scores`` stays below about 80 τ.

    Returns:
      ``[n, k]`` float32 (float64 for float64 scores), rows of sum 1 (0 where the weight is 0).

    Raises:
      ValueError: fewer than 1 iteration, a temperature that is not positive, weights of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> q = sinkhorn(jnp.array([[1.0, 0.9], [1.0, 0.0]]), iterations=50)  # each alone would take the first
      >>> q.round(1).tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Reference: Cuturi, "Sinkhorn Distances", NeurIPS 2013, algorithm 1; Caron et al., "Unsupervised Learning of Visual
    Features by Contrasting Cluster Assignments" (SwAV), NeurIPS 2020, eqs. 3 to 5.
    """
    check.require(iterations >= 1, "iterations", iterations, "an integer of 1 or more")
    check.positive("temperature", temperature)
    logits = numerics.at_least_float32(scores) / temperature
    if weights is None:
        weights = jnp.ones(scores.shape[0], logits.dtype)
    fits = weights.shape == scores.shape[:1]
    check.require(fits, "weights.shape", weights.shape, f"{scores.shape[:1]}, one a row of scores")
    counted = weights > 0
    # Were no row counted, the column sums would be 0; the rows come out as zeros below anyway.
    weights = jnp.where(jnp.any(counted), weights.astype(logits.dtype), 1.0)
    balanced = (_sinkhorn_logs if log_domain else _sinkhorn_products)(logits, weights, iterations)
    return jnp.where(counted[:, None], balanced, 0.0)


def _sinkhorn_logs(logits: Array, weights: Array, iterations: int) -> Array:
    log_weights = jnp.log(weights)[:, None]
    rows = jnp.zeros_like(logits[:, :1])
    for _ in range(iterations):
        columns = -jax.nn.logsumexp(logits + rows + log_weights, axis=0, keepdims=True)
        rows = -jax.nn.logsumexp(logits + columns, axis=1, keepdims=True)
    return jax.nn.softmax(logits + columns, axis=1)


def _sinkhorn_products(logits: Array, weights: Array, iterations: int) -> Array:
    exact, tiny = jax.lax.Precision.HIGHEST, jnp.finfo(logits.dtype).tiny
    highest = jnp.max(jnp.where(weights[:, None] > 0, logits, -jnp.inf))
    kernel = jnp.exp(jnp.minimum(logits - highest, 0.0))
    rows = jnp.ones_like(weights)
    for _ in range(iterations):
        columns = 1.0 / jnp.maximum(jnp.matmul(weights * rows, kernel, precision=exact), tiny)
        rows = 1.0 / jnp.maximum(jnp.matmul(kernel, columns, precision=exact), tiny)
    return kernel * rows[:, None] * columns
