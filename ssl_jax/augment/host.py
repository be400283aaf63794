"""Crops on the host, in numpy and PIL: for images that vary in size, or are decoded there anyway."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from ssl_jax.augment.crop import INTERPOLATIONS, Box, box_corners, resampling_weights
from ssl_jax.augment.views import View, groups
from ssl_jax.core import check

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LONG = 4
"""Longer over shorter side above which an image is cut to what its centre shows before it is resized."""


def _restore(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Convert back to the dtype of the pixels: integers rounded and clipped; floats as float32, overshoot kept."""
    if np.issubdtype(dtype, np.integer):
        return np.clip(np.rint(x), 0, np.iinfo(dtype).max).astype(dtype)
    return x.astype(np.float32)


class _Span(NamedTuple):
    """Pixels ``start .. stop`` of a line, and in their coordinates the part ``low .. high`` that some outputs show."""

    start: int
    stop: int
    low: float
    high: float


def _span(length: int, resized: int, first: int, size: int) -> _Span:
    """Find the pixels that ``size`` outputs from ``first`` on read, of a line that is resized to ``resized`` pixels."""
    scale = length / resized
    low, high = first * scale, (first + size) * scale
    reach = 2 * max(scale, 1.0) + 1
    start, stop = max(math.floor(low - reach), 0), min(math.ceil(high + reach), length)
    return _Span(start, stop, low - start, min(high, length) - start)


def _matrix(span: _Span, size: int, interpolation: str) -> np.ndarray:
    """Make the matrix ``[size, stop - start]`` that resamples the part of a line, antialiased."""
    scale = np.float32((span.high - span.low) / size)
    center = (np.arange(size, dtype=np.float32)[:, None] + np.float32(0.5)) * scale + np.float32(span.low)
    length = span.stop - span.start
    position = np.arange(length, dtype=np.float32)[None]
    return resampling_weights(
        center, position, length, scale, interpolation=interpolation, antialias=True, xp=np
    )


def _resample(
    image: np.ndarray, rows: _Span, columns: _Span, height: int, width: int, interpolation: str
) -> np.ndarray:
    """Resize a part of an image to ``height`` x ``width``; the pixels around it that the filter reaches take part."""
    image = image[rows.start : rows.stop, columns.start : columns.stop]
    channels = image.shape[2]
    if image.dtype == np.uint8 and channels in (1, 3):
        pixels = np.ascontiguousarray(image[..., 0] if channels == 1 else image)
        box = (columns.low, rows.low, columns.high, rows.high)
        resized = np.asarray(Image.fromarray(pixels).resize((width, height), RESAMPLING[interpolation], box))
        return resized.reshape(height, width, channels)
    down, across = _matrix(rows, height, interpolation), _matrix(columns, width, interpolation)
    planes = down @ np.moveaxis(image.astype(np.float32), -1, 0) @ across.T
    return _restore(np.moveaxis(planes, 0, -1), image.dtype)


def host_resize(
    image: Shaped[np.ndarray, "h w c"], height: int, width: int, *, interpolation: str = "bicubic"
) -> Shaped[np.ndarray, "{height} {width} c"]:
    """Resize an image, antialiased, whatever becomes of the ratio of its sides; dtypes as in `host_crop`.

    Raises:
      ValueError: unknown interpolation.

    Example:
      >>> import numpy as np
      >>> host_resize(np.full((4, 6, 1), 7, np.uint8), 2, 2)[..., 0].tolist()
      [[7, 7], [7, 7]]
    """
    check.choice("interpolation", interpolation, INTERPOLATIONS)
    if image.shape[:2] == (height, width):
        return _restore(image, image.dtype)
    rows, columns = (_Span(0, length, 0.0, length) for length in image.shape[:2])
    return _resample(image, rows, columns, height, width, interpolation)


