"""What the sources of encoded image files share: a look at a sample of headers, and what follows from it."""

import collections
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np

from ssl_jax.core import check
from ssl_jax.data.decode import Header, decode_reduced, read_header
from ssl_jax.data.sources import DTYPES, CorruptImage, Element, Source
from ssl_jax.data.values import AS_STORED, Values, describe_dark, describe_saturated

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".npy"),
    }
)
"""Files of a folder that are images (in any case)."""
SAMPLE = 256
"""How many headers a source looks at to infer its channels and depth."""
LOOKED_AT = 32
"""How many images are decoded to see which values they have, where their dtype does not say what is white."""
_MOST_VALUES = 10**8  # of all images that are looked at


def sample_indices(length: int, most: int = SAMPLE) -> list[int]:
    """Return up to ``most`` positions, evenly spread; all of them in a smaller source.

    >>> sample_indices(3), sample_indices(10**6)[:3], len(sample_indices(10**6))
    ([0, 1, 2], [0, 3922, 7843], 256)
    """
    count = min(length, most)
    return [round(i * (length - 1) / max(count - 1, 1)) for i in range(count)]


def sampled_headers(
    files: Iterable[tuple[str, Any]], *, values: Values = AS_STORED
) -> tuple[list[Header], list[CorruptImage]]:
    """Read the headers of files; return those that have one, and what was wrong with the others.

    Args:
      files: pairs of a name and a path, bytes, or a `CorruptImage` that stands for a record without an image.
      values: how values are read.
    """
    headers: list[Header] = []
    damaged: list[CorruptImage] = []
    for name, content in files:
        try:
            if isinstance(content, CorruptImage):
                raise content
            if isinstance(content, bytes):
                headers.append(read_header(content, name=name, values=values))
            else:
                with open_file(content, name=name) as file:
                    headers.append(read_header(file, name=name, values=values))
        except CorruptImage as error:
            damaged.append(error)
    return headers, damaged


def describe_unreadable(damaged: Sequence[CorruptImage], looked_at: int) -> list[str]:
    """Say how many of a sample cannot be read, with an example; nothing where all can."""
    return (
        [f"{len(damaged)} of {looked_at} images looked at cannot be read, such as {damaged[0]}"]
        if damaged
        else []
    )


def infer_format(
    headers: list[Header],
    *,
    channels: int | None,
    dtype: str | None,
    where: str,
    values: Values = AS_STORED,
) -> tuple[int, str]:
    """Infer channels and dtype of a source from a sample of its headers, where the user does not give them.

    All gray -> 1; gray and colour -> 3; all of N channels -> N. All 16 bit -> uint16; all floats, or ``values`` that are
    scaled -> float32; else uint8.

    Raises:
      ValueError: N-channel images among others; no image can be read with the given channels.

    >>> gray, colour = Header((8, 8, 1), "uint16"), Header((8, 8, 3), "uint8")
    >>> infer_format([gray], channels=None, dtype=None, where="folder")
    (1, 'uint16')
    >>> infer_format([gray, colour], channels=None, dtype=None, where="folder")
    (3, 'uint8')
    """
    counts = sorted({header.shape[2] for header in headers})
    types = {header.dtype for header in headers}
    if channels is None:
        if len(counts) > 1 and not set(counts) <= {1, 3}:
            raise ValueError(
                f"{where} mixes images of {counts} channels: keep one kind, or give channels=N "
                "(the others then count as corrupt)"
            )
        channels = counts[-1]
    check.require(channels >= 1, "channels", channels, "an integer of 1 or more")
    if not any(_converts(count, channels) for count in counts):
        found = " or ".join(map(str, counts))
        raise ValueError(
            f"channels={channels}: the images of {where} have {found}, which is not converted to {channels}"
        )
    if dtype is None:
        dtype = "float32" if values.scaled else types.pop() if len(types) == 1 else "uint8"
    return channels, check.choice("dtype", dtype, DTYPES)


def _converts(stored: int, channels: int) -> bool:
    return stored == channels or {stored, channels} == {1, 3}


