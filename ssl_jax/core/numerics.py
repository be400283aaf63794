"""Numerics that stay finite, forward and backward, where the plain formula does not."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core.types import Array

LEAST_NORM = 1e-3
"""Norm below which a row's gradient through :func:`normalize` grows no further."""
CONSTANT_ULPS = 8
"""Numbers that deviate from their mean by at most so many roundings of it (``8 ε |mean|``) are constant."""
BLOCK_NUMBERS = 2**22
"""Numbers at most of a block of differences that :func:`squared_distances` holds."""


def normalize(x: Float[Array, "... d"], *, epsilon: float = 1e-12) -> Float[Array, "... d"]:
    """L2-normalise the last axis: ``u = x / max(‖x‖₂, epsilon)``, with a gradient that a short row cannot blow up.

    The same value as ``torch.nn.functional.normalize``. The Jacobian is ``(I − u uᵀ) / max(‖x‖₂, 10⁻³)``: the exact one where
    the norm is 10⁻³ or more, and below that as if the norm were 10⁻³, so that no gradient becomes more than 1000 times as long.
    (Exactly, a row of zeros would pass on 10¹² times its gradient. A direction of a row that short is mostly rounding.)
    Forward and backward derivatives of any order are finite. Computed in float32 or wider.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.array([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    >>> normalize(jnp.zeros(2)).tolist()
    [0.0, 0.0]
    >>> [round(g) for g in jax.grad(lambda x: normalize(x)[0])(jnp.zeros(2)).tolist()]
    [1000, 0]
    """
    return _normalize(at_least_float32(x), epsilon)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _normalize(x: Float[Array, "... d"], epsilon: float) -> Float[Array, "... d"]:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), epsilon**2))


@_normalize.defjvp
def _normalize_jvp(
    epsilon: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Float[Array, "... d"], Float[Array, "... d"]]:
    (x,), (tangent,) = primals, tangents
    unit = _normalize(x, epsilon)
    least = max(epsilon, LEAST_NORM) ** 2
    inverse = jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), least))
    across = tangent - unit * jnp.sum(unit * tangent, axis=-1, keepdims=True)
    return unit, across * inverse


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
    log_probabilities = at_least_float32(log_probabilities)
    finite = jnp.where(jnp.isfinite(log_probabilities), log_probabilities, 0.0)
    return -jnp.sum(jnp.exp(log_probabilities) * finite, axis=-1)


