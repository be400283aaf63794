"""Images that a user hands over as an array: their axes, dtype and range, checked before any of them is trained on."""

import math
from typing import Any

import numpy as np

from ssl_jax.core import check
from ssl_jax.data.values import (
    AS_STORED,
    Values,
    describe_dark,
    describe_saturated,
    require_range,
    suggest_top,
)

AXES = ("nhwc", "nhw", "nchw", "hwc", "hw", "chw")
"""Layouts of an array of images: n images, h rows, w columns, c channels."""
LOOKED_AT = 64
"""Images whose values are looked at, at even distances."""
_COLOURS = (1, 3, 4)


def read_images(
    images: Any, *, axes: str | None = None, values: Values = AS_STORED, labeled: bool = False
) -> np.ndarray:
    """Return images as ``[n, h, w, c]`` of uint8, uint16 or float32, or of any type where they will be scaled.

    Args:
      images: an array, or what numpy makes one of: lists, arrays of JAX, tensors.
      axes: layout, of `AXES`. None: ``nhwc`` or ``nhw`` by the rank, and an array that looks like another is refused.
      values: how the values will be scaled.
      labeled: whether there is a label for each of the first axis, which is then that of the images.

    Raises:
      ValueError: no array of images, or values of which it is not known which is white; says what to do.

    >>> read_images(np.zeros([2, 3, 32, 32], np.uint8), axes="nchw").shape
    (2, 32, 32, 3)
    >>> read_images(np.zeros([2, 3, 32, 32], np.uint8))
    Traceback (most recent call last):
    ...
    ValueError: images.shape=(2, 3, 32, 32): channels seem to come first: give axes='nchw', or axes='nhwc' if they come last
    """
    array = _to_array(images)
    if array.ndim in (3, 4):
        check.require(min(array.shape) > 0, "images.shape", array.shape, "at least one image and one pixel")
    array = _to_dtype(array, values)
    array = _to_nhwc(array, axes, labeled)
    check.require(min(array.shape) > 0, "images.shape", array.shape, "at least one image and one pixel")
    return array


def notes_on_array(images: np.ndarray, values: Values, *, axes: str | None = None) -> tuple[str, ...]:
    """Look at the values of a sample of an array ``[n, h, w, c]``; say what is odd about their range.

    Args:
      images: from `read_images`.
      values: how they will be scaled.
      axes: layout that was given, None where it was guessed.

    Raises:
      ValueError: NaN, infinite values, floats outside of [0, 1] that are not scaled, or values below 0 that are to be divided.

    >>> notes_on_array(np.full([2, 4, 4, 1], 255.0), AS_STORED)
    Traceback (most recent call last):
    ...
    ValueError: images: floats from 255 to 255: allowed are 0 to 1; max_value=255 scales them (--config.data.max_value)
    """
    count = len(images)
    sample = [np.asarray(images[i]) for i in _evenly(count, LOOKED_AT)]
    kind = images.dtype.kind
    if kind == "f":
        bad = sum(not np.isfinite(image).all() for image in sample)
        if bad:
            raise ValueError(
                f"images: {bad} of {len(sample)} looked at hold NaN or infinite values: allowed are numbers"
            )
    low, high = (float(f([f(image) for image in sample])) for f in (np.min, np.max))
    dtype = "float32" if kind == "f" or values.scaled else images.dtype.name
    try:
        if not values.scaled:
            require_range(np.array([low, high], np.float64 if kind == "f" else np.int64))
            largest, full = high, 0.0
        else:
            values.scale(np.array([low, high], images.dtype))
            scaled = [values.scale(image) for image in sample]
            largest = max(float(image.max()) for image in scaled)
            full = float(np.mean([(image == 1).mean() for image in scaled]))
    except ValueError as error:
        raise ValueError(f"images: {error}") from error
    found = describe_dark(largest, dtype, len(sample), values), describe_saturated(full, len(sample), values)
    notes = [note for note in found if note is not None]
    if axes is None and count in (3, 4) and images.shape[3] == 1 and min(images.shape[1:3]) >= 8:
        notes.append(
            f"{count} gray images of {images.shape[1]} x {images.shape[2]} pixels; if this is one image of {count} channels, "
            "give axes='chw'"
        )
    return tuple(notes)


