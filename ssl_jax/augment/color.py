"""Colour operations on one image: torchvision's definitions, also for images that do not have three channels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key

LUMA = (0.2989, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def to_float(images: Shaped[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Pixels as floats: uint8 divided by 255, uint16 by 65535, floats as they are (taken to be in [0, 1]).

    >>> import numpy as np
    >>> to_float(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    images = jnp.asarray(images)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return at_least_float32(images)
    check.choice("images.dtype", images.dtype.name, ("uint8", "uint16", "float32", "float16", "bfloat16"))
    return images.astype(jnp.float32) / np.float32(jnp.iinfo(images.dtype).max)


def _luma(planes: Array) -> Array:
    """Gray value ``[h, w]`` of planes ``[c, h, w]``: luma of three channels, the mean of any other number."""
    if planes.shape[0] == 3:
        return LUMA[0] * planes[0] + LUMA[1] * planes[1] + LUMA[2] * planes[2]
    return jnp.mean(planes, axis=0)


def _shift_hue(planes: Array, shift: Any) -> Array:
    """Hue of planes ``[3, h, w]`` moved by ``shift`` turns; value and chroma stay, so only the hue's sextant is computed."""
    red, green, blue = planes
    low, high = jnp.min(planes, axis=0), jnp.max(planes, axis=0)
    chroma = high - low
    scale = 1.0 / jnp.where(chroma == 0, 1.0, chroma)
    sextant = jnp.where(
        high == red,
        (green - blue) * scale,
        jnp.where(high == green, 2.0 + (blue - red) * scale, 4.0 + (red - green) * scale),
    )
    hue = sextant + 6.0 * shift
    hue = hue - 6.0 * jnp.floor(hue / 6.0)
    shares = jnp.stack([jnp.abs(hue - 3.0) - 1.0, 2.0 - jnp.abs(hue - 2.0), 2.0 - jnp.abs(hue - 4.0)])
    return low + chroma * jnp.clip(shares, 0.0, 1.0)


def grayscale(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    gray = _luma(jnp.moveaxis(image, -1, 0))
    return jnp.broadcast_to(gray[..., None], image.shape)


def _jitter_exact(planes: Array, factors: Array, order: Array, applied: Array, additive: bool) -> Array:
    for position in range(4):
        operation = order[position]
        gray = _luma(planes)
        target = jnp.where(
            operation == CONTRAST, jnp.mean(gray), jnp.where(operation == SATURATION, gray, 0.0)
        )
        factor = factors[operation]
        offset = jnp.float32(0)
        if additive:
            offset = jnp.where((operation == BRIGHTNESS) & applied, factor - 1.0, 0.0)
            factor = jnp.where(operation == BRIGHTNESS, 1.0, factor)
        factor = jnp.where(applied & (operation != HUE), factor, 1.0)
        blended = jnp.clip(factor * planes + (1.0 - factor) * target + offset, 0.0, 1.0)
        if planes.shape[0] == 3:
            blended = jnp.where((operation == HUE) & applied, _shift_hue(planes, factors[HUE]), blended)
        planes = blended
    return planes


def color_jitter(
    key: Key,
    image: Float[Array, "h w c"],
    *,
    brightness: Any,
    contrast: Any,
    saturation: Any,
    hue: Any,
    probability: Any = 1.0,
    additive_brightness: bool = False,
    exact: bool = True,
) -> Float[Array, "h w c"]:
    keys = jax.random.split(key, 3)
    strengths = jnp.stack([jnp.asarray(s, jnp.float32) for s in (brightness, contrast, saturation, hue)])
    low = jnp.maximum(1.0 - strengths, 0.0).at[HUE].set(-strengths[HUE])
    high = (1.0 + strengths).at[HUE].set(strengths[HUE])
    factors = low + (high - low) * jax.random.uniform(keys[0], (4,))
    order = jnp.argsort(jax.random.uniform(keys[1], (4,)))
    applied = jax.random.bernoulli(keys[2], probability)
    planes = jnp.moveaxis(image, -1, 0)
    planes = _jitter_exact(planes, factors, order, applied, additive_brightness)
    return jnp.moveaxis(planes, 0, -1)


def solarize(image: Float[Array, "h w c"], *, threshold: Any = 0.5) -> Float[Array, "h w c"]:
    return jnp.where(image >= threshold, 1.0 - image, image)


def normalize(
    image: Float[Array, "... c"], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "... c"]:
    if not mean and not std:
        return image
    return (image - jnp.asarray(mean, image.dtype)) / jnp.asarray(std, image.dtype)