def entropy_terms(probabilities: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Compute ``−p log p`` of each probability, 0 at 0, where its gradient is 0 too (that of the plain formula is infinite).

    >>> import jax.numpy as jnp
    >>> entropy_terms(jnp.array([0.0, 0.5])).round(4).tolist()
    [0.0, 0.3465999960899353]
    """
    p = at_least_float32(probabilities)
    none = p <= 0
    return jnp.where(none, 0.0, -p * jnp.log(jnp.where(none, 1.0, p)))


def safe_sqrt(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Take the root; 0 and with a gradient of 0 where x is not above 0 (the plain one's is infinite, and NaN in a chain).

    >>> import jax.numpy as jnp
    >>> zero, nine = jnp.array(0.0), jnp.array(9.0)
    >>> float(jax.grad(safe_sqrt)(zero)), float(safe_sqrt(nine))
    (0.0, 3.0)
    """
    none = x <= 0
    return jnp.where(none, 0.0, jnp.sqrt(jnp.where(none, 1.0, x)))


def center(x: Float[Array, "*b"], axis: int | Sequence[int] = 0) -> Float[Array, "*b"]:
    """Subtract the mean over some axes, such that numbers that are constant along them become exactly 0.

    A mean of n equal numbers is off by some roundings, and what is left of the numbers would pass for a signal once it is
    divided by its own deviation: in float32 a complete collapse would look like perfect agreement. So the mean of what is left
    is subtracted too, and numbers none of which is further than ``8 ε |mean|`` from their mean (1e-6 of it in float32) count
    as constant. The gradient is that of ``x − mean(x)`` everywhere.

    Args:
      x: any shape; computed in float32 or wider.
      axis: one axis or several.

    Returns:
      An array like ``x``, float32 (float64 for float64 inputs).

    >>> import jax.numpy as jnp
    >>> center(jnp.array([[1.0], [3.0]])).tolist()
    [[-1.0], [1.0]]
    >>> float(jnp.abs(center(jnp.full((100, 1), 0.1))).max())
    0.0
    """
    return center_with_mean(x, axis)[0]


def center_with_mean(
    x: Float[Array, "*b"], axis: int | Sequence[int] = 0
) -> tuple[Float[Array, "*b"], Float[Array, "*b2"]]:
    """Compute :func:`center` and the mean that it subtracts, whose axes stay with length 1.

    >>> import jax.numpy as jnp
    >>> centered, mean = center_with_mean(jnp.array([1.0, 3.0]))
    >>> centered.tolist(), mean.tolist()
    ([-1.0, 1.0], [2.0])
    """
    return _center(at_least_float32(x), tuple(axis) if isinstance(axis, Sequence) else axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _center(
    x: Float[Array, "*b"], axes: int | tuple[int, ...]
) -> tuple[Float[Array, "*b"], Float[Array, "*b2"]]:
    rough = jnp.mean(x, axes, keepdims=True)
    near = x - rough
    rest = jnp.mean(near, axes, keepdims=True)
    centered = near - rest
    largest = jnp.max(jnp.abs(centered), axes, keepdims=True)
    constant = largest <= CONSTANT_ULPS * jnp.finfo(x.dtype).eps * jnp.abs(rough)
    return jnp.where(constant, 0.0, centered), rough + rest


@_center.defjvp
def _center_jvp(
    axes: int | tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    # The value of a constant goes, its gradient stays: from a collapse some losses lead out.
    mean = jnp.mean(tangents[0], axes, keepdims=True)
    return _center(primals[0], axes), (tangents[0] - mean, mean)


def compute_std(x: Float[Array, "*b"], axis: int | Sequence[int] = 0) -> Float[Array, "*b2"]:
    """Compute the (biased) standard deviation over some axes: exactly 0, as its gradient, where numbers are constant.

    >>> import jax.numpy as jnp
    >>> float(compute_std(jnp.array([1.0, 3.0]))), float(compute_std(jnp.full(100, 0.1)))
    (1.0, 0.0)
    """
    axes = tuple(axis) if isinstance(axis, Sequence) else axis
    return safe_sqrt(jnp.mean(center(x, axes) ** 2, axes))


def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Compute ``‖x_i − y_j‖²`` from the differences themselves: good to rounding, whatever the norms; 0 for equal rows.

    The product form ``‖x‖² − 2 x·y + ‖y‖²`` is faster, but loses what is small beside the norms. Rows of y are taken in
    blocks, backward too: no more than 2²² differences are held at a time. On a mesh y is gathered, x stays where it is.

    >>> import jax.numpy as jnp
    >>> squared_distances(jnp.array([[1e4], [1e4 + 0.25]]), jnp.array([[1e4]])).tolist()
    [[0.0], [0.0625]]
    """
    return sums_of_powers(x, y, 2)


def sums_of_powers(x: Float[Array, "n d"], y: Float[Array, "m d"], p: int) -> Float[Array, "n m"]:
    """Compute ``Σ_k |x_ik − y_jk|^p`` as :func:`squared_distances`, for integers p of 1 or more.

    >>> import jax.numpy as jnp
    >>> sums_of_powers(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0], [1.0, 0.0]]), 1).tolist()
    [[3.0, 2.0]]
    """
    x, y = at_least_float32(x), at_least_float32(y)
    (n, width), m = x.shape, y.shape[0]
    blocks = -(-m // max(1, min(m, BLOCK_NUMBERS // max(n * width, 1))))
    size = -(-m // blocks)

    @jax.checkpoint
    def columns(rows: Float[Array, "size d"]) -> Float[Array, "n size"]:
        difference = x[:, None] - rows
        return jnp.sum(difference**2 if p == 2 else jnp.abs(difference) ** p, axis=-1)

    if blocks == 1:
        return columns(y)
    padded = jnp.pad(y, ((0, blocks * size - m), (0, 0))).reshape(blocks, size, width)
    return jnp.moveaxis(jax.lax.map(columns, padded), 0, 1).reshape(n, blocks * size)[:, :m]


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