def host_crop(
    image: Shaped[np.ndarray, "h w c"], box: Box, *, size: int, interpolation: str = "bilinear"
) -> Shaped[np.ndarray, "{size} {size} c"]:
    """Crop a box and resize it to ``size`` x ``size`` pixels: the host's `crop_resize`, antialiased.

    Args:
      image: ``[h, w, c]``, any number of channels; uint8, uint16 or float in [0, 1]. uint8 with 1 or 3 channels goes
        through PIL, the rest through the same matrices as on the device.
      box: top, left, height, width in pixels.
      size: side of the output in pixels.
      interpolation: ``bilinear`` or ``bicubic``.

    Returns:
      ``[size, size, c]``. Integers keep their dtype, rounded and clipped; floats become float32 and keep the
      overshoot of bicubic. uint8 is within one level of `crop_resize` clipped to [0, 1]; with bicubic up
      to 1 % of the pixels, at hard edges, differ by up to 8 levels, because PIL clips between its two passes.

    Raises:
      ValueError: unknown interpolation.

    Example:
      >>> import numpy as np
      >>> host_crop(np.arange(16, dtype=np.uint8).reshape(4, 4, 1), Box(1, 1, 2, 2), size=2)[..., 0].tolist()
      [[5, 6], [9, 10]]
    """
    check.choice("interpolation", interpolation, INTERPOLATIONS)
    top, left, height, width = (int(n) for n in box)
    return host_resize(
        image[top : top + height, left : left + width], size, size, interpolation=interpolation
    )


def center_crop_resize(
    image: Shaped[np.ndarray, "h w c"], size: int, *, ratio: float = 1.0, interpolation: str = "bicubic"
) -> Shaped[np.ndarray, "{size} {size} c"]:
    """Crop for evaluation: shorter side to ``round(size / ratio)``, then the centre ``size`` x ``size`` pixels.

    Args:
      image: ``[h, w, c]``; uint8, uint16 or float in [0, 1].
      size: side of the output in pixels.
      ratio: share of the shorter side that the crop keeps, in (0, 1]; 224 / 256 = 0.875 is the custom at 224
        pixels.
      interpolation: ``bilinear`` or ``bicubic``.

    Returns:
      ``[size, size, c]``, dtypes as in `host_crop`. An image that has this size already comes back as it is. Memory and time
      are bounded by the pixels of the image and of the output, whatever the ratio of the sides.

    Raises:
      ValueError: unknown interpolation, or a ratio outside (0, 1].

    Example:
      >>> import numpy as np
      >>> center_crop_resize(np.zeros((40, 60, 3), np.uint8), 32, ratio=0.875).shape
      (32, 32, 3)
    """
    check.choice("interpolation", interpolation, INTERPOLATIONS)
    check.require(0 < ratio <= 1, "ratio", ratio, "above 0 and at most 1")
    height, width = image.shape[:2]
    shorter = round(size / ratio)
    longer = int(shorter * max(height, width) / min(height, width))
    resized = (shorter, longer) if height <= width else (longer, shorter)
    top, left = (round((n - size) / 2) for n in resized)
    if max(height, width) > LONG * min(height, width):
        # Resized as a whole, 1 x 10,000 pixels would become 224 x 2,240,000.
        rows, columns = _span(height, resized[0], top, size), _span(width, resized[1], left, size)
        return _resample(image, rows, columns, size, size, interpolation)
    return host_resize(image, *resized, interpolation=interpolation)[top : top + size, left : left + size]


def prepare_for_evaluation(image: np.ndarray, size: int, ratio: float) -> np.ndarray:
    """Bring an image to the size at which encoders of this library are evaluated; one that has it stays as it is.

    Args:
      image: ``[h, w, c]``.
      size: side of the result in pixels.
      ratio: as of :func:`center_crop_resize`.

    >>> prepare_for_evaluation(np.zeros([4, 4, 1], np.uint8), 4, 0.5).shape
    (4, 4, 1)
    """
    if image.shape[:2] == (size, size):
        return image
    return center_crop_resize(image, size, ratio=ratio)


