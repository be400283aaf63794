"""Random resized crops and flips: integer boxes drawn as torchvision draws them, resampled by matrices of static shape."""

import functools
import math
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key

METHODS = ("bilinear", "bicubic")
TRIES = 10


class Box(NamedTuple):
    """A rectangle of whole pixels: ``image[top : top + height, left : left + width]`` (int32 scalars)."""

    top: Any
    left: Any
    height: Any
    width: Any


@functools.cache
def _digits(low: float, high: float, exponential: bool) -> np.ndarray:
    """Tables ``[3, 256]`` whose entries for the three bytes of a 24-bit ``u`` add up to ``low + u (high - low)``.

    With ``exponential`` their product is the exponential of that. A sum or a product of constants rounds alike in numpy
    and on every device; a multiplication followed by an addition does not (the compiler may fuse the two), nor does exp.
    """
    steps = np.arange(256)[None] * 2.0 ** -np.array([8, 16, 24])[:, None] * (high - low)
    steps[0] += low
    return (np.exp(steps) if exponential else steps).astype(np.float32)


def _whole_or_centre(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The fallback: the largest centred box whose aspect ratio lies in ``ratio``."""
    if width / height < ratio[0]:
        inside = (min(round(width / ratio[0]), height), width)
    elif width / height > ratio[1]:
        inside = (height, min(round(height * ratio[1]), width))
    else:
        inside = (height, width)
    return Box((height - inside[0]) // 2, (width - inside[1]) // 2, *inside)


def sample_box(
    uniforms: Shaped[Array | np.ndarray, "tries 4"],
    height: int,
    width: int,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    xp: ModuleType = jnp,
) -> Box:
    """Box of a random resized crop from given uniform numbers, the same integers in numpy and on a device.

    A try draws ``A ~ U(area)·height·width`` and ``log r ~ U(log ratio)`` and proposes ``w = round(√(A r))``,
    ``h = round(√(A / r))`` at a uniform position. The first try that fits into the image counts; if none does, the
    largest centred box with an allowed aspect ratio is taken (the whole image, where its own ratio is allowed).

    Args:
      uniforms: float32 ``[tries, 4]`` in [0, 1): area, log ratio, row and column of each try.
      height: of the image, pixels.
      width: of the image, pixels.
      area: least and greatest share of the image's area, in (0, 1].
      ratio: least and greatest ``w / h``.
      xp: ``jax.numpy`` or ``numpy``.

    Returns:
      ``Box`` of int32 scalars.

    Example:
      >>> import numpy as np
      >>> tuple(int(n) for n in sample_box(np.full((10, 4), 0.5, np.float32), 32, 32, area=(.2, 1.), ratio=(.75, 4/3), xp=np))
      (4, 4, 25, 25)

    Reference: Szegedy et al. 2015, section 6; ``torchvision.transforms.RandomResizedCrop``, which draws up to 10 tries.
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
    first, found = xp.argmax(fits), xp.any(fits)
    fallback = _whole_or_centre(height, width, ratio)
    return Box(*(xp.where(found, drawn[first], xp.int32(f)) for drawn, f in zip((top, left, h, w), fallback)))


def random_box(
    key: Key, height: int, width: int, *, area: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """Box of a random resized crop; see `sample_box`, of which this draws the uniform numbers.

    Args:
      key: used once.
      height: of the image, pixels.
      width: of the image, pixels.
      area: least and greatest share of the image's area, in (0, 1].
      ratio: least and greatest ``w / h``.

    Returns:
      ``Box`` of int32 scalars, inside the image.

    Example:
      >>> import jax
      >>> box = random_box(jax.random.key(0), 8, 8, area=(1.0, 1.0), ratio=(1.0, 1.0))
      >>> [int(n) for n in box]
      [0, 0, 8, 8]
    """
    uniforms = jax.random.uniform(key, (TRIES, 4), dtype=jnp.float32)
    return sample_box(uniforms, height, width, area=area, ratio=ratio)


def _triangle(x: Any, xp: ModuleType) -> Any:
    return xp.maximum(1.0 - xp.abs(x), 0.0)


def _cubic(x: Any, a: float, xp: ModuleType) -> Any:
    """Keys' cubic convolution kernel with parameter ``a``, zero from 2 on."""
    x = xp.minimum(xp.abs(x), 2.0)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return xp.where(x < 1, near, far)


def resampling_matrix(
    start: Any,
    length: Any,
    size_in: int,
    size_out: int,
    *,
    method: str,
    antialias: bool,
    dtype: Any,
    xp: ModuleType,
) -> Any:
    """Matrix ``[size_out, size_in]`` that resamples the pixels ``start .. start + length`` of a line to ``size_out`` pixels.

    Rows sum to 1 and read nothing outside the box. With antialias the filter widens by ``length / size_out`` when
    shrinking and is renormalised at the border; without it taps beyond the border read the border pixel, and the cubic's
    parameter is -0.75, as in torch.

    >>> import numpy as np
    >>> resampling_matrix(1, 2, 4, 1, method="bilinear", antialias=True, dtype=np.float32, xp=np).tolist()
    [[0.0, 0.5, 0.5, 0.0]]
    """
    length = xp.asarray(length).astype(dtype)
    scale = length / size_out
    centre = (xp.arange(size_out, dtype=dtype) + dtype(0.5))[:, None] * scale
    position = (xp.arange(size_in) - start)[None]
    inside = (position >= 0) & (position < length)
    if antialias or method == "bilinear":
        # Without antialias a renormalised triangle equals taps clamped to the border.
        stretch = xp.maximum(scale, 1.0) if antialias else dtype(1.0)
        offset = (position.astype(dtype) + dtype(0.5) - centre) / stretch
        weights = xp.where(
            inside, _triangle(offset, xp) if method == "bilinear" else _cubic(offset, -0.5, xp), 0.0
        )
        return weights / xp.sum(weights, axis=1, keepdims=True)

    def tap(index: Any) -> Any:
        return _cubic(index + dtype(0.5) - centre, -0.75, xp)

    weights = xp.where(inside, tap(position.astype(dtype)), 0.0)
    before = tap(dtype(-1.0)) + tap(dtype(-2.0))
    after = tap(length) + tap(length + 1)
    weights = weights + xp.where(position == 0, before, 0.0)
    return weights + xp.where(position == length - 1, after, 0.0)


def crop_resize(
    image: Float[Array, "h w c"], box: Box, *, size: int, method: str = "bilinear", antialias: bool = True
) -> Float[Array, "{size} {size} c"]:
    """Crop a box and resize it to ``size`` x ``size`` pixels, with shapes that do not depend on the box.

    ``y = Wy x Wxᵀ`` for each channel, with `resampling_matrix` masked to the box: nothing outside the box is read.

    Args:
      image: ``[h, w, c]``, float, any range.
      box: top, left, height, width in pixels; may be traced.
      size: of the output, pixels.
      method: ``bilinear`` or ``bicubic``. Bicubic may overshoot the range by some per cent; it is not clipped here.
      antialias: whether shrinking averages over the pixels in between (as PIL always does).

    Returns:
      ``[size, size, c]``, at least float32.

    Raises:
      ValueError: unknown method.

    Example:
      >>> import jax.numpy as jnp
      >>> image = jnp.arange(16.0).reshape(4, 4, 1)
      >>> crop_resize(image, Box(1, 1, 2, 2), size=2)[..., 0].tolist()
      [[5.0, 6.0], [9.0, 10.0]]

    Reference: equals ``torchvision.transforms.functional.resized_crop`` on float tensors: Keys' cubic with a = -0.5 when
    antialias is on, a = -0.75 when it is off. ``jax.image.scale_and_translate`` reads beyond the box and does not.
    """
    check.choice("method", method, METHODS)
    image = at_least_float32(image)
    height, width, _ = image.shape
    options = {"method": method, "antialias": antialias, "dtype": image.dtype.type, "xp": jnp}
    rows = resampling_matrix(box.top, box.height, height, size, **options)
    columns = resampling_matrix(box.left, box.width, width, size, **options)
    # Planes [c, h, w] make both products plain matrix products. Full float32 on every device: 8 bits must survive.
    planes = jnp.moveaxis(image, -1, 0)
    planes = jnp.einsum("yh,chw->cyw", rows, planes, precision=jax.lax.Precision.HIGHEST)
    planes = jnp.einsum("cyw,xw->cyx", planes, columns, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(planes, 0, -1)


def flip_horizontal(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Mirror left and right.

    >>> import jax.numpy as jnp
    >>> flip_horizontal(jnp.array([[[1.0], [2.0]]]))[..., 0].tolist()
    [[2.0, 1.0]]
    """
    return image[:, ::-1]


def random_flip(key: Key, image: Float[Array, "h w c"], *, probability: Any = 0.5) -> Float[Array, "h w c"]:
    """Mirror left and right with a probability.

    >>> import jax, jax.numpy as jnp
    >>> random_flip(jax.random.key(0), jnp.array([[[1.0], [2.0]]]), probability=1.0)[..., 0].tolist()
    [[2.0, 1.0]]
    """
    return jnp.where(jax.random.bernoulli(key, probability), flip_horizontal(image), image)
