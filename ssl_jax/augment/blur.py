"""Gaussian blur of one image: two passes of shifted sums, with a width that may be traced."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.types import Array


def _along(planes: Array, taps: Array, axis: int) -> Array:
    """Sum shifted copies, weighted, along an axis, the border mirrored without repeating its pixel."""
    radius, length = taps.shape[0] // 2, planes.shape[axis]
    widths = [(radius, radius) if i == axis else (0, 0) for i in range(planes.ndim)]
    padded = jnp.pad(planes, widths, mode="reflect")
    shifted = (jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(taps.shape[0]))
    return sum((tap * copy for tap, copy in zip(taps, shifted, strict=True)), start=jnp.zeros_like(planes))


def gaussian_blur_planes(planes: Float[Array, "c h w"], sigma: Any, *, kernel: int) -> Float[Array, "c h w"]:
    """Blur planes ``[c, h, w]`` as `gaussian_blur` does an image.

    >>> import jax.numpy as jnp
    >>> gaussian_blur_planes(jnp.zeros((1, 4, 4)), 1.0, kernel=3).shape
    (1, 4, 4)
    """
    check.require(kernel % 2 == 1, "kernel", kernel, "an odd number of taps")
    shortest = min(planes.shape[1:])
    check.require(
        kernel // 2 < shortest, "kernel", kernel, f"fewer than {2 * shortest} taps at {shortest} pixels"
    )
    wide = jnp.promote_types(planes.dtype, jnp.float32)
    x = jnp.arange(-(kernel // 2), kernel // 2 + 1, dtype=wide)
    taps = jnp.exp(-0.5 * (x / sigma) ** 2)
    taps = (taps / jnp.sum(taps)).astype(planes.dtype)
    # Without the barrier the compiler puts the first pass into the second one and computes it kernel times
    # over.
    return _along(jax.lax.optimization_barrier(_along(planes, taps, 1)), taps, 2)


def gaussian_blur(image: Float[Array, "h w c"], sigma: Any, *, kernel: int) -> Float[Array, "h w c"]:
    """Convolve with a Gaussian, ``w(i, j) ∝ exp(-(i² + j²) / 2σ²)``, cut off and normalised.

    Args:
      image: ``[h, w, c]``.
      sigma: σ in pixels, positive; may be traced.
      kernel: odd number of taps along each axis, less than twice the shorter side. The border is mirrored.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: an even or too large kernel.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(gaussian_blur(jnp.ones((5, 5, 1)), 2.0, kernel=5)[2, 2, 0]), 6)
      1.0

    Reference: ``torchvision.transforms.functional.gaussian_blur``. SimCLR's and BYOL's TensorFlow code pads
    with zeros; PIL's ``GaussianBlur`` (MoCo, DINO) approximates the Gaussian by repeated box filters.
    """
    return jnp.moveaxis(gaussian_blur_planes(jnp.moveaxis(image, -1, 0), sigma, kernel=kernel), 0, -1)
