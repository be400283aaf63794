"""Gaussian blur of one image with a traced width, as products with two banded matrices."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core.types import Array, Key


def _taps(sigma: Any, kernel: int, dtype: Any) -> Array:
    radius = kernel // 2
    x = jnp.arange(-radius, radius + 1, dtype=dtype)
    weights = jnp.exp(-0.5 * (x / sigma) ** 2)
    return weights / jnp.sum(weights)


def _blur(image: Array, taps: Array) -> Array:
    radius = taps.shape[0] // 2
    height, width, _ = image.shape
    padded = jnp.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    rows = sum(taps[k] * padded[k : k + height] for k in range(taps.shape[0]))
    return sum(taps[k] * rows[:, k : k + width] for k in range(taps.shape[0]))


def gaussian_blur(image: Float[Array, "h w c"], sigma: Any, *, kernel: int) -> Float[Array, "h w c"]:
    return _blur(image, _taps(sigma, kernel, image.dtype))


def random_blur(
    key: Key, image: Float[Array, "h w c"], *, probability: Any, sigma: tuple[float, float], kernel: int
) -> Float[Array, "h w c"]:
    draw, width = jax.random.split(key)
    chosen = jax.random.uniform(width, (), minval=sigma[0], maxval=sigma[1])
    identity = jnp.arange(kernel) == kernel // 2
    taps = jnp.where(jax.random.bernoulli(draw, probability), _taps(chosen, kernel, image.dtype), identity)
    return _blur(image, taps)
