"""Random resized crops: boxes of whole pixels, resampled by matrices of static shape."""

import dataclasses
import functools
import math
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array

INTERPOLATIONS = ("bilinear", "bicubic")
TRIES = 10
LONG = 4
"""Width over height above which the columns of an image are resampled before its rows."""


class Box(NamedTuple):
    """A rectangle of whole pixels: ``image[top : top + height, left : left + width]`` (int32 scalars)."""

    top: Any
    left: Any
    height: Any
    width: Any


def box_corners(box: Box) -> tuple[Any, Any, Any, Any]:
    """Return top, left, bottom and right of a box.

    >>> box_corners(Box(1, 2, 3, 4))
    (1, 2, 4, 6)
    """
    return box.top, box.left, box.top + box.height, box.left + box.width


@functools.cache
def _digits(low: float, high: float, exponential: bool) -> np.ndarray:
    """Make tables ``[3, 256]``: entries for the three bytes of a 24-bit ``u`` add up to ``low + u (high - low)``.

    With ``exponential`` their product is the exponential of that. Sums or products of constants round alike
    in numpy and in compiled code; a product followed by a sum does not (the compiler may fuse the two), nor
    does exp.
    """
    steps = np.arange(256)[None] * 2.0 ** -np.array([8, 16, 24])[:, None] * (high - low)
    steps[0] += low
    return (np.exp(steps) if exponential else steps).astype(np.float32)


