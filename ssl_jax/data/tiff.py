"""TIFF files that Pillow cannot open: any number of channels, integers of 8 to 32 bits, floats of 16 to 64.

The first image of a classic TIFF file, in strips or tiles, chunky or planar, not compressed or deflated.
"""

import struct
import zlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_TYPES = {1: "B", 3: "H", 4: "I"}
_KINDS = {1: "u", 2: "i", 3: "f"}
_CODES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
MARGIN = 2048
"""Pixels by which a tile may stand over the edges of its image."""
_MAX_VALUES = 1 << 22  # a longer table of strips than that is damage, not an image


class Layout(NamedTuple):
    """Where the pixels of a TIFF image are.

    Attributes:
      shape: ``(h, w, c)``.
      dtype: dtype of the file, with its byte order.
      block: ``(height, width)`` of a strip or tile.
      offsets, counts: position and length of each block in the file, in bytes.
      planar: each channel has its own blocks.
      tiled: blocks at the edge are whole.
      compression, predictor, orientation: as in the file.
      plain: the samples are channels as they are: no palette, no colour model, no alpha.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    block: tuple[int, int]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    planar: bool
    tiled: bool
    compression: int
    predictor: int
    orientation: int
    plain: bool


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    # A count that lies must not reserve memory before the end of the file is met.
    data = file.read(min(count, 1 << 20))
    while data and len(data) < count:
        more = file.read(min(count - len(data), len(data)))
        if not more:
            break
        data += more
    if len(data) < count:
        raise ValueError("truncated TIFF file")
    return data


def _tags(file: BinaryIO) -> tuple[str, dict[int, tuple[int, ...]]]:
    magic = _read(file, 0, 8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(magic[:4])
    if order is None:
        raise ValueError("not a classic TIFF file")
    (start,) = struct.unpack(f"{order}I", magic[4:])
    (entries,) = struct.unpack(f"{order}H", _read(file, start, 2))
    table = _read(file, start + 2, 12 * entries)
    tags: dict[int, tuple[int, ...]] = {}
    for tag, kind, count, value in struct.iter_unpack(f"{order}HHI4s", table):
        if kind not in _TYPES or count > _MAX_VALUES:
            continue
        form = f"{order}{count}{_TYPES[kind]}"
        size = struct.calcsize(form)
        data = value[:size] if size <= 4 else _read(file, struct.unpack(f"{order}I", value)[0], size)
        tags[tag] = struct.unpack(form, data)
    return order, tags


def require_block(height: int, width: int, rows: int, columns: int) -> None:
    """Refuse blocks far larger than their image: a small file may inflate to any size in one.

    >>> require_block(40, 50, 256, 256)
    >>> require_block(40, 50, 100_000, 256)
    Traceback (most recent call last):
    ...
    ValueError: TIFF block of 100000 x 256 pixels in an image of 40 x 50
    """
    if rows > height + MARGIN or columns > width + MARGIN:
        raise ValueError(f"TIFF block of {rows} x {columns} pixels in an image of {height} x {width}")


def read_layout(file: BinaryIO) -> Layout:
    """Read the header of a TIFF file.

    Raises:
      ValueError: damaged, or of a form that is not read here; says which.
    """
    order, tags = _tags(file)

    def first(tag: int, default: int) -> int:
        return tags.get(tag, (default,))[0]

    height, width, channels = first(257, 0), first(256, 0), first(277, 1)
    if min(height, width, channels) < 1:
        raise ValueError("TIFF image without pixels")
    bits, kind = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    code = f"{_KINDS.get(min(kind), '?')}{min(bits) // 8}"
    if len(bits) > 1 or len(kind) > 1 or min(bits) % 8 or code not in _CODES:
        raise ValueError(f"TIFF with {sorted(bits)} bits of sample format {sorted(kind)} is not supported")
    tiled = 324 in tags
    return Layout(
        shape=(height, width, channels),
        dtype=np.dtype(order + code),
        block=(first(323, 0), first(322, 0)) if tiled else (min(first(278, height), height), width),
        offsets=tags.get(324 if tiled else 273, ()),
        counts=tags.get(325 if tiled else 279, ()),
        planar=first(284, 1) == 2,
        tiled=tiled,
        compression=first(259, 1),
        predictor=first(317, 1),
        orientation=first(274, 1),
        plain=first(262, 1) == 1 and not {1, 2} & set(tags.get(338, ())),
    )


def why_unreadable(layout: Layout) -> str:
    """Say what of a layout is not supported by `read_pixels`; empty if nothing."""
    if layout.compression not in (1, 8, 32946):
        return f"TIFF compression {layout.compression} of channels is not supported: deflate it, or use .npy"
    if layout.predictor not in (1, 2) or (layout.predictor == 2 and layout.dtype.kind == "f"):
        return f"TIFF predictor {layout.predictor} of {layout.dtype} is not supported"
    return ""


def _block(file: BinaryIO, layout: Layout, index: int, shape: tuple[int, int, int]) -> np.ndarray:
    size = layout.dtype.itemsize * int(np.prod(shape))
    data = _read(file, layout.offsets[index], layout.counts[index])
    if layout.compression != 1:
        data = zlib.decompressobj().decompress(data, size)
    if len(data) < size:
        raise ValueError("truncated TIFF file")
    pixels = np.frombuffer(data[:size], layout.dtype).reshape(shape).astype(layout.dtype.newbyteorder("="))
    if (
        layout.compression != 1 and layout.predictor == 2
    ):  # differences along the row, modulo the type's range
        pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
    return pixels


def read_pixels(file: BinaryIO, layout: Layout) -> np.ndarray:
    """Read the pixels ``[h, w, c]`` that a header describes, in the byte order of the machine.

    Raises:
      ValueError, zlib.error: damaged, or of a form that is not read here.
    """
    if why_unreadable(layout):
        raise ValueError(why_unreadable(layout))
    height, width, channels = layout.shape
    rows, columns = layout.block
    if min(rows, columns) < 1:
        raise ValueError("TIFF block without pixels")
    require_block(height, width, rows, columns)
    down, across = -(-height // rows), -(-width // columns)
    planes, depth = (channels, 1) if layout.planar else (1, channels)
    if min(len(layout.offsets), len(layout.counts)) < planes * down * across:
        raise ValueError("TIFF file with missing blocks")
    image = np.empty(layout.shape, layout.dtype.newbyteorder("="))
    for index, (plane, i, j) in enumerate(np.ndindex(planes, down, across)):
        top, left = i * rows, j * columns
        high, wide = min(rows, height - top), min(columns, width - left)
        stored = (rows, columns, depth) if layout.tiled else (high, wide, depth)
        pixels = _block(file, layout, index, stored)
        image[top : top + high, left : left + wide, plane : plane + depth] = pixels[:high, :wide]
    return image
