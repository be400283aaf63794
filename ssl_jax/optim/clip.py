"""Gradient clipping by norm."""

import jax
import jax.numpy as jnp
import optax

from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, PyTree


def clip_global(gradients: PyTree, *, norm: float | Array) -> PyTree:
    """Scale all gradients together so that their joint Euclidean norm is at most ``norm``.

    ``g ← g · min(1, norm / ‖all g‖)``.

    >>> import jax.numpy as jnp
    >>> clip_global({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, norm=2.5)["b"].tolist()
    [2.0]
    """
    factor = _factor(optax.tree.norm(jax.tree.map(at_least_float32, gradients)), norm)
    return jax.tree.map(lambda g: (g * factor).astype(g.dtype), gradients)


def clip_each(gradients: PyTree, *, norm: float | Array) -> PyTree:
    """Scale each gradient tensor by itself so that its Euclidean norm is at most ``norm``.

    ``g ← g · min(1, norm / ‖g‖)``, as DINO and iBOT clip (their code divides by ``‖g‖ + 1e-6``).

    >>> import jax.numpy as jnp
    >>> clip_each({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, norm=3.5)["b"].tolist()
    [3.5]
    """
    return jax.tree.map(
        lambda g: (g * _factor(jnp.linalg.norm(at_least_float32(g)), norm)).astype(g.dtype), gradients
    )


def _factor(current: Array, norm: float | Array) -> Array:
    return jnp.where(current > norm, norm / jnp.where(current > norm, current, 1.0), 1.0)
