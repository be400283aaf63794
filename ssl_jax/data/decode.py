"""From the bytes of an image file to an array; whatever is wrong with the bytes becomes a `CorruptImage`.

Rules, the same for every source of files:
  - the first frame of an animation, the first page of a TIFF, upright by its EXIF orientation;
  - palette, CMYK, YCbCr and LAB become RGB; transparent pixels are laid over white;
  - gray -> colour repeats, colour -> gray is the luma ``.299 R + .587 G + .114 B``, channels change in no
    other way;
  - 16 -> 8 bit is ``round(x / 257)``, 8 -> 16 bit ``257 x``, floats are in [0, 1]; with ``max_value`` or ``percentiles``
    (:class:`ssl_jax.data.values.Values`) the stored values, of any type, are scaled to [0, 1] instead;
  - 16 bit PNG and TIFF keep their 16 bits in colour too (Pillow alone halves them); 16 bit colour PPM does
    not.
"""

import io
import logging
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ssl_jax.core import check
from ssl_jax.data import npy, tiff
from ssl_jax.data.sources import DTYPES, CorruptImage
from ssl_jax.data.values import AS_STORED, Values, require_range

# Only these of Pillow's readers are tried, whatever a file is called: others start programs (EPS).
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM")
_PLUGINS = (  # an import registers the readers
    *(BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, PpmImagePlugin, TiffImagePlugin),
    WebPImagePlugin,
)
_GRAY = ("1", "L", "LA", "La", "I", "F")
_JPEG_MAGIC = b"\xff\xd8"
_TIFF_MAGIC = (b"II*\0", b"MM\0*")
_log = logging.getLogger(__name__)
_said: set[str] = set()


class Header(NamedTuple):
    """What a file says about its image, without a look at the pixels.

    Attributes:
      shape: ``(h, w, c)`` upright and as it is read, alpha not counted.
      dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``, without a look at ``max_value`` and ``percentiles``.
    """

    shape: tuple[int, int, int]
    dtype: str


def read_header(file: BinaryIO | bytes, *, name: str, values: Values = AS_STORED) -> Header:
    """Read the size, channels and depth of an image.

    Args:
      file: open for reading at its start, or the bytes themselves.
      name: for the error.
      values: how values are read, and how large an image may be.

    Raises:
      CorruptImage: the header cannot be read, or says that the image is too large.

    >>> png = io.BytesIO()
    >>> Image.new("P", (5, 4)).save(png, "PNG")
    >>> read_header(png.getvalue(), name="x.png")
    Header(shape=(4, 5, 3), dtype='uint8')
    """
    return _guarded(lambda opened: _header(opened, values), file, name)


def decode(
    file: BinaryIO | bytes, *, name: str, channels: int, dtype: str, values: Values = AS_STORED
) -> np.ndarray:
    """Read an image as ``[h, w, channels]`` of ``dtype``, by the rules at the head of this file.

    Args:
      file: open for reading at its start, or the bytes themselves.
      name: for the error.
      channels: 1 or more.
      dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``.
      values: how values are read, and how large an image may be.

    Raises:
      CorruptImage: truncated, not an image, too large to be one, or of another number of channels.

    >>> png = io.BytesIO()
    >>> Image.new("L", (5, 4), 7).save(png, "PNG")
    >>> image = decode(png.getvalue(), name="x.png", channels=3, dtype="uint16")
    >>> image.shape, image[0, 0]
    ((4, 5, 3), array([1799, 1799, 1799], dtype=uint16))
    >>> decode(png.getvalue()[:-30], name="x.png", channels=1, dtype="uint8")
    Traceback (most recent call last):
    ...
    ssl_jax.data.sources.CorruptImage: x.png: image file is truncated
    """
    check.choice("dtype", dtype, DTYPES)

    def read(opened: BinaryIO) -> np.ndarray:
        pixels = _pixels(opened, values)
        return _convert(values.scale(pixels) if values.scaled else pixels, channels, dtype)

    return _guarded(read, file, name)


