"""Images in whatever form somebody has them: paths, images of Pillow, arrays, one or many."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_jax.core import check
from ssl_jax.core.commands import command
from ssl_jax.data import image_array, npy
from ssl_jax.data.decode import decode_as_stored, fit_channels
from ssl_jax.data.files import open_file, printable
from ssl_jax.data.listing import list_files
from ssl_jax.data.sources import CorruptImage, Source
from ssl_jax.data.values import AS_STORED, Values, require_range

FORMS = (
    "paths, folders, images of Pillow, encoded bytes, open files, arrays [h, w], [h, w, c] or [n, h, w, c], a source of "
    "ssl_jax.data, or an iterable of single images"
)
_COLOURS = (1, 2, 3, 4)


def read_given(
    images: Any, *, channels: int, values: Values = AS_STORED, axes: str | None = None
) -> Iterator[np.ndarray]:
    """Read images one after the other, each when it is asked for.

    What becomes of palettes, transparency, EXIF orientation, depths and numbers of channels is what ``decode.py`` says of
    files; an array of 2 or 4 channels has its opacity last where 1 or 3 are asked for.

    Args:
      images: a path, a folder (its image files in the order of their names), an image of Pillow, the bytes of a file, a file
        opened in mode ``rb``, an array, a :class:`ssl_jax.data.sources.Source`, or an iterable of such single images, a
        generator too. An array of three axes is one image where the last has 1 to 4 values or ``channels``, else gray images
        ``[n, h, w]``.
      channels: channels of the results.
      values: how values are read, and how large an image may be.
      axes: layout of an array, one of :data:`ssl_jax.data.image_array.AXES`; ``None``: as above.

    Yields:
      ``[h, w, channels]``, uint8, uint16 or float32 in [0, 1], as the image has it.

    Raises:
      ValueError: a form that is none of these, values of which it is not known which is white, or an image that cannot be
        read: names it.

    >>> [image.shape for image in read_given([np.zeros((4, 5)), Image.new("RGB", (2, 3))], channels=3)]
    [(4, 5, 3), (3, 2, 3)]
    """
    try:
        yield from _read(images, channels, values, axes)
    except CorruptImage as error:
        raise ValueError(str(error)) from error


def _read(images: Any, channels: int, values: Values, axes: str | None) -> Iterator[np.ndarray]:
    if isinstance(images, str | os.PathLike):
        yield from _read_path(Path(images).expanduser(), channels, values)
    elif isinstance(images, bytes | bytearray | Image.Image) or hasattr(images, "read"):
        yield _read_encoded(images, "images", channels, values)
    elif not isinstance(images, np.ndarray) and isinstance(images, Source):
        yield from (fit_channels(images[i]["image"], channels) for i in range(len(images)))
    elif (
        isinstance(images, np.ndarray) and images.dtype.kind in "OUS"
    ):  # of paths, or of images of many sizes
        yield from _read(images.tolist(), channels, values, axes)
    elif hasattr(images, "__array__") or _is_nested_numbers(images):
        yield from _read_array(images, "images", channels, values, axes)
    elif isinstance(images, Iterable):
        for number, image in enumerate(images):
            found = list(_read_one(image, f"images[{number}]", channels, values, axes))
            check.require(len(found) == 1, f"images[{number}]", f"{len(found)} images", "one image")
            yield from found
    else:
        raise ValueError(f"images are of type {type(images).__name__}: allowed are {FORMS}")


def _read_one(image: Any, name: str, channels: int, values: Values, axes: str | None) -> Iterator[np.ndarray]:
    """Read an element of an iterable: a file or an array of one image."""
    if isinstance(image, str | os.PathLike):
        path = Path(image).expanduser()
        check.require(not path.is_dir(), name, str(image), "a file, not a folder")
        return _read_path(path, channels, values)
    if isinstance(image, bytes | bytearray | Image.Image) or hasattr(image, "read"):
        return iter([_read_encoded(image, name, channels, values)])
    if hasattr(image, "__array__") or _is_nested_numbers(image):
        return _read_array(image, name, channels, values, axes)
    raise ValueError(f"{name} is of type {type(image).__name__}: allowed are {FORMS}")


def _read_path(path: Path, channels: int, values: Values) -> Iterator[np.ndarray]:
    names = [""]
    if path.is_dir():
        names = list_files(path).names
        if not names:
            raise ValueError(f"{printable(str(path))}: there is no image in this folder")
    for name in names:
        shown = printable(str(path / name))
        try:
            with open_file(path / name, name=shown) as file:
                image = decode_as_stored(file, name=shown, channels=channels, values=values)
        except CorruptImage as error:
            if not name:
                raise
            raise ValueError(
                f"{error}; give a list of the paths that can be read, or use {command('embed')}, which leaves the others out"
            ) from error
        yield image


def _read_encoded(image: Any, name: str, channels: int, values: Values) -> np.ndarray:
    content = image.read() if hasattr(image, "read") else image
    content = bytes(content) if isinstance(content, bytearray) else content
    if not isinstance(content, bytes | Image.Image):
        raise ValueError(f"{name} gives {type(content).__name__} when it is read: open the file in mode 'rb'")
    return decode_as_stored(content, name=name, channels=channels, values=values)


def _is_nested_numbers(images: Any) -> bool:
    """Tell whether something is an image written as lists of numbers: two lists deep or more."""
    if not isinstance(images, list | tuple) or not images or not isinstance(images[0], list | tuple):
        return False
    inner = images[0]
    while isinstance(inner, list | tuple) and inner:
        inner = inner[0]
    return isinstance(inner, int | float | np.number)


def _read_array(
    images: Any, name: str, channels: int, values: Values, axes: str | None
) -> Iterator[np.ndarray]:
    try:
        # Tensors of torch know best how to leave their device and graph.
        given = images.detach().cpu() if hasattr(images, "detach") else images
        array = given if isinstance(given, np.ndarray) else np.asarray(given)
        if array.dtype.kind == "O" or array.dtype.kind in "US":
            raise ValueError(f"an array of {array.dtype} is no image: allowed are {FORMS}")
        array = image_array.read_images(array, axes=axes or _guess_axes(array.shape, channels), values=values)
        for image in array:
            scaled = values.scale(image) if values.scaled else image
            require_range(scaled)
            yield fit_channels(scaled, channels)
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith(name) else f"{name}: {said}") from error


def _guess_axes(shape: tuple[int, ...], channels: int) -> str | None:
    """Name the axes of an array by its shape; ``None``: :func:`ssl_jax.data.image_array.read_images` does, or refuses.

    >>> _guess_axes((32, 32), 3), _guess_axes((32, 32, 3), 3), _guess_axes((9, 32, 32), 3)
    ('hw', 'hwc', 'nhw')
    """
    if len(shape) == 2:
        return "hw"
    if len(shape) != 3:
        return None
    if shape[2] in (*_COLOURS, channels):
        return "hwc"
    check.require(
        not npy.channels_first(shape) and not (shape[0] == channels > 4),
        "images.shape",
        shape,
        "[h, w, c] or [n, h, w]; channels seem to come first: give axes='chw', or axes='nhw' for gray images",
    )
    return "nhw"