def _whole_or_center(height: int, width: int, ratio: tuple[Any, Any]) -> Box:
    """Return the fallback: the largest centred box whose aspect ratio lies in ``ratio``."""
    if width / height < ratio[0]:
        inside = (min(max(round(width / ratio[0]), 1), height), width)
    elif width / height > ratio[1]:
        inside = (height, min(max(round(height * ratio[1]), 1), width))
    else:
        inside = (height, width)
    return Box((height - inside[0]) // 2, (width - inside[1]) // 2, *inside)


def sample_box(
    uniforms: Shaped[Array | np.ndarray, "tries 4"],
    height: int,
    width: int,
    *,
    area: tuple[Any, Any],
    ratio: tuple[Any, Any],
    xp: ModuleType = jnp,
) -> Box:
    """Choose the box of a random resized crop from given uniform numbers: the same integers in numpy and on a device.

    A try draws ``A ~ U(area)·height·width`` and ``log r ~ U(log ratio)`` and proposes ``w = round(√(A r))``,
    ``h = round(√(A / r))`` at a uniform position. The first try that fits into the image counts. If none
    does, the largest centred box with an allowed ratio is taken: the whole image, where its own ratio is
    allowed.

    Args:
      uniforms: float32 ``[tries, 4]`` in [0, 1): area, log ratio, row and column of each try.
      height: height of the image in pixels.
      width: width of the image in pixels.
      area: least and greatest share of the image's area, in (0, 1].
      ratio: least and greatest ``w / h``.
      xp: ``jax.numpy`` or ``numpy``.

    Returns:
      ``Box`` of int32 scalars.

    Example:
      >>> import numpy as np
      >>> half = np.full((10, 4), 0.5, np.float32)
      >>> [int(n) for n in sample_box(half, 32, 32, area=(0.2, 1.0), ratio=(3 / 4, 4 / 3), xp=np)]
      [4, 4, 25, 25]

    Reference: Szegedy et al. 2015, section 6; the distribution of
    ``torchvision.transforms.RandomResizedCrop`` with its 10 tries. The uniform numbers are read with 24 bits.
    """
    uniforms = uniforms.astype(xp.float32)
    bits = (uniforms[:, :2] * 2**24).astype(xp.int32)
    digits = xp.stack([bits >> 16, (bits >> 8) & 255, bits & 255])

    def lookup(table: np.ndarray, column: int) -> tuple[Any, Any, Any]:
        return tuple(xp.asarray(table[i])[digits[i, :, column]] for i in range(3))

    low, high = math.log(ratio[0]), math.log(ratio[1])
    a0, a1, a2 = lookup(_digits(*area, False), 0)
    r0, r1, r2 = lookup(_digits(low, high, True), 1)
    s0, s1, s2 = lookup(_digits(-low, -high, True), 1)
    target = (a0 + a1 + a2) * np.float32(height * width)
    w = xp.rint(xp.sqrt(target * (r0 * r1 * r2))).astype(xp.int32)
    h = xp.rint(xp.sqrt(target * (s0 * s1 * s2))).astype(xp.int32)
    rows, columns = height - h + 1, width - w + 1
    top = xp.minimum((uniforms[:, 2] * rows.astype(xp.float32)).astype(xp.int32), rows - 1)
    left = xp.minimum((uniforms[:, 3] * columns.astype(xp.float32)).astype(xp.int32), columns - 1)

    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, any_fits = xp.argmax(fits), xp.any(fits)
    fallback = _whole_or_center(height, width, ratio)
    return Box(
        *(
            xp.where(any_fits, drawn[first], xp.int32(f))
            for drawn, f in zip((top, left, h, w), fallback, strict=True)
        )
    )


def _triangle(x: Any, xp: ModuleType) -> Any:
    return xp.maximum(1.0 - xp.abs(x), 0.0)


def _cubic(x: Any, a: float, xp: ModuleType) -> Any:
    """Evaluate Keys' cubic convolution kernel with parameter ``a``, zero from 2 on."""
    x = xp.minimum(xp.abs(x), 2.0)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return xp.where(x < 1, near, far)


def resampling_weights(
    center: Any,
    position: Any,
    length: Any,
    scale: Any,
    *,
    interpolation: str,
    antialias: bool,
    xp: ModuleType,
) -> Any:
    """Compute weights ``[..., out, in]`` of a box's pixels ``0 .. length`` for outputs with the given centres.

    Rows sum to 1 and are zero outside the box. With antialias the filter widens by ``scale`` when shrinking
    and is renormalised at the border; without it taps beyond the border read the border pixel, and the
    cubic's parameter is -0.75, as in torch.

    Args:
      center: centres of the outputs in the box's coordinates, float ``[..., out, 1]``.
      position: index of the pixels in the box, float ``[..., 1, in]``; may lie outside.
      length: length of the box, float.
      scale: ``length / size``.
      interpolation: ``bilinear`` or ``bicubic``.
      antialias: whether the filter widens when shrinking.
      xp: ``jax.numpy`` or ``numpy``.

    Example:
      >>> import numpy as np
      >>> center, position = np.array([[1.0]]), np.arange(-1.0, 3.0)[None]
      >>> resampling_weights(center, position, 2.0, 2.0, interpolation="bilinear", antialias=True, xp=np).tolist()
      [[0.0, 0.5, 0.5, 0.0]]
    """
    inside = (position >= 0) & (position < length)
    offset = position + 0.5 - center
    if antialias or interpolation == "bilinear":
        # Without antialias a renormalised triangle is the same as taps clamped to the border.
        offset = offset / xp.maximum(scale, 1.0) if antialias else offset
        weights = _triangle(offset, xp) if interpolation == "bilinear" else _cubic(offset, -0.5, xp)
        weights = xp.where(inside, weights, 0.0)
        return weights / xp.sum(weights, axis=-1, keepdims=True)

    def taps(first: Any) -> Any:
        return _cubic(first + 0.5 - center, -0.75, xp) + _cubic(first + 1.5 - center, -0.75, xp)

    weights = xp.where(inside, _cubic(offset, -0.75, xp), 0.0)
    weights = weights + xp.where(position == 0, taps(-2.0), 0.0)
    return weights + xp.where(position == length - 1, taps(length), 0.0)


def _block(size: int) -> int:
    """Count the outputs that are computed together: the largest divisor of ``size`` up to 16, or all where that is small."""
    divisor = max(d for d in range(1, min(size, 16) + 1) if size % d == 0)
    return divisor if divisor >= 8 else size


def _windows(
    start: Any, length: Any, rows: int, size: int, *, dtype: Any, interpolation: str, antialias: bool
) -> tuple[Array, int, Array]:
    """Lay windows over a line of ``rows`` pixels: their first pixels, length, weights ``[blocks, block, window]``.

    A block of neighbouring outputs reads a window of neighbouring pixels only, so blocks times windows do
    fewer products than one matrix, ten times fewer at 224 pixels. The window is as long as a whole line
    needs.
    """
    block = _block(size)
    greatest = rows / size
    window = min(rows, math.ceil((block - 1) * greatest + 4 * max(greatest, 1.0)) + 2)
    length = jnp.asarray(length).astype(dtype)
    scale = length / size
    center = (jnp.arange(size, dtype=dtype).reshape(-1, block, 1) + 0.5) * scale
    reach = 2.0 * jnp.maximum(scale, 1.0)
    first = jnp.clip(jnp.floor(center[:, 0, 0] - reach).astype(jnp.int32) + start, 0, rows - window)
    position = (first[:, None, None] + jnp.arange(window) - start).astype(dtype)
    weights = resampling_weights(
        center, position, length, scale, interpolation=interpolation, antialias=antialias, xp=jnp
    )
    return first, window, weights


def _resample(image: Array, box: Box, size: int, interpolation: str, antialias: bool) -> Array:
    """Resample the crop to planes ``[c, size, size]``: rows first, in the layout of the image, then columns.

    In between there are ``size`` x width pixels. A wide image, of which these would be far more than of a photograph, is
    turned, so that its columns come first.
    """
    height, width, channels = image.shape
    if width > LONG * height:
        turned = Box(box.left, box.top, box.width, box.height)
        planes = _resample(image.swapaxes(0, 1), turned, size, interpolation, antialias)
        return planes.swapaxes(1, 2)
    options: Any = {"dtype": image.dtype, "interpolation": interpolation, "antialias": antialias}
    # Full float32 on every device: the 8 bits of a pixel must survive.
    precision = jax.lax.Precision.HIGHEST
    first, window, weights = _windows(box.top, box.height, height, size, **options)
    lines = image.reshape(height, -1)
    windows = jax.vmap(lambda f: jax.lax.dynamic_slice_in_dim(lines, f, window))(first)
    rows = jnp.matmul(weights, windows, precision=precision).reshape(size, width, channels)
    first, window, weights = _windows(box.left, box.width, width, size, **options)
    lines = jnp.moveaxis(rows, -1, 0).reshape(-1, width)
    windows = jax.vmap(lambda f: jax.lax.dynamic_slice_in_dim(lines, f, window, axis=1))(first)
    columns = jnp.einsum("bmi,boi->bmo", windows, weights, precision=precision)
    return columns.transpose(1, 0, 2).reshape(channels, size, size)


def crop_resize(
    image: Float[Array, "h w c"],
    box: Box,
    *,
    size: int,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Float[Array, "{size} {size} c"]:
    """Crop a box and resize it to ``size`` x ``size`` pixels, with shapes that do not depend on the box.

    ``y = Wy x Wxᵀ`` for each channel, with `resampling_weights` that are zero outside the box.

    Args:
      image: ``[h, w, c]``, float, any range.
      box: top, left, height, width in pixels; may be traced.
      size: side of the output in pixels.
      interpolation: ``bilinear`` or ``bicubic``. Bicubic may overshoot the range by some per cent; it is not clipped
        here.
      antialias: whether shrinking averages over the pixels in between (as PIL always does).

    Returns:
      ``[size, size, c]``, at least float32.

    Raises:
      ValueError: unknown interpolation.

    Example:
      >>> import jax.numpy as jnp
      >>> image = jnp.arange(16.0).reshape(4, 4, 1)
      >>> crop_resize(image, Box(1, 1, 2, 2), size=2)[..., 0].tolist()
      [[5.0, 6.0], [9.0, 10.0]]

    Reference: equals ``torchvision.transforms.functional.resized_crop`` on float tensors: Keys' cubic with a
    = -0.5 when antialias is on, a = -0.75 when it is off. (``jax.image.scale_and_translate`` reads beyond the
    box.)
    """
    check.choice("interpolation", interpolation, INTERPOLATIONS)
    image = at_least_float32(image)
    return jnp.moveaxis(_resample(image, box, size, interpolation, antialias), 0, -1)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """The crop of a view, as data: a random box of the image, resized to the size of the view.

    Attributes:
      area: least and greatest share of the image that the crop covers, in (0, 1].
      ratio: least and greatest width / height of the crop.
      interpolation: ``bilinear`` or ``bicubic``.
      antialias: whether shrinking averages over the pixels in between.
      draws: how many uniform numbers it takes for an image.

    Example:
      >>> import jax.numpy as jnp
      >>> crop = RandomResizedCrop(area=(1.0, 1.0), ratio=(1.0, 1.0))
      >>> box = crop.choose(jnp.zeros(crop.draws), 8, 8)
      >>> [int(n) for n in box], crop.apply(jnp.ones((8, 8, 3)), box, 4).shape
      ([0, 0, 8, 8], (4, 4, 3))
    """

    draws: ClassVar[int] = 4 * TRIES
    area: tuple[Any, Any] = (0.08, 1.0)
    ratio: tuple[Any, Any] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    antialias: bool = True

    def __post_init__(self) -> None:
        check.require(0 < self.area[0] <= self.area[1] <= 1, "area", self.area, "0 < least <= greatest <= 1")
        check.require(0 < self.ratio[0] <= self.ratio[1], "ratio", self.ratio, "0 < least <= greatest")
        check.choice("interpolation", self.interpolation, INTERPOLATIONS)

    def choose(
        self, uniforms: Shaped[Array | np.ndarray, " draws"], height: int, width: int, *, xp: ModuleType = jnp
    ) -> Box:
        """Return the box in an image of ``height`` x ``width`` pixels, from uniform numbers; see `sample_box`."""
        tries = uniforms.reshape(TRIES, 4)
        return sample_box(tries, height, width, area=self.area, ratio=self.ratio, xp=xp)

    def apply(self, image: Float[Array, "h w c"], box: Box, size: int) -> Float[Array, "{size} {size} c"]:
        """Return the box of an image, resized; see `crop_resize`."""
        return crop_resize(image, box, size=size, interpolation=self.interpolation, antialias=self.antialias)
