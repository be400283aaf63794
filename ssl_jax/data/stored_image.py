"""An image of a source as a file: as it is stored, or encoded from its pixels."""

import dataclasses
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.augment.host import host_resize
from ssl_jax.core import check
from ssl_jax.data.arrow import npy_bytes
from ssl_jax.data.decode import read_header
from ssl_jax.data.files import identify_bytes
from ssl_jax.data.sources import Source, Subset

EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "TIFF": "tif",
    "BMP": "bmp",
    "PPM": "ppm",
    "NumPy": "npy",
}
"""Ending of the name of a file of each format."""
CHECKS = ("decode", "header")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How images are written.

    Attributes:
      shorter_side: pixels of the shorter side of larger images, which are resized (bicubic, antialiased) and encoded again;
        ``None``: every image keeps its bytes.
      quality: of JPEG files that are encoded again, 1 to 100.
      verify: ``"decode"``: images that keep their bytes are decoded, so that damaged ones are found; ``"header"``: only their
        headers are read.

    Raises:
      ValueError: a value out of range.
    """

    shorter_side: int | None = None
    quality: int = 95
    verify: str = "decode"

    def __post_init__(self) -> None:
        side = self.shorter_side
        check.require(side is None or side >= 1, "shorter_side", side, "None or an integer of 1 or more")
        check.require(1 <= self.quality <= 100, "quality", self.quality, "an integer from 1 to 100")
        check.choice("verify", self.verify, CHECKS)


class StoredImage(NamedTuple):
    """An image as a file.

    Attributes:
      content: the file.
      extension: ending of its name, one of :data:`EXTENSIONS`.
    """

    content: bytes
    extension: str


def read_stored(source: Source, index: int) -> bytes | None:
    """Read the file of an image as it is stored, also from a part of a source; ``None``: the source has pixels only.

    Raises:
      CorruptImage: the image cannot be read.

    >>> from ssl_jax.data.sources import ArraySource
    >>> read_stored(Subset(ArraySource(np.zeros([3, 2, 2], np.uint8)), [2, 0]), 1) is None
    True
    """
    inner: Source = source
    while isinstance(inner, Subset):
        index, inner = int(inner.indices[index]), inner.source
    read = getattr(inner, "read_encoded", None)
    return None if read is None else read(index)


def store_image(source: Source, index: int, encoding: Encoding) -> StoredImage:
    """Make the file of an image.

    An image that is not larger than ``encoding`` asks for keeps its bytes, so that what is read from them is what was read
    before. Others are decoded, resized and encoded: as JPEG where they were, otherwise without loss, as PNG or (floats, other
    numbers of channels, colors of 16 bits) as .npy.

    Args:
      source: the images.
      index: which of them.
      encoding: how it is written.

    Raises:
      CorruptImage: it cannot be read.

    >>> from ssl_jax.data.sources import ArraySource
    >>> source = ArraySource(np.zeros([1, 8, 4, 3], np.uint8))
    >>> stored = store_image(source, 0, Encoding(shorter_side=2))
    >>> stored.extension, Image.open(io.BytesIO(stored.content)).size
    ('png', (2, 4))
    """
    content = read_stored(source, index)
    kind = None if content is None else identify_bytes(content[:32])
    if content is not None and kind in EXTENSIONS and encoding.shorter_side is None:
        if encoding.verify == "decode":
            source[index]
        else:
            read_header(content, name=source.file_name(index))
        return StoredImage(content, EXTENSIONS[kind])
    image = source[index]["image"]
    height, width = image.shape[:2]
    shorter = min(height, width)
    side = encoding.shorter_side or shorter
    if shorter > side:
        sizes = (max(round(length * side / shorter), 1) for length in (height, width))
        image = host_resize(image, *sizes)
        image = np.clip(image, 0, 1) if image.dtype == np.float32 else image
    elif content is not None and kind in EXTENSIONS:
        return StoredImage(content, EXTENSIONS[kind])
    return encode_pixels(image, quality=encoding.quality if kind == "JPEG" else None)


def encode_pixels(image: np.ndarray, *, quality: int | None = None) -> StoredImage:
    """Encode an image: as JPEG where it may lose, else as PNG where that can hold it, else as .npy.

    Args:
      image: ``[h, w, c]``, uint8, uint16 or float32.
      quality: of JPEG, for uint8 with 1 or 3 channels; ``None``: without loss.

    >>> encode_pixels(np.zeros([4, 4, 1], np.uint16)).extension, encode_pixels(np.zeros([4, 4, 3], np.uint16)).extension
    ('png', 'npy')
    """
    channels = image.shape[2]
    small = image.dtype == np.uint8 and channels in (1, 3)
    if not small and not (image.dtype == np.uint16 and channels == 1):
        return StoredImage(npy_bytes(image, image.dtype), "npy")
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if channels == 1 else image))
    file = io.BytesIO()
    if small and quality is not None:
        picture.save(file, "JPEG", quality=quality)
        return StoredImage(file.getvalue(), "jpg")
    picture.save(file, "PNG")
    return StoredImage(file.getvalue(), "png")
