"""Brightness, contrast, saturation and hue of one image: torchvision's definitions, also where there are not three channels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.augment.color import LUMA, luma_planes, on_planes
from ssl_jax.core.types import Array

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# Red, green and blue in YIQ space; hue turns the (I, Q) plane. The NTSC matrix, rounded as in the 1953
# standard.
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _blend(planes: Array, target: Any, factor: Any) -> Array:
    return jnp.clip(factor * planes + (1.0 - factor) * target, 0.0, 1.0)


def _brighten(planes: Array, factor: Any) -> Array:
    return _blend(planes, 0.0, factor)


def _brighten_by_sum(planes: Array, factor: Any) -> Array:
    return jnp.clip(planes + (factor - 1.0), 0.0, 1.0)


def _contrast(planes: Array, factor: Any) -> Array:
    return _blend(planes, jnp.mean(luma_planes(planes)), factor)


def _saturate(planes: Array, factor: Any) -> Array:
    return _blend(planes, luma_planes(planes), factor)


def _turn_hue(planes: Array, turns: Any) -> Array:
    """Move the hue in HSV space: value and chroma stay, only the position on the hexagon of hues is computed."""
    if planes.shape[0] != 3:
        return planes
    red, green, blue = planes[0], planes[1], planes[2]
    low = jnp.minimum(jnp.minimum(red, green), blue)
    chroma = jnp.maximum(jnp.maximum(red, green), blue) - low
    # Never ask which channel *equals* the maximum: compiled code may compute the two with different rounding.
    red_leads, green_leads = (red >= green) & (red >= blue), green >= blue
    ahead = jnp.where(red_leads, green - blue, jnp.where(green_leads, blue - red, red - green))
    corner = jnp.where(red_leads, 0.0, jnp.where(green_leads, 2.0, 4.0))
    hue = ahead / jnp.where(chroma == 0, 1.0, chroma) + corner + 6.0 * turns
    hue = hue - 6.0 * jnp.floor(hue / 6.0)
    # One expression over the channels: |hue - 3| - 1 for red, 2 - |hue - 2| for green, 2 - |hue - 4| for
    # blue.
    sign, peak, level = jnp.array([[1, -1, -1], [3, 2, 4], [-1, 2, 2]], planes.dtype)[..., None, None]
    return low + chroma * jnp.clip(sign * jnp.abs(hue - peak) + level, 0.0, 1.0)


def adjust_brightness(
    image: Float[Array, "h w c"], factor: Any, *, additive: bool = False
) -> Float[Array, "h w c"]:
    """Change the brightness: ``clip(factor · x)``, or ``clip(x + factor - 1)`` if additive.

    Args:
      image: ``[h, w, c]`` in [0, 1].
      factor: 0 or more; 1 leaves the image as it is.
      additive: True for the form of SimCLR's first version and of BYOL.

    Returns:
      ``[h, w, c]`` in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> adjust_brightness(jnp.full((1, 1, 1), 0.25), 2.0).item()
      0.5
      >>> adjust_brightness(jnp.full((1, 1, 1), 0.25), 1.5, additive=True).item()
      0.75

    Reference: ``torchvision.transforms.functional.adjust_brightness``.
    """
    return on_planes(_brighten_by_sum if additive else _brighten, image, factor)


def adjust_contrast(image: Float[Array, "h w c"], factor: Any) -> Float[Array, "h w c"]:
    """Change the contrast: ``clip(factor · x + (1 - factor) · m)``, ``m`` the mean over the image of its gray value.

    Args:
      image: ``[h, w, c]`` in [0, 1].
      factor: 0 or more; 1 leaves the image as it is.

    Returns:
      ``[h, w, c]`` in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> adjust_contrast(jnp.array([[[0.25], [0.75]]]), 0.0)[..., 0].tolist()
      [[0.5, 0.5]]

    Reference: ``torchvision.transforms.functional.adjust_contrast``. TensorFlow (SimCLR, BYOL) takes the mean
    of each channel instead.
    """
    return on_planes(_contrast, image, factor)


def adjust_saturation(image: Float[Array, "h w c"], factor: Any) -> Float[Array, "h w c"]:
    """Change the saturation: ``clip(factor · x + (1 - factor) · g)``, ``g`` its gray image (`ssl_jax.augment.color.grayscale`).

    Args:
      image: ``[h, w, c]`` in [0, 1]; one channel is left as it is.
      factor: 0 or more; 1 leaves the image as it is.

    Returns:
      ``[h, w, c]`` in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> adjust_saturation(jnp.array([[[0.25, 0.75]]]), 0.0).tolist()
      [[[0.5, 0.5]]]

    Reference: ``torchvision.transforms.functional.adjust_saturation``.
    """
    return on_planes(_saturate, image, factor)


def adjust_hue(image: Float[Array, "h w c"], turns: Any) -> Float[Array, "h w c"]:
    """Move the hue by a share of the circle of hues, in HSV space.

    Args:
      image: ``[h, w, c]`` in [0, 1]; other than three channels are left as they are.
      turns: -0.5 to 0.5; 1/3 makes red green.

    Returns:
      ``[h, w, c]`` in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> adjust_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 0.5).tolist()
      [[[0.0, 1.0, 1.0]]]

    Reference: ``torchvision.transforms.functional.adjust_hue`` on float tensors. PIL goes through 8-bit HSV,
    which is coarser by up to 14 levels.
    """
    return on_planes(_turn_hue, image, turns)


def jitter_planes(
    planes: Float[Array, "c h w"],
    factors: Float[Array, " 4"],
    order: Int[Array, " 4"],
    *,
    additive_brightness: bool = False,
) -> Float[Array, "c h w"]:
    """Change brightness, contrast, saturation (by factors) and hue (by turns) in a given order, clipped after each.

    Args:
      planes: ``[c, h, w]`` in [0, 1].
      factors: three for brightness, contrast and saturation, then the turn of the hue.
      order: a permutation of 0 to 3; may be traced.
      additive_brightness: see `adjust_brightness`.

    Returns:
      ``[c, h, w]`` in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> jitter_planes(jnp.full((1, 1, 1), 0.25), jnp.array([2.0, 1.0, 1.0, 0.0]), jnp.arange(4)).item()
      0.5
    """
    brighten = _brighten_by_sum if additive_brightness else _brighten
    operations = (brighten, _contrast, _saturate, _turn_hue)

    def apply(position: Any, planes: Array) -> Array:
        return jax.lax.switch(order[position], operations, planes, factors[order[position]])

    return jax.lax.fori_loop(0, 4, apply, planes)


def composed_jitter_planes(
    planes: Float[Array, "c h w"],
    factors: Float[Array, " 4"],
    order: Int[Array, " 4"],
    *,
    additive_brightness: bool = False,
) -> Float[Array, "c h w"]:
    """Approximate `jitter_planes` fast: the four operations as one affine map, ``clip(A x + b)``.

    It differs in two ways: pixels are clipped once, at the end, and the hue turns in the (I, Q) plane of YIQ
    space, which keeps luma instead of HSV's value. Args and Returns as in `jitter_planes`.

    Example:
      >>> import jax.numpy as jnp
      >>> factors = jnp.array([2.0, 1.0, 1.0, 0.0])
      >>> composed_jitter_planes(jnp.full((1, 1, 1), 0.25), factors, jnp.arange(4)).item()
      0.5
    """
    channels, dtype = planes.shape[0], planes.dtype
    factors = factors.astype(dtype)
    luma = jnp.asarray(LUMA if channels == 3 else (1 / channels,) * channels, dtype)
    means, identity = jnp.mean(planes, axis=(1, 2)), jnp.eye(channels, dtype=dtype)
    gray = jnp.broadcast_to(luma, (channels, channels))
    turn = identity
    if channels == 3:
        cosine, sine = jnp.cos(2 * jnp.pi * factors[HUE]), jnp.sin(2 * jnp.pi * factors[HUE])
        zero, one = jnp.zeros_like(cosine), jnp.ones_like(cosine)
        # From red to yellow to green, the direction of growing hue, (I, Q) turns clockwise.
        rotation = jnp.stack([one, zero, zero, zero, cosine, sine, zero, -sine, cosine]).reshape(3, 3)
        turn = jnp.asarray(np.linalg.inv(YIQ), dtype) @ rotation @ jnp.asarray(YIQ, dtype)
    bright = identity if additive_brightness else factors[BRIGHTNESS] * identity
    saturate = factors[SATURATION] * identity + (1 - factors[SATURATION]) * gray
    maps = jnp.stack([bright, factors[CONTRAST] * identity, saturate, turn])
    shift = factors[BRIGHTNESS] - 1 if additive_brightness else jnp.zeros((), dtype)
    matrix, offset = identity, jnp.zeros(channels, dtype)
    for position in range(4):
        operation = order[position]
        middle = (1 - factors[CONTRAST]) * (luma @ (matrix @ means + offset))
        added = jnp.where(operation == CONTRAST, middle, jnp.where(operation == BRIGHTNESS, shift, 0))
        matrix, offset = maps[operation] @ matrix, maps[operation] @ offset + added
    # Sums over so few channels are faster written out than as a matrix product.
    mixed = sum(matrix[:, i, None, None] * planes[i] for i in range(channels))
    return jnp.clip(mixed + offset[:, None, None], 0.0, 1.0)
