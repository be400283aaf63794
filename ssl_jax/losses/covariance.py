"""Covariances of dimensions over the batch, of which several losses are made."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.types import Array


def covariance(x: Float[Array, "n d1"], y: Float[Array, "n d2"]) -> Float[Array, "d1 d2"]:
    """Compute the unbiased covariances of the columns of two centered matrices, ``xᵀ y / (n − 1)``.

    >>> x = jnp.array([[-1.0], [1.0]])
    >>> covariance(x, x).tolist()
    [[2.0]]
    """
    return matmul_exactly(x.T, y) / (x.shape[0] - 1)


def matmul_exactly(x: Float[Array, "m n"], y: Float[Array, "n d"]) -> Float[Array, "m d"]:
    """Multiply matrices in full float32.

    A TPU multiplies float32 as bfloat16 by default: too coarse for a matrix to be inverted, and for sums over d² entries.

    >>> matmul_exactly(jnp.ones((1, 2)), jnp.ones((2, 1))).tolist()
    [[2.0]]
    """
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def sum_off_diagonal_squares(matrix: Float[Array, "d d"]) -> Float[Array, ""]:
    """Sum the squares of what is not on the diagonal.

    >>> float(sum_off_diagonal_squares(jnp.array([[5.0, 1.0], [2.0, 5.0]])))
    5.0
    """
    return jnp.sum(jnp.where(jnp.eye(len(matrix), dtype=bool), 0.0, matrix) ** 2)


def require_rows(name: str, z: Array) -> None:
    """Raise a ValueError unless an argument is a matrix of 2 rows or more.

    >>> require_rows("z", jnp.ones((2, 3)))
    """
    check.require(z.ndim == 2 and z.shape[0] >= 2, f"{name}.shape", z.shape, "[n, d] with n >= 2")


def require_views(z1: Array, z2: Array) -> None:
    """Raise a ValueError unless both arguments are matrices of one shape, of 2 rows or more.

    >>> require_views(jnp.ones((2, 3)), jnp.ones((2, 3)))
    """
    require_rows("z1", z1)
    check.require(z2.shape == z1.shape, "z2.shape", z2.shape, f"that of z1, {z1.shape}")
