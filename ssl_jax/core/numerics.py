"""Numerics that stay finite, forward and backward, where the plain formula does not."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core.types import Array


def normalize(x: Float[Array, "... d"], *, epsilon: float = 1e-12) -> Float[Array, "... d"]:
    """L2-normalise the last axis: ``x / max(‖x‖₂, epsilon)``, with a finite gradient at ``x = 0``.

    The same value as ``torch.nn.functional.normalize``. Computed in float32 or wider.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.array([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    >>> normalize(jnp.zeros(2)).tolist()
    [0.0, 0.0]
    """
    x = at_least_float32(x)
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, epsilon**2))


def cosine_similarity(x: Float[Array, "... d"], y: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Compute the cosine of the angle between vectors along the last axis; 0 where either is 0.

    >>> import jax.numpy as jnp
    >>> float(cosine_similarity(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])))
    0.0
    """
    return jnp.sum(normalize(x) * normalize(y), axis=-1)


def entropy(log_probabilities: Float[Array, "... k"]) -> Float[Array, "..."]:
    """Compute the Shannon entropy in nats, ``−Σ p log p``, of distributions given by their logarithms.

    >>> import jax.numpy as jnp
    >>> round(float(entropy(jnp.log(jnp.full(4, 0.25)))), 6)
    1.386294
    """
    finite = jnp.where(jnp.isfinite(log_probabilities), log_probabilities, 0.0)
    return -jnp.sum(jnp.exp(log_probabilities) * finite, axis=-1)


def at_least_float32(x: Array) -> Array:
    """Widen bfloat16 and float16 to float32; leave float32 and float64 as they are.

    >>> import jax.numpy as jnp
    >>> at_least_float32(jnp.ones(1, jnp.bfloat16)).dtype.name
    'float32'
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def top_k(x: Float[Array, "... n"], k: int) -> tuple[Float[Array, "... k"], Int[Array, "... k"]]:
    """Call ``jax.lax.top_k``, kept apart from what uses it; of equal entries the earlier comes first.

    XLA would merge slices of the result into top_k, which turns it into a full sort (7 times slower on CPU at n = 10 000). One
    barrier for both results would end the process where x is spread over devices: XLA's partitioner (jaxlib 0.10.2) fails on
    a pair that comes from top_k.

    >>> values, places = top_k(jnp.array([3.0, 1.0, 3.0]), 2)
    >>> values.tolist(), places.tolist()
    ([3.0, 3.0], [0, 2])
    """
    values, indices = jax.lax.top_k(x, k)
    return jax.lax.optimization_barrier(values), jax.lax.optimization_barrier(indices)


def rectangle(
    shape: tuple[int, int], top: ScalarLike, left: ScalarLike, height: ScalarLike, width: ScalarLike
) -> Bool[Array, "rows columns"]:
    """Mark the places of a grid that lie in a rectangle; its corner and sides may be traced.

    >>> rectangle((2, 3), 0, 1, 1, 2).tolist()
    [[False, True, True], [False, False, False]]
    """
    row, column = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None, :]
    return (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
