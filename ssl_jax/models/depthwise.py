"""Depthwise convolutions, in the form that is fast on the platform at hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array

SMALL_MAP = 64
"""Positions of a map."""


@jax.custom_vjp
def depthwise_conv(x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"]) -> Float[Array, "b h w c"]:
    """Convolve each channel with a filter of its own, padded with zeros such that the map keeps its size.

    ``y[i, j, c] = Σ_{u, v} kernel[u, v, c] x[i + u − ⌊k/2⌋, j + v − ⌊k/2⌋, c]`` (a cross-correlation, as in torch).

    XLA's convolution for CPUs takes channels one by one. There, maps of up to :data:`SMALL_MAP` positions are multiplied
    with the matrix of the convolution, one for each channel. Larger ones are shifted and added up k² times, and the
    kernel's gradient is taken image by image, so that what is summed stays in the cache. With 7 x 7 kernels and maps of 4
    to 56 pixels a side this is 10 to 50 times as fast, forward and backward. Other platforms have the convolution.

    Args:
      x: maps.
      kernel: filters, k odd.

    Returns:
      Maps in the dtype of ``x``; sums are float32 at least.

    >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> depthwise_conv(x, jnp.ones((3, 3, 1, 1))).ravel().tolist()
    [1.0, 3.0, 3.0]
    """
    return jax.lax.platform_dependent(x, kernel, cpu=_on_cpu, default=_grouped)


def _grouped(x: Array, kernel: Array) -> Array:
    half = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(1, 1),
        padding=((half, half), (half, half)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _is_small(x: Array) -> bool:
    return x.shape[1] * x.shape[2] <= SMALL_MAP


def _on_cpu(x: Array, kernel: Array) -> Array:
    return _multiplied(x, kernel) if _is_small(x) else _shifted(x, kernel)


def _multiplied(x: Array, kernel: Array) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = (_taps(side, size) for side, size in zip((height, width), kernel.shape, strict=False))
    count = height * width
    matrices = jnp.einsum("siu,tjv,uvc->cstij", rows, columns, at_least_float32(kernel[:, :, 0]))
    y = jnp.einsum(
        "bpc,cpq->bqc",
        at_least_float32(x.reshape(batch, count, channels)),
        matrices.reshape(-1, count, count),
    )
    return y.reshape(x.shape).astype(x.dtype)


def _taps(side: int, size: int) -> np.ndarray:
    """Which tap of a filter reads position s for the output at i: 1 at ``[s, i, tap]``, 0 elsewhere.

    >>> _taps(2, 3)[:, 0].tolist()  # the output at 0 reads position 0 by the middle tap, position 1 by the one behind it
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    tap = np.arange(side)[:, None] - np.arange(side) + size // 2
    return (tap[:, :, None] == np.arange(size)).astype(np.float32)


def _padded(x: Array, kernel: Array) -> Array:
    half = kernel.shape[0] // 2
    return jnp.pad(at_least_float32(x), ((0, 0), (half, half), (half, half), (0, 0)))


def _shifted(x: Array, kernel: Array) -> Array:
    (_, height, width, _), (rows, columns) = x.shape, kernel.shape[:2]
    padded = _padded(x, kernel)
    taps = [(u, v) for u in range(rows) for v in range(columns)]
    products = (padded[:, u : u + height, v : v + width] * kernel[u, v, 0] for u, v in taps)
    return sum(products, jnp.zeros((), padded.dtype)).astype(x.dtype)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return depthwise_conv(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    to_x, to_kernel = jax.lax.platform_dependent(
        *saved, gradient, cpu=_gradients_on_cpu, default=_gradients_of_grouped
    )
    return to_x, to_kernel


def _gradients_of_grouped(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    return jax.vjp(_grouped, x, kernel)[1](gradient)


def _gradients_on_cpu(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    if _is_small(x):
        return jax.vjp(_multiplied, x, kernel)[1](gradient)
    return _gradients_of_shifted(x, kernel, gradient)


def _gradients_of_shifted(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    _, height, width, channels = x.shape
    rows, columns = kernel.shape[:2]
    padded, wide = _padded(x, kernel), at_least_float32(gradient)
    ones = jnp.ones((height * width,), padded.dtype)

    def add_image(total: Array, image: tuple[Array, Array]) -> tuple[Array, Any]:
        values, slopes = image

        def row(u: Array) -> Array:
            band = jax.lax.dynamic_slice_in_dim(values, u, height)
            products = [band[:, v : v + width] * slopes for v in range(columns)]
            return jnp.stack([ones @ product.reshape(-1, channels) for product in products])

        return total + jax.lax.map(row, jnp.arange(rows)), None

    zeros = jnp.zeros((rows, columns, channels), padded.dtype)
    to_kernel = jax.lax.scan(add_image, zeros, (padded, wide))[0][:, :, None]
    return _shifted(gradient, kernel[::-1, ::-1]), to_kernel.astype(kernel.dtype)


depthwise_conv.defvjp(_forward, _backward)