def _to_array(images: Any) -> np.ndarray:
    allowed = "an array [n, h, w, c] or [n, h, w] of numbers"
    if isinstance(images, np.ma.MaskedArray):
        raise ValueError(f"images are a masked array: allowed is {allowed}; images.filled(0) makes one")
    try:
        array = np.asarray(images)
    except Exception as error:  # of lists of images of many sizes, and of other libraries' arrays
        raise ValueError(
            _no_array(images, f"allowed is {allowed} ({' '.join(str(error).split())})")
        ) from error
    if array.dtype.kind in "US":
        raise ValueError(
            f"images are texts: allowed is {allowed}; files are opened by open_source('folder:...')"
        )
    if array.dtype.kind == "O":
        raise ValueError(_no_array(images, f"allowed is {allowed}"))
    return array


def _no_array(images: Any, allowed: str) -> str:
    """Name the shapes of the images where these differ."""
    many = isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 1)
    shapes = list(dict.fromkeys(_shape(image) for image in images[:1000])) if many else []
    if len(shapes) > 1 and None not in shapes:
        some = ", ".join(map(str, shapes[:3]))
        return (
            f"images have several shapes, such as {some}: an array has one; make them of one size, or save them and open "
            "the folder"
        )
    return f"images are of type {type(images).__name__}: {allowed}"


def _shape(image: Any) -> tuple[int, ...] | None:
    try:
        return np.shape(image)
    except ValueError:
        return None


def _to_dtype(array: np.ndarray, values: Values) -> np.ndarray:
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    kind, native = array.dtype.kind, array.dtype.newbyteorder("=")
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind not in "iuf":
        raise ValueError(
            f"images.dtype={array.dtype.name!r}: allowed are uint8, uint16, bool, or floats in [0, 1]"
        )
    if values.scaled or native in (np.uint8, np.uint16):
        return array if array.dtype == native else array.astype(native)
    if kind == "f":
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and refused
            return array if array.dtype == np.float32 else array.astype(np.float32)
    sample = (
        [array[i] for i in _evenly(len(array), LOOKED_AT)]
        if array.ndim and array.size
        else [np.zeros(1, int)]
    )
    low, high = min(int(x.min()) for x in sample), max(int(x.max()) for x in sample)
    if low < 0:
        hint = "give percentiles=(1, 99), or bring them to floats in [0, 1]"
    elif high <= 255:
        hint = f"images.astype(np.uint8) fits, if 255 is white; else give max_value={max(high, 1)}"
    else:
        hint = f"give max_value={suggest_top(high)}, or what is white"
    raise ValueError(
        f"images.dtype={array.dtype.name!r} with values from {low} to {high}: allowed are uint8, uint16, bool, or floats in "
        f"[0, 1]; {hint}"
    )


def _to_nhwc(array: np.ndarray, axes: str | None, labeled: bool) -> np.ndarray:
    if axes is None:
        axes = _guess_axes(array.shape, labeled)
    check.choice("axes", axes, AXES)
    check.require(array.ndim == len(axes), "images.shape", array.shape, f"{len(axes)} axes for axes={axes!r}")
    missing = tuple(i for i, axis in enumerate("nhwc") if axis not in axes)
    order = [axes.index(axis) for axis in "nhwc" if axis in axes]
    return np.expand_dims(array.transpose(order), missing)


def _guess_axes(shape: tuple[int, ...], labeled: bool) -> str:
    if len(shape) == 4:
        first, high, wide = shape[1:]
        usual = first in _COLOURS and wide not in _COLOURS and (high == wide or min(high, wide) >= 8)
        if usual or (first < high == wide and wide > 32):
            raise ValueError(
                f"images.shape={shape}: channels seem to come first: give axes='nchw', or axes='nhwc' if they come last"
            )
        return "nhwc"
    if len(shape) == 3:
        if not labeled and shape[2] in _COLOURS and shape[2] < min(shape[:2]):
            raise ValueError(
                f"images.shape={shape}: this seems to be one image: give axes='hwc', or axes='nhw' if these are "
                f"{shape[0]} gray images of {shape[1]} x {shape[2]} pixels"
            )
        return "nhw"
    hint = "; of one gray image, give axes='hw'" if len(shape) == 2 else ""
    raise ValueError(f"images.shape={shape}: allowed is [n, h, w, c] or [n, h, w]{hint}")


def _evenly(count: int, most: int) -> list[int]:
    """Up to ``most`` positions at even distances, the first and the last among them."""
    number = min(count, most)
    return [math.floor(i * (count - 1) / max(number - 1, 1)) for i in range(number)]