class Reduced(NamedTuple):
    """An image that may have been decoded at a part of its size.

    Attributes:
      image: ``[ceil(h / factor), ceil(w / factor), c]``.
      size: ``(h, w)`` of the whole image, upright.
      factor: 1, 2, 4 or 8; pixel ``i`` of a line shows the pixels ``factor * i ... factor * (i + 1) - 1`` of the whole.
    """

    image: np.ndarray
    size: tuple[int, int]
    factor: int


def decode_reduced(
    file: BinaryIO | bytes,
    *,
    name: str,
    channels: int,
    dtype: str,
    values: Values = AS_STORED,
    most: Callable[[int, int], float],
) -> Reduced:
    """Read an image as :func:`decode` does, a JPEG at a half, a quarter or an eighth of its size where that is enough.

    The decoder then takes the inverse cosine transform of the low frequencies of each block only: what it gives is close to the
    mean of so many pixels. Images of other formats, of other dtypes than uint8, and with values that are scaled, are read
    whole; so is a JPEG whose orientation turns it and whose sides are no multiples of the factor.

    Args:
      file: open for reading at its start, or the bytes themselves.
      name: for the error.
      channels: 1 or more.
      dtype: as of :func:`decode`.
      values: how values are read, and how large an image may be.
      most: given the height and width of the whole image, by how much it may be reduced at most.

    Raises:
      CorruptImage: as :func:`decode`.

    >>> jpeg = io.BytesIO()
    >>> Image.new("RGB", (33, 20), (7, 7, 7)).save(jpeg, "JPEG")
    >>> options = {"name": "x.jpg", "channels": 3, "dtype": "uint8"}
    >>> found = decode_reduced(jpeg.getvalue(), most=lambda height, width: 2.5, **options)
    >>> found.image.shape, found.size, found.factor
    ((10, 17, 3), (20, 33), 2)
    """
    check.choice("dtype", dtype, DTYPES)

    def read(opened: BinaryIO) -> Reduced:
        plain = dtype == "uint8" and not values.scaled and _start(opened)[:2] == _JPEG_MAGIC
        image = _open(opened, values) if plain else None
        if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in ("L", "RGB"):
            opened.seek(0)
            pixels = _pixels(opened, values)
            pixels = values.scale(pixels) if values.scaled else pixels
            return Reduced(_convert(pixels, channels, dtype), pixels.shape[:2], 1)
        orientation, (width, height) = _orientation(Image.Image.getexif, image), image.size
        size = (width, height) if orientation >= 5 else (height, width)
        factor = _reduce(image, most(*size), turned=orientation != 1)
        pixels = _upright(_plain_pixels(image, values), orientation)
        return Reduced(_convert(pixels, channels, dtype), size, factor)

    return _guarded(read, file, name)