def host_crops(
    rng: np.random.Generator,
    image: Shaped[np.ndarray, "h w c"],
    views: tuple[View, ...],
    *,
    size: tuple[int, int] | None = None,
    factor: int = 1,
) -> tuple[Shaped[np.ndarray, "v s s c"], ...]:
    """Crop one image on the host: for images that vary in size, or to send less to the device.

    The boxes are those of `host_boxes` for the same generator.

    Args:
      rng: advanced by 40 numbers a view, whatever they turn out to be.
      image: ``[h, w, c]``; uint8, uint16 or float in [0, 1].
      views: views to crop; ``antialias`` is on whatever they say.
      size: height and width of the whole image, where ``image`` is smaller; ``None``: it is whole.
      factor: by how much it is smaller; its pixel ``i`` shows the pixels ``factor * i ...`` of the whole.

    Returns:
      ``[v, s, s, c]`` for each size, in the grouping of `ssl_jax.augment.views.groups`; the dtypes of `host_crop`.

    Example:
      >>> import numpy as np
      >>> image = np.zeros((8, 6, 3), np.uint8)
      >>> [x.shape for x in host_crops(np.random.default_rng(0), image, (View(size=4), View(size=2)))]
      [(1, 4, 4, 3), (1, 2, 2, 3)]
    """
    boxes = _sample_boxes(rng, size or image.shape[:2], views)
    crops = [
        host_crop(image, box, size=view.size, interpolation=view.crop.interpolation)
        if factor == 1
        else _crop_reduced(image, box, factor, view)
        for box, view in zip(boxes, views, strict=True)
    ]
    return tuple(np.stack([crops[i] for i in indices]) for indices in groups(views))


def _crop_reduced(image: np.ndarray, box: Box, factor: int, view: View) -> np.ndarray:
    """Crop a box of the whole image from a smaller one, in which its edges lie between pixels."""
    top, left, height, width = (int(n) / factor for n in box)
    spans = []
    for first, length, most in zip((top, left), (height, width), image.shape[:2], strict=True):
        start, stop = math.floor(first), min(math.ceil(first + length), most)
        spans.append(_Span(start, stop, first - start, min(first + length, stop) - start))
    rows, columns = spans
    return _resample(image, rows, columns, view.size, view.size, view.crop.interpolation)


def most_reduction(rng: np.random.Generator, size: tuple[int, int], views: tuple[View, ...]) -> float:
    """Return by how much an image may be reduced so that no crop of it has fewer pixels than its view.

    Args:
      rng: generator of the crops, as of `host_crops`.
      size: height and width of the image.
      views: views to crop.

    >>> from ssl_jax.augment.crop import RandomResizedCrop
    >>> whole = RandomResizedCrop(area=(1.0, 1.0), ratio=(1.0, 1.0))
    >>> most_reduction(np.random.default_rng(0), (64, 64), (View(size=16, crop=whole), View(size=8, crop=whole)))
    4.0
    """
    boxes = _sample_boxes(rng, size, views)
    return min(float(min(box.height, box.width)) / view.size for box, view in zip(boxes, views, strict=True))


def host_boxes(
    rng: np.random.Generator,
    image: Shaped[np.ndarray, "h w c"],
    views: tuple[View, ...],
    *,
    size: tuple[int, int] | None = None,
) -> Float[np.ndarray, "v 4"]:
    """Return top, left, bottom and right of the crops that `host_crops` makes of an image with the same generator.

    They are in pixels of the whole image, of ``size`` where ``image`` is smaller.

    >>> import numpy as np
    >>> from ssl_jax.augment.crop import RandomResizedCrop
    >>> view = View(size=4, crop=RandomResizedCrop(area=(1.0, 1.0)))
    >>> host_boxes(np.random.default_rng(0), np.zeros((8, 6, 3), np.uint8), (view,)).tolist()
    [[0.0, 0.0, 8.0, 6.0]]
    """
    boxes = _sample_boxes(rng, size or image.shape[:2], views)
    return np.array([box_corners(box) for box in boxes], np.float32)


def _sample_boxes(rng: np.random.Generator, size: tuple[int, ...], views: tuple[View, ...]) -> list[Box]:
    """Draw boxes with the distribution of those that a device draws: one implementation, ``view.crop.choose``."""
    uniforms = [rng.random(view.crop.draws, dtype=np.float32) for view in views]
    return [view.crop.choose(u, *size, xp=np) for view, u in zip(views, uniforms, strict=True)]
