"""Folders and bytes of images, kind and hostile, for tests."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_jax.data.fashion_mnist import open_embedded


def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    """An image file, by Pillow."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode_npy(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def encode_png16(array: np.ndarray) -> bytes:
    """A 16 bit PNG of 1 (gray), 2 (gray, alpha), 3 or 4 channels, written from the specification."""
    height, width, channels = array.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def encode_tiff(
    array: np.ndarray, *, order: str = "<", planar=False, deflate=False, predict=False, tile=0
) -> bytes:
    """A TIFF of any number of channels, written from the specification, in strips of 5 rows or in tiles."""
    height, width, channels = array.shape
    array = array.astype(array.dtype.newbyteorder(order))
    rows, columns = (tile, tile) if tile else (5, width)
    blocks = []
    for plane in np.moveaxis(array, 2, 0)[..., None] if planar else [array]:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                block = plane[top : top + rows, left : left + columns]
                if tile:
                    missing = [(0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)]
                    block = np.pad(block, missing)
                if predict:
                    block = np.concatenate([block[:, :1], np.diff(block.astype(np.int64), axis=1)], axis=1)
                data = block.astype(array.dtype).tobytes()
                blocks.append(zlib.compress(data) if deflate else data)
    counts = [len(block) for block in blocks]
    offsets = [8 + sum(counts[:i]) for i in range(len(blocks))]
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [8 * array.dtype.itemsize] * channels,
        259: [8 if deflate else 1],
        262: [1],
        277: [channels],
        284: [2 if planar else 1],
        317: [2 if predict else 1],
        339: [kind] * channels,
        **(
            {322: [tile], 323: [tile], 324: offsets, 325: counts}
            if tile
            else {273: offsets, 278: [5], 279: counts}
        ),
    }
    start = 8 + sum(counts)
    begin = start + 2 + 12 * len(tags) + 4
    table, extra = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        where = packed if len(values) == 1 else struct.pack(f"{order}I", begin + len(extra))
        extra += packed if len(values) > 1 else b""
        table += struct.pack(f"{order}HHI", tag, 4, len(values)) + where
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start)
    return head + b"".join(blocks) + struct.pack(f"{order}H", len(tags)) + table + bytes(4) + extra


def photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth colour image ``[height, width, 3]`` uint8 with some discs in it."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = rng.uniform(1, 6, (3, 2))
    image = np.stack([np.sin(a * x + b * y + rng.uniform(0, 6)) for a, b in waves], axis=-1) * 0.4 + 0.5
    for _ in range(4):
        inside = (x - rng.uniform(0, 1)) ** 2 + (y - rng.uniform(0, 1)) ** 2 < rng.uniform(0.05, 0.3) ** 2
        image[inside] = rng.uniform(0, 1, 3)
    return (image.clip(0, 1) * 255).astype(np.uint8)


def _forms() -> list[tuple[str, Callable[[np.ndarray], bytes]]]:
    """Suffix, and how an image ``[h, w, 3]`` uint8 becomes such a file."""
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        (".jpg", lambda x: encode(x, "JPEG", quality=90)),
        (".JPG", lambda x: encode(x, "JPEG", progressive=True)),
        (".png", encode),
        (".gray.jpg", lambda x: encode(x[..., 0], "JPEG")),
        (".gray.png", lambda x: encode(x[..., 1])),
        (".rgba.png", lambda x: encode(np.dstack([x, 255 - x[..., :1]]))),
        (".16bit.png", lambda x: encode(x[..., 0].astype(np.uint16) * 257 + 3)),
        (".16bit.colour.png", lambda x: encode_png16(x.astype(np.uint16) * 257)),
        (".palette.png", lambda x: encode(Image.fromarray(x).quantize(16))),
        (".gif", lambda x: encode(Image.fromarray(x).quantize(32), "GIF")),
        (".bmp", lambda x: encode(x, "BMP")),
        (".webp", lambda x: encode(x, "WEBP")),
        (".tif", lambda x: encode(x, "TIFF")),
        (".ppm", lambda x: encode(x, "PPM")),
        (".cmyk.jpeg", lambda x: encode(Image.fromarray(x).convert("CMYK"), "JPEG")),
        (".turned.jpg", lambda x: encode(x, "JPEG", exif=turned)),
        (".npy", encode_npy),
    ]


def write_mixed_folder(path: str | Path, count: int = 200, seed: int = 0) -> list[str]:
    """Write a folder of real images in every form, of 40 to 96 pixels a side, 2 % of them damaged.

    Two levels of sub-folders; a hidden file, a text and a table lie among the images. The damaged ones are a
    JPEG cut in half, a text called .jpg, a PNG cut in half, a JPEG without its last bytes, and so on again.

    Args:
      path: is made.
      count: image files, the damaged ones included; 8 or more.
      seed: of the images.

    Returns:
      Names of the damaged files relative to ``path``, sorted.
    """
    root, rng = Path(path), np.random.default_rng(seed)
    clothes, forms = open_embedded("test"), _forms()
    damages: list[tuple[str, Callable[[np.ndarray], bytes]]] = [
        (".jpg", lambda x: (data := encode(x, "JPEG"))[: len(data) // 2]),
        (".jpg", lambda x: b"this is a text, whatever its name says\n"),
        (".png", lambda x: (data := encode(x))[: len(data) // 2]),
        (".jpg", lambda x: encode(x, "JPEG")[:-20]),
    ]
    wrong = max(2, round(0.02 * count))
    damaged_at = {round((i + 0.5) * count / wrong): i for i in range(wrong)}
    damaged = []
    for number in range(count):
        height, width = rng.integers(40, 97, 2).tolist()
        image = photo(rng, height, width)
        if number % 3 == 0:  # a real photograph among the waves
            gray = clothes[int(rng.integers(len(clothes)))]["image"][..., 0]
            image[:, :, number % 2 :] = np.asarray(Image.fromarray(gray).resize((width, height)))[..., None]
        suffix, form = forms[number % len(forms)]
        if number in damaged_at:
            suffix, form = damages[damaged_at[number] % len(damages)]
        folder = f"shoot{number % 4}" if number % 2 else f"shoot{number % 4}/raw"
        name = f"{folder}/{number:04d}{suffix}"
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(form(image))
        if number in damaged_at:
            damaged.append(name)
    (root / ".hidden.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("no image\n")
    (root / "labels.csv").write_text("name,label\n")
    return sorted(damaged)