def notes_on_values(
    source: Source, headers: list[Header], values: Values, damaged: Sequence[CorruptImage] = ()
) -> tuple[str, ...]:
    """Say what is odd about the range of the values of a source, by a look at up to `LOOKED_AT` of its images.

    Images of 8 bits are not looked at unless they are scaled.

    Args:
      source: source that is about to be opened: ``name``, ``dtype``, length and elements are there.
      headers: headers of a sample.
      values: how values are read.
      damaged: files of the sample without a header, which were said already.

    Returns:
      A sentence where depths or channels differ, where some images cannot be read, where the largest value is far below the
      top of the dtype, and where most values are cut off at the top.

    Raises:
      ValueError: none of the images that were looked at can be read.
    """
    counts = collections.Counter(header.dtype for header in headers)
    notes = []
    if len(counts) > 1:
        found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        notes.append(f"images of several depths, {found} of those looked at: all are read as {source.dtype}")
    others = [header.shape[2] for header in headers if not _converts(header.shape[2], source.channels)]
    if others:
        notes.append(
            f"{len(others)} of {len(headers)} images looked at have {others[0]} channels instead of {source.channels}: "
            "these count as corrupt"
        )
    if set(counts) == {"uint8"} and not values.scaled:
        return tuple(notes)
    largest, full, looked_at, seen = 0.0, 0, 0, 0
    wrong: list[CorruptImage] = []
    for index in sample_indices(len(source), LOOKED_AT):
        try:
            image = source[index]["image"]
        except CorruptImage as error:
            wrong.append(error)
            continue
        largest, looked_at, seen = max(largest, float(image.max())), looked_at + 1, seen + image.size
        full += int((image == (1 if source.dtype == "float32" else np.iinfo(source.dtype).max)).sum())
        if seen > _MOST_VALUES:
            break
    if not looked_at:
        raise ValueError(f"{source.name}: none of the {len(wrong)} images looked at can be read: {wrong[0]}")
    if not (damaged or others):
        notes += describe_unreadable(wrong, len(wrong) + looked_at)
    dark = describe_dark(largest, source.dtype, looked_at, values)
    saturated = describe_saturated(full / seen, looked_at, values)
    return (*notes, *(note for note in (dark, saturated) if note is not None))


def require_promised_shape(image: np.ndarray, shape: tuple[int, int, int] | None, *, name: str) -> np.ndarray:
    """Return the image, or a `CorruptImage` where the source says that all have another shape."""
    if shape is not None and image.shape != shape:
        raise CorruptImage(name, f"shape {image.shape} where all others have {shape}")
    return image


def decode_element(
    file: BinaryIO | bytes, *, name: str, source: Any, label: int, most: Callable[[int, int], float]
) -> Element:
    """Decode an element for crops, at a part of its size where that is enough, see `ssl_jax.data.decode.decode_reduced`.

    Args:
      file: open for reading at its start, or the bytes themselves.
      name: for the error.
      source: has ``channels``, ``dtype``, ``values`` and ``shape``.
      label: of the element.
      most: given the height and width of the whole image, by how much it may be reduced at most.

    Returns:
      ``image``, ``label``, ``size`` and ``factor``.

    Raises:
      CorruptImage: it cannot be read, or has another size than the source says.
    """
    image, size, factor = decode_reduced(
        file, name=name, channels=source.channels, dtype=source.dtype, values=source.values, most=most
    )
    if source.shape is not None and (*size, image.shape[2]) != source.shape:
        raise CorruptImage(name, f"shape {(*size, image.shape[2])} where all others have {source.shape}")
    return {"image": image, "label": label, "size": size, "factor": factor}


def open_file(path: str | os.PathLike[str], *, name: str) -> BinaryIO:
    """Open a file; one that cannot be opened, or is a pipe or a device, of which a read may never end, is a `CorruptImage`."""
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        raise CorruptImage(name, f"cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise CorruptImage(name, "not a regular file")
    return file


def _open_without_waiting(path: str, mode: int) -> int:
    return os.open(path, mode | getattr(os, "O_NONBLOCK", 0))


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\x93NUMPY", "NumPy"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)


UNREAD_FORMATS = frozenset({"HEIC", "AVIF", "JPEG XL", "JPEG 2000"})
"""Formats that are recognised, but not read."""


def identify_file(path: str | os.PathLike[str]) -> str | None:
    """Say by its first bytes which format of images a file has, whatever its name; None: none that is known."""
    try:
        with open_file(path, name="") as file:
            return identify_bytes(file.read(32))
    except (CorruptImage, OSError):
        return None


def identify_bytes(head: bytes) -> str | None:
    """Say of the first 32 bytes of a file which format of images they begin; None: none that is known.

    >>> identify_bytes(b"\\xff\\xd8\\xff\\xe0"), identify_bytes(b"a text")
    ('JPEG', None)
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], head[16:20], head[20:24]}
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIC" if brands & _HEIC else None
    return (
        "PPM"
        if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b"\n\r" and len(head) > 2
        else None
    )


_HEIC = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}


def printable(name: str) -> str:
    """Escape what moves the cursor or is no text in a file's name, so that it may be shown and written as UTF-8.

    >>> printable("a\\x1b[2Jb.png"), printable("caf\u00e9.png")
    ('a\\\\x1b[2Jb.png', 'café.png')
    """
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def counted(count: int, noun: str) -> str:
    """Say how many there are of something.

    >>> counted(1, "class"), counted(3, "class"), counted(2, "broken link")
    ('1 class', '3 classes', '2 broken links')
    """
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"