def _reduce(image: JpegImagePlugin.JpegImageFile, most: float, *, turned: bool) -> int:
    """Have the decoder reduce a JPEG by the largest factor of 8, 4, 2 that is at most ``most``; 1 where there is none."""
    width, height = image.size
    if image.decoderconfig:  # it is reduced already, as it would be too large
        return 1
    for factor in (8, 4, 2):
        fits = factor <= most and min(width, height) >= factor
        if fits and not (turned and (width % factor or height % factor)):
            image.draft(None, (width // factor, height // factor))
            return factor
    return 1


def decode_as_stored(
    image: BinaryIO | bytes | Image.Image, *, name: str, channels: int, values: Values = AS_STORED
) -> np.ndarray:
    """Read an image by the rules at the head of this file, in the dtype that it has: uint8, uint16 or float32.

    Args:
      image: file open for reading at its start, the bytes of one, or an image of Pillow.
      name: for the error.
      channels: 1 or more.
      values: how values are read, and how large an image may be.

    Raises:
      CorruptImage: as :func:`decode`.

    >>> decode_as_stored(Image.new("RGBA", (5, 4), (255, 0, 0, 0)), name="x", channels=1)[0, 0]
    array([255], dtype=uint8)
    """

    def read(opened: BinaryIO) -> np.ndarray:
        pixels = _of_pillow(image, values) if isinstance(image, Image.Image) else _pixels(opened, values)
        return fit_channels(values.scale(pixels) if values.scaled else pixels, channels)

    return _guarded(read, b"" if isinstance(image, Image.Image) else image, name)


def decode_numbers(file: BinaryIO | bytes, *, name: str, values: Values = AS_STORED) -> np.ndarray:
    """Read what an image file stores as numbers: masks of classes, depths.

    A palette's numbers come back, not its colours; gray values as they are, of 1 to 32 bits or floats; .npy arrays of any
    numbers. The image is upright by its EXIF orientation.

    Args:
      file: open for reading at its start, or the bytes themselves.
      name: for the error.
      values: how large an image may be.

    Returns:
      ``[h, w]``, or ``[h, w, 3]`` of a file in colour.

    Raises:
      CorruptImage: truncated, not an image, too large to be one, transparent, or of another number of channels; a JPEG, which
        does not keep numbers.

    >>> png = io.BytesIO()
    >>> image = Image.new("P", (3, 2), 11)
    >>> image.putpalette([0] * 33 + [255, 0, 0])
    >>> image.save(png, "PNG")
    >>> decode_numbers(png.getvalue(), name="x.png").tolist()
    [[11, 11, 11], [11, 11, 11]]
    """
    return _guarded(lambda opened: _numbers(opened, values), file, name)


def _numbers(file: BinaryIO, values: Values) -> np.ndarray:
    if _start(file) == npy.MAGIC:
        shape, dtype = npy.read_header(file)[:2]
        values.require_size(*shape, dtype.itemsize)
        file.seek(0)
        pixels = npy.read_pixels(file)
        if dtype.kind == "b":
            pixels = pixels // np.uint8(255)
    else:
        image = _open(file, values)
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            raise ValueError("a JPEG does not keep numbers: store masks as PNG")
        if image.mode not in ("1", "L", "P", "I", "F", "RGB") and not image.mode.startswith("I;16"):
            raise ValueError(f"mode {image.mode}: allowed are numbers, palettes and RGB without transparency")
        image.load()
        pixels = np.asarray(image)
        pixels = _upright(
            pixels.astype(np.uint8) if image.mode == "1" else pixels, _orientation(type(image).getexif, image)
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        raise ValueError(f"{pixels.shape[2]} channels: allowed are 1, and 3 of colours")
    return pixels


def fit_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Give an image another number of channels, where that is defined.

    Transparent pixels are laid over white, gray is repeated, colours become their luma.

    Args:
      pixels: ``[h, w, c]``, uint8, uint16 or float32 in [0, 1]; of 2 or 4 channels the last is the opacity where ``channels``
        are 1 or 3.
      channels: 1 or more.

    Raises:
      ValueError: from c channels to so many nothing is defined.

    >>> fit_channels(np.full((1, 1, 4), 0.5, np.float32), 1)
    array([[[0.75]]], dtype=float32)
    """
    if pixels.shape[-1] in (2, 4) and channels in (1, 3):
        pixels = _over_white(pixels, "")
    return _convert(pixels, channels, pixels.dtype.newbyteorder("=").name)


def _guarded(read: Callable[[BinaryIO], Any], file: BinaryIO | bytes, name: str) -> Any:
    opened = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        return read(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CorruptImage(name, f"too large to be decoded safely: {error}") from error
    # The parsers of eight formats meet hostile bytes here; what they raise is not a closed list.
    except Exception as error:
        raise CorruptImage(name, _reason(error, opened)) from error


def _reason(error: Exception, file: BinaryIO) -> str:
    try:
        file.seek(0)
        start = file.read(12)
    except Exception:
        start = b"unreadable"
    if not start:
        return "empty file (0 bytes)"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a known format: starts with {start!r}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(" (")[0] if text.startswith("image file is truncated") else text


def _start(file: BinaryIO) -> bytes:
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    return start


def _header(file: BinaryIO, values: Values) -> Header:
    start = _start(file)
    if start == npy.MAGIC:
        shape, dtype = npy.read_header(file)[:2]
        _require_known_type(".npy", dtype, values)
        values.require_size(*shape, dtype.itemsize)
        return Header(shape, _nearest(dtype))
    layout = _channels_of_tiff(file, start, values)
    if layout is not None:
        _require_known_type("TIFF", layout.dtype, values)
        height, width, channels = layout.shape
        values.require_size(*layout.shape, layout.dtype.itemsize)
        size = (width, height) if layout.orientation >= 5 else (height, width)
        return Header((*size, channels), _nearest(layout.dtype))
    image = _open(file, values)
    width, height = image.size
    # Pillow turns TIFF itself; its getexif of PNG would load the pixels.
    if image.format != "TIFF" and _orientation(Image.Image.getexif, image) >= 5:
        height, width = width, height
    if image.mode == "F":
        return Header((height, width, 1), "float32")
    if image.mode.startswith("I"):
        return Header((height, width, 1), "uint16")
    raw_mode = _raw_mode(image) or ""
    gray = image.mode in _GRAY or raw_mode.startswith("LA")
    channels = 1 if gray else 4 if image.mode == "RGBX" else 3
    return Header((height, width, channels), "uint16" if raw_mode else "uint8")


def _nearest(dtype: np.dtype[Any]) -> str:
    return "float32" if dtype.kind == "f" else "uint8" if dtype.itemsize == 1 else "uint16"


def _require_known_type(what: str, dtype: np.dtype[Any], values: Values) -> None:
    """Refuse integers of which no one knows which value is white."""
    if dtype.kind not in "fb" and dtype.newbyteorder("=") not in (np.uint8, np.uint16) and not values.scaled:
        raise ValueError(
            f"{what} of dtype {dtype}: allowed are {npy.TYPES}; max_value or percentiles scale others"
        )


def _pixels(file: BinaryIO, values: Values) -> np.ndarray:
    """``[h, w, c]`` as stored, upright, alpha applied; uint8, uint16 or float32 in [0, 1], unless it will be scaled."""
    start = _start(file)
    if start == npy.MAGIC:
        shape, dtype = npy.read_header(file)[:2]
        _require_known_type(".npy", dtype, values)
        values.require_size(*shape, dtype.itemsize)
        file.seek(0)
        return _check_floats(npy.read_pixels(file), values)
    layout = _channels_of_tiff(file, start, values)
    if layout is not None:
        _require_known_type("TIFF", layout.dtype, values)
        values.require_size(*layout.shape, layout.dtype.itemsize)
        return _check_floats(_upright(tiff.read_pixels(file, layout), layout.orientation), values)
    image = _open(file, values)
    raw_mode = _raw_mode(image)
    pixels = _deep_pixels(image, raw_mode, file, values) if raw_mode else _plain_pixels(image, values)
    # Pillow turned TIFF while it loaded, and its orientation is gone by now.
    return _upright(_over_white(pixels, image.mode), _orientation(type(image).getexif, image))


def _of_pillow(image: Image.Image, values: Values) -> np.ndarray:
    """As :func:`_pixels`, of an image that somebody opened or made with Pillow."""
    values.require_size(image.height, image.width, len(image.getbands()), 1)
    pixels = _plain_pixels(image, values)
    return _upright(_over_white(pixels, image.mode), _orientation(type(image).getexif, image))


def _open(file: BinaryIO, values: Values) -> ImageFile.ImageFile:
    """Open a file with the first of Pillow's readers that takes it, and make sure that the image is not too large.

    `PIL.Image.open` has a limit of its own, which is the same for the whole program.
    """
    file.seek(0)
    prefix = file.read(16)
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        file.seek(0)
        try:
            accepted = accepts is None or accepts(prefix)
            if isinstance(accepted, str) or not accepted:  # a text says why not
                continue
            image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
        _require_size(image, file, values)
        if image.format == "TIFF":
            tags: Any = getattr(image, "tag_v2", {})
            tiff.require_block(image.height, image.width, tags.get(323, 0), tags.get(322, 0))
        return image
    raise Image.UnidentifiedImageError(f"not an image of {', '.join(_FORMATS)}")


def _require_size(image: ImageFile.ImageFile, file: BinaryIO, values: Values) -> None:
    """Refuse an image that is too large, or have the JPEG decoder reduce it by a factor of up to 8."""
    channels = {"P": 3, "PA": 4}.get(image.mode, len(image.getbands()))
    deep = bool(_raw_mode(image)) or image.mode.startswith("I;16")
    itemsize = 2 if deep else 4 if image.mode in ("I", "F") else 1
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile) and not values.fits(
        height, width, channels, itemsize
    ):
        for factor in (2, 4, 8):
            reduced = -(-height // factor), -(-width // factor)
            if values.fits(*reduced, channels, itemsize) and _is_sequential_jpeg(file):
                image.draft(None, (width // factor, height // factor))
                _say_once(
                    f"{height} x {width} pixels are too large for max_image_mib={values.max_image_mib:g}: "
                    f"read at 1/{factor} of the size, {image.height} x {image.width}"
                )
                break
    values.require_size(image.height, image.width, channels, itemsize)


def _say_once(text: str) -> None:
    if not _said:
        _said.add(text)
        _log.warning("%s (said once; others may be reduced too)", text)


def _is_sequential_jpeg(file: BinaryIO) -> bool:
    """Tell whether a JPEG has all components in one scan: others are kept whole in memory while they are decoded."""
    file.seek(2)
    components = 0
    while True:
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if head[1] == 0xFF:  # filling
            file.seek(-3, io.SEEK_CUR)
            continue
        length = int.from_bytes(head[2:], "big")
        body = file.read(length - 2) if length >= 2 else b""
        if head[1] in (0xC0, 0xC1) and len(body) > 5:
            components = body[5]
        elif head[1] == 0xDA:
            return components > 0 and body[:1] == bytes([components])


def _channels_of_tiff(file: BinaryIO, start: bytes, values: Values) -> tiff.Layout | None:
    """The layout of a TIFF that Pillow would refuse or misread; None for any other file."""
    if start[:4] not in _TIFF_MAGIC:
        return None
    try:
        layout = tiff.read_layout(file)
    except ValueError:
        return None
    channels, floats = layout.shape[2], layout.dtype.kind == "f"
    # Integers of 32 bits and signed ones mean something only where they are scaled.
    own_type = (
        floats or (values.scaled and layout.dtype.str[1:] not in ("u1", "u2"))
    ) and not tiff.why_unreadable(layout)
    mine = channels > 4 or (layout.plain and (channels > 1 or own_type))
    return layout if mine else None


def _raw_mode(image: ImageFile.ImageFile) -> str | None:
    """Pillow's name of the layout in the file where that has 16 bits and Pillow's own image would have 8."""
    if not image.tile or image.mode.startswith("I"):
        return None
    args: Any = image.tile[0].args
    raw_mode = args if isinstance(args, str) else args[0] if args else None
    return raw_mode if isinstance(raw_mode, str) and ";16" in raw_mode else None


def _deep_pixels(image: ImageFile.ImageFile, raw_mode: str, file: BinaryIO, values: Values) -> np.ndarray:
    """Both bytes of each 16 bit sample: Pillow keeps the high one, or the low one if told the other order."""
    little = raw_mode.endswith("L") or (raw_mode.endswith("N") and sys.byteorder == "little")
    low = _open(file, values)
    if raw_mode.startswith("LA"):  # four bytes a pixel, as RGBA has
        low.tile = [tile._replace(args="RGBA") for tile in low.tile]
        parts = np.asarray(low).astype(np.uint16)
        image.load()
        gray, alpha = parts[..., 0] << 8 | parts[..., 1], parts[..., 2] << 8 | parts[..., 3]
        return np.stack([gray, alpha], axis=-1)
    swapped = raw_mode[:-1] + ("B" if little else "L")
    low.tile = [
        tile._replace(args=swapped if isinstance(tile.args, str) else (swapped, *(tile.args or ())[1:]))
        for tile in low.tile
    ]
    high = np.asarray(image).astype(np.uint16)
    return high << 8 | np.asarray(low)


def _plain_pixels(image: Image.Image, values: Values) -> np.ndarray:
    image.load()
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if values.scaled:
            return pixels[..., None]
        if pixels.dtype != np.uint16:
            low, high = int(pixels.min()), int(pixels.max())
            if low < 0 or high > 65535:
                raise ValueError(
                    f"32 bit integers from {low} to {high}: allowed are 0 to 65535; max_value or percentiles scale others"
                )
        return pixels.astype(np.uint16)[..., None]
    if image.mode == "F":
        return _check_floats(np.asarray(image)[..., None], values)
    if image.mode == "RGBX" and image.format == "TIFF":  # a fourth channel that is not alpha
        return np.asarray(image)
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return np.asarray(image if image.mode == "L" else image.convert("L"))[..., None]
    if image.mode in ("L", "LA", "La"):
        return np.asarray(image.convert("LA"))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _over_white(pixels: np.ndarray, mode: str) -> np.ndarray:
    """Alpha applied: ``(c a + white (white - a)) / white``, rounded."""
    if pixels.shape[-1] not in (2, 4) or mode == "RGBX":
        return pixels
    if pixels.dtype.kind == "f":
        return pixels[..., :-1] * pixels[..., -1:] + (1 - pixels[..., -1:])
    white = np.iinfo(pixels.dtype).max
    color, alpha = pixels[..., :-1], pixels[..., -1:]
    if (alpha == white).all():
        return color
    mixed = color.astype(np.uint64) * alpha + white * (white - alpha.astype(np.uint64))
    return ((mixed + white // 2) // white).astype(pixels.dtype)


def _orientation(read_exif: Callable[[Any], Image.Exif], image: Image.Image) -> int:
    try:
        return int(read_exif(image).get(0x0112, 1))
    except Exception:  # damaged EXIF data do not make the pixels useless
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _check_floats(pixels: np.ndarray, values: Values) -> np.ndarray:
    if pixels.dtype.kind == "f" and not values.scaled:
        pixels = pixels.astype(np.float32, copy=False)
        require_range(pixels)
    return pixels


def _convert(pixels: np.ndarray, channels: int, dtype: str) -> np.ndarray:
    """``[h, w, channels]`` of ``dtype``, contiguous and owned."""
    count = pixels.shape[-1]
    if count != channels and {count, channels} != {1, 3}:
        raise ValueError(f"{count} channels where the source has {channels}")
    if count == 3 and channels == 1:
        luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        pixels = (luma if pixels.dtype.kind == "f" else np.rint(luma).astype(pixels.dtype))[..., None]
    pixels = _cast(pixels, dtype)
    if count == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=-1)
    return np.array(pixels, order="C") if not pixels.flags.owndata else np.ascontiguousarray(pixels)


def _cast(pixels: np.ndarray, dtype: str) -> np.ndarray:
    if pixels.dtype == dtype:
        return pixels
    if dtype == "float32":
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if pixels.dtype.kind == "f":
        return np.rint(pixels * np.iinfo(dtype).max).astype(dtype)
    if dtype == "uint16":
        return pixels.astype(np.uint16) * np.uint16(257)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
