"""Colour operations on one image: torchvision's definitions, also where there are not three channels.

The public functions take ``[h, w, c]``; those that end in ``_planes`` take ``[c, h, w]``, which is what runs
fast on a CPU, and are what the pipeline in `ssl_jax.augment.views` calls.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key

LUMA = (0.2989, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
PIXELS = ("uint8", "uint16", "bfloat16", "float16", "float32", "float64")

# Red, green and blue in YIQ space; hue turns the (I, Q) plane. The NTSC matrix, rounded as in the 1953
# standard.
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def to_float(images: Shaped[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Pixels as floats in [0, 1]: uint8 divided by 255, uint16 by 65535, floats as they are.

    Args:
      images: any shape; uint8, uint16 or float. Floats are taken to be in [0, 1] already.

    Returns:
      At least float32.

    Raises:
      ValueError: another dtype, whose range is not known.

    Example:
      >>> import numpy as np
      >>> to_float(np.array([0, 255], np.uint8)).tolist()
      [0.0, 1.0]
    """
    check.choice("images.dtype", images.dtype.name, PIXELS)
    images = jnp.asarray(images)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return at_least_float32(images)
    return images.astype(jnp.float32) / jnp.iinfo(images.dtype).max


def _on_planes(function: Any, image: Array, *args: Any) -> Array:
    return jnp.moveaxis(function(jnp.moveaxis(image, -1, 0), *args), 0, -1)


def luma_planes(planes: Float[Array, "c h w"]) -> Float[Array, "h w"]:
    """Gray value: luma (Rec. 601) of three channels, the mean of any other number.

    >>> import jax.numpy as jnp
    >>> luma_planes(jnp.array([0.0, 0.5, 1.0, 0.5]).reshape(4, 1, 1)).tolist()
    [[0.5]]
    """
    if planes.shape[0] == 3:
        return LUMA[0] * planes[0] + LUMA[1] * planes[1] + LUMA[2] * planes[2]
    return jnp.mean(planes, axis=0)


