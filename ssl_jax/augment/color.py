"""Colours and pixels of one image: ranges, gray values, solarization, normalisation.

The public functions take ``[h, w, c]``; those that end in ``_planes`` take ``[c, h, w]``, which is what runs fast on a CPU,
and are what the operations of a view call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array

LUMA = (0.2989, 0.587, 0.114)
LOOKED_AT = 8
"""Images of a batch whose range is looked at."""
PIXELS = ("uint8", "uint16", "bfloat16", "float16", "float32", "float64")


def to_float(images: Shaped[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Convert pixels to floats in [0, 1]: uint8 divided by 255, uint16 by 65535, floats as they are.

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


def require_unit_range(images: Any, name: str = "images") -> None:
    """Refuse float images that are plainly not in [0, 1], by a look at the first few; what overshoots a little passes.

    Values under trace, and arrays that other processes hold a part of, are not looked at.

    Args:
      images: ``[b, ...]``, any dtype.
      name: for the error.

    Raises:
      ValueError: NaN, or values outside of [-0.5, 1.5], such as 0 to 255, or -1 to 1.

    Example:
      >>> import numpy as np
      >>> require_unit_range(np.full((2, 4, 4, 3), 255.0))
      Traceback (most recent call last):
      ...
      ValueError: images=[255, 255]: allowed is floats in [0, 1], or uint8; images / 255 brings 0 to 255 there
    """
    if isinstance(images, jax.core.Tracer) or not getattr(images, "is_fully_addressable", True):
        return
    if not jnp.issubdtype(images.dtype, jnp.floating) or images.size == 0:
        return
    first = np.asarray(images[:LOOKED_AT], np.float32)
    low, high = float(first.min()), float(first.max())
    if not (low >= -0.5 and high <= 1.5):  # NaN fails both
        hint = (
            "(images + 1) / 2 brings -1 to 1 there"
            if low >= -1 and high <= 1
            else "images / 255 brings 0 to 255 there"
        )
        raise ValueError(f"{name}=[{low:g}, {high:g}]: allowed is floats in [0, 1], or uint8; {hint}")


def on_planes(
    function: Callable[..., Array], image: Float[Array, "h w c"], *args: Any
) -> Float[Array, "h w c"]:
    """Call a function of planes ``[c, h, w]`` on an image ``[h, w, c]``.

    >>> import jax.numpy as jnp
    >>> on_planes(jnp.multiply, jnp.ones((1, 2, 3)), 2.0).shape
    (1, 2, 3)
    """
    return jnp.moveaxis(function(jnp.moveaxis(image, -1, 0), *args), 0, -1)


def luma_planes(planes: Float[Array, "c h w"]) -> Float[Array, "h w"]:
    """Compute the gray value: luma (Rec. 601) of three channels, the mean of any other number.

    >>> import jax.numpy as jnp
    >>> luma_planes(jnp.array([0.0, 0.5, 1.0, 0.5]).reshape(4, 1, 1)).tolist()
    [[0.5]]
    """
    if planes.shape[0] == 3:
        return LUMA[0] * planes[0] + LUMA[1] * planes[1] + LUMA[2] * planes[2]
    return jnp.mean(planes, axis=0)


def gray_planes(planes: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """Make planes ``[c, h, w]`` gray as `grayscale` does an image.

    >>> import jax.numpy as jnp
    >>> gray_planes(jnp.array([0.0, 1.0]).reshape(2, 1, 1)).ravel().tolist()
    [0.5, 0.5]
    """
    return jnp.broadcast_to(luma_planes(planes), planes.shape)


def grayscale(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Make an image gray with as many channels as before: luma of three channels, the mean of any other number.

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
    return on_planes(gray_planes, image)


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
    """Normalise each channel: ``(x - mean) / std``.

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
    """Undo a normalisation: ``x · std + mean`` for each channel, the inverse of `normalize`, with the same arguments.

    >>> import jax.numpy as jnp
    >>> unnormalize(jnp.array([0.0, 2.0]), mean=(0.5,), std=(0.25,)).tolist()
    [0.5, 1.0]
    """
    image = jnp.asarray(image)
    if not mean and not std:
        return image
    return image * jnp.asarray(std, image.dtype) + jnp.asarray(mean, image.dtype)
