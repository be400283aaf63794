"""Images in .npy files; nothing is ever unpickled."""

import os
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

TYPES = "uint8, uint16, bool, or floats in [0, 1]"
"""What is read where no range of the values is given."""
MAGIC = b"\x93NUMPY"
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpyHeader(NamedTuple):
    """What the head of a .npy file says.

    Attributes:
      shape: ``(h, w, c)``; an array of two axes has one channel.
      dtype: as stored.
      stored: the shape as stored.
      fortran: the order of the axes in the file.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    stored: tuple[int, ...]
    fortran: bool


def channels_first(shape: Sequence[int]) -> bool:
    """Tell whether an image of three axes looks like ``[c, h, w]``.

    >>> channels_first((3, 32, 32)), channels_first((32, 32, 3)), channels_first((4, 4, 13))
    (True, False, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) > 4


def read_header(file: BinaryIO) -> NpyHeader:
    """Read the head of a .npy file; the file is left where the numbers begin.

    Raises:
      ValueError: damaged, or an array that is no image.
    """
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f".npy format {version} is not supported")
    stored, fortran, dtype = _READERS[version](file)
    if dtype.hasobject or dtype.kind not in "fbiu":
        raise ValueError(f".npy of dtype {dtype}: allowed are {TYPES}")
    if len(stored) not in (2, 3) or (len(stored) == 3 and stored[2] < 1):
        raise ValueError(f".npy of shape {stored}: allowed are [h, w] and [h, w, c]")
    if channels_first(stored):
        raise ValueError(f".npy of shape {stored} has the channels first: allowed are [h, w] and [h, w, c]")
    height, width, channels = (*stored, 1)[:3]
    return NpyHeader((height, width, channels), dtype, stored, fortran)


def read_pixels(file: BinaryIO) -> np.ndarray:
    """Read a .npy file as ``[h, w, c]``: integers as they are, bool as uint8 of 0 and 255, floats as float32.

    Raises:
      ValueError: damaged, truncated, or an array that is no image.
    """
    header = read_header(file)
    begin = file.tell()
    size = header.dtype.itemsize * int(np.prod(header.stored, dtype=object))
    found = file.seek(0, os.SEEK_END) - begin
    if found < size:
        raise ValueError(f".npy file is truncated: {found} of {size} bytes")
    file.seek(begin)
    pixels = np.frombuffer(file.read(size), header.dtype)
    pixels = pixels.reshape(header.stored, order="F" if header.fortran else "C").reshape(header.shape)
    if header.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    if header.dtype.kind != "f":
        return pixels.astype(header.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):  # what is beyond float32 is infinite, which is refused
        return pixels.astype(np.float32)