def gray_planes(planes: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """`grayscale` on planes ``[c, h, w]``.

    >>> import jax.numpy as jnp
    >>> gray_planes(jnp.array([0.0, 1.0]).reshape(2, 1, 1)).ravel().tolist()
    [0.5, 0.5]
    """
    return jnp.broadcast_to(luma_planes(planes), planes.shape)


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
    """Hue in HSV space moved: value and chroma stay, only the place on the hexagon of hues is computed."""
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
    """Brightness: ``clip(factor · x)``, or ``clip(x + factor - 1)`` if additive.

    Args:
      image: ``[h, w, c]`` in [0, 1].
      factor: 0 or more; 1 leaves the image as it is.
      additive: the form of SimCLR's first version and of BYOL.

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
    return _on_planes(_brighten_by_sum if additive else _brighten, image, factor)


def adjust_contrast(image: Float[Array, "h w c"], factor: Any) -> Float[Array, "h w c"]:
    """Contrast: ``clip(factor · x + (1 - factor) · m)``, ``m`` the mean over the image of its gray value.

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
    return _on_planes(_contrast, image, factor)


def adjust_saturation(image: Float[Array, "h w c"], factor: Any) -> Float[Array, "h w c"]:
    """Saturation: ``clip(factor · x + (1 - factor) · g)``, ``g`` the gray image of `grayscale`.

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
    return _on_planes(_saturate, image, factor)


def adjust_hue(image: Float[Array, "h w c"], turns: Any) -> Float[Array, "h w c"]:
    """Hue moved by a share of the circle of hues, in HSV space.

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
    return _on_planes(_turn_hue, image, turns)


def grayscale(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Gray image with as many channels as before: luma of three channels, the mean of any other number.

    Args:
      image: ``[h, w, c]``; one channel is left as it is.

    Returns:
      ``[h, w, c]``, all channels equal.

    Example:
      >>> import jax.numpy as jnp
      >>> grayscale(jnp.array([[[0.0, 1.0]]])).tolist()
      [[[0.5, 0.5]]]

    Reference: ``torchvision.transforms.functional.rgb_to_grayscale`` (.2989, .587, .114).
    """
    return _on_planes(gray_planes, image)


def jitter_planes(
    planes: Float[Array, "c h w"],
    factors: Float[Array, " 4"],
    order: Int[Array, " 4"],
    *,
    additive_brightness: bool = False,
) -> Float[Array, "c h w"]:
    """Brightness, contrast, saturation (by factors) and hue (by turns) in a given order, clipped after each.

    Args:
      planes: ``[c, h, w]`` in [0, 1].
      factors: of brightness, contrast and saturation, then the turn of the hue.
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
    """A fast approximation of `jitter_planes`: the four operations as one affine map, ``clip(A x + b)``.

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


class JitterDraw(NamedTuple):
    """What is drawn for one image: whether to jitter, ``factors`` and ``order`` of `jitter_planes`."""

    applied: Any
    factors: Any
    order: Any


def draw_jitter(
    uniforms: Float[Array, " 9"],
    *,
    brightness: Any,
    contrast: Any,
    saturation: Any,
    hue: Any,
    probability: Any = 1.0,
    additive_brightness: bool = False,
) -> JitterDraw:
    """The random numbers of `color_jitter` from nine uniform ones in [0, 1).

    >>> import jax.numpy as jnp
    >>> draw = draw_jitter(jnp.arange(9.0) / 10, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)
    >>> [round(float(f), 2) for f in draw.factors]
    [0.5, 0.6, 0.7, -0.04]
    """
    strengths = jnp.stack([jnp.asarray(s, jnp.float32) for s in (brightness, contrast, saturation, hue)])
    centres = jnp.array([1.0, 1.0, 1.0, 0.0])
    # Factors are never negative; with additive brightness the drawn number is a shift, which may be.
    free = jnp.array([additive_brightness, False, False, True])
    low = jnp.where(free, centres - strengths, jnp.maximum(centres - strengths, 0.0))
    factors = low + (centres + strengths - low) * uniforms[:4]
    return JitterDraw(uniforms[8] < probability, factors, jnp.argsort(uniforms[4:8]))


def apply_jitter(
    planes: Float[Array, "c h w"], draw: JitterDraw, *, additive_brightness: bool = False, exact: bool = True
) -> Float[Array, "c h w"]:
    """`jitter_planes` (``exact``) or `composed_jitter_planes` where drawn, else the planes as they are.

    >>> import jax.numpy as jnp
    >>> draw = JitterDraw(jnp.array(False), jnp.ones(4), jnp.arange(4))
    >>> apply_jitter(jnp.full((1, 1, 1), 0.25), draw).item()
    0.25
    """
    jitter = functools.partial(
        jitter_planes if exact else composed_jitter_planes,
        factors=draw.factors.astype(planes.dtype),
        order=draw.order,
        additive_brightness=additive_brightness,
    )
    return jax.lax.cond(draw.applied, jitter, lambda x: x, planes)


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
    """Random brightness, contrast, saturation and hue in random order, each image its own.

    Factors ``f ~ U(max(0, 1 - s), 1 + s)`` for brightness, contrast and saturation with strength s; the hue
    turns by ``U(-hue, hue)``. Order uniform over the 24; pixels are clipped to [0, 1] after each.

    Args:
      key: used once.
      image: ``[h, w, c]`` in [0, 1]. With other than three channels saturation blends with the mean of the
        channels and hue does nothing.
      brightness: strength, 0 or more; may be traced, as the other numbers.
      contrast: strength, 0 or more.
      saturation: strength, 0 or more.
      hue: greatest turn, 0 to 0.5.
      probability: of jittering at all.
      additive_brightness: add ``U(-b, b)`` instead of multiplying (SimCLR version 1, BYOL).
      exact: False uses `composed_jitter_planes`: one affine map, clipped once, hue in YIQ space; faster.

    Returns:
      ``[h, w, c]`` in [0, 1]; the image itself where it is not jittered.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> image = jnp.linspace(0, 1, 12).reshape(2, 2, 3)
      >>> out = color_jitter(jax.random.key(0), image, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
      >>> out.shape, bool((out >= 0).all() & (out <= 1).all())
      ((2, 2, 3), True)

    Reference: Chen et al. 2020 (SimCLR), appendix A; ``torchvision.transforms.ColorJitter``. BYOL's code and
    SimCLR's take contrast's mean per channel; here it is torchvision's.
    """
    draw = draw_jitter(
        jax.random.uniform(key, (9,), dtype=jnp.float32),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        probability=probability,
        additive_brightness=additive_brightness,
    )
    planes = jnp.moveaxis(image, -1, 0)
    planes = apply_jitter(planes, draw, additive_brightness=additive_brightness, exact=exact)
    return jnp.moveaxis(planes, 0, -1)


def solarize(image: Float[Array, "..."], *, threshold: Any = 0.5) -> Float[Array, "..."]:
    """Invert the pixels at or above a threshold: ``1 - x`` where ``x >= threshold``.

    Args:
      image: any shape, in [0, 1].
      threshold: 0 to 1; may be traced.

    Returns:
      The same shape, in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> solarize(jnp.array([0.25, 0.5, 1.0])).tolist()
      [0.25, 0.5, 0.0]

    Reference: ``torchvision.transforms.functional.solarize``; Grill et al. 2020 (BYOL), appendix B.
    """
    return jnp.where(image >= threshold, 1.0 - image, image)


def normalize(
    image: Float[Array, "... c"], *, mean: tuple[Any, ...], std: tuple[Any, ...]
) -> Float[Array, "... c"]:
    """``(x - mean) / std`` for each channel.

    Args:
      image: channels last.
      mean: one number or one a channel; ``()`` together with ``std=()`` leaves the image as it is.
      std: as many numbers as ``mean``.

    Returns:
      The same shape.

    Raises:
      ValueError: neither 1 nor c numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> normalize(jnp.array([0.5, 1.0]), mean=(0.5,), std=(0.25,)).tolist()
      [0.0, 2.0]
    """
    if not mean and not std:
        return image
    channels = image.shape[-1]
    for name, numbers in (("mean", mean), ("std", std)):
        check.require(
            len(numbers) in (1, channels), name, numbers, f"1 number or one for each of {channels} channels"
        )
    return (image - jnp.asarray(mean, image.dtype)) / jnp.asarray(std, image.dtype)


def unnormalize(
    image: Float[Array | np.ndarray, "... c"], *, mean: tuple[Any, ...], std: tuple[Any, ...]
) -> Float[Array, "... c"]:
    """``x · std + mean`` for each channel: the inverse of `normalize`, with the same arguments.

    >>> import jax.numpy as jnp
    >>> unnormalize(jnp.array([0.0, 2.0]), mean=(0.5,), std=(0.25,)).tolist()
    [0.5, 1.0]
    """
    image = jnp.asarray(image)
    if not mean and not std:
        return image
    return image * jnp.asarray(std, image.dtype) + jnp.asarray(mean, image.dtype)
