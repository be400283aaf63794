"""Pictures for a page: arrays as PNG data, sprite sheets, heat maps."""

import base64
import io

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from ssl_jax.augment.color import to_float, unnormalize
from ssl_jax.augment.views import View
from ssl_jax.core import check

# Dark to light, lightness rising evenly, so that it reads without colour too.
HEAT = np.array(
    [[0.05, 0.05, 0.20], [0.16, 0.20, 0.48], [0.10, 0.45, 0.56], [0.35, 0.68, 0.45], [0.98, 0.93, 0.45]]
)


def visible(images: Shaped[np.ndarray, "*b h w c"]) -> Shaped[np.ndarray, "*b h w c2"]:
    """Convert images of any dtype and number of channels to what a screen shows: uint8 with 1 or 3 channels.

    Args:
      images: images in uint8, uint16, or float in [0, 1] (others are clipped). Of two channels the first is shown, of four and
        more the first three.

    >>> visible(np.full((2, 2, 5), 0.5, np.float32)).shape
    (2, 2, 3)
    """
    channels = images.shape[-1]
    visible_channels = images[..., : 3 if channels >= 3 else 1]
    if visible_channels.dtype == np.uint8:
        return visible_channels
    values = np.clip(np.nan_to_num(np.asarray(to_float(visible_channels), np.float32)), 0.0, 1.0)
    return (255 * values + 0.5).astype(np.uint8)


def raw(images: Float[np.ndarray, "*b h w c"], view: View) -> Float[np.ndarray, "*b h w c"]:
    """Undo the normalisation of images, back to [0, 1]: ``x · std + mean``, clipped.

    >>> raw(np.zeros((1, 1, 1), np.float32), View(mean=(0.25,), std=(0.5,))).tolist()
    [[[0.25]]]
    """
    pixels = unnormalize(np.asarray(images, np.float32), mean=view.mean, std=view.std)
    return np.clip(np.asarray(pixels), 0.0, 1.0)


def data_uri(image: Shaped[np.ndarray, "h w c"]) -> str:
    """Encode a picture as the source of an ``<img>``: PNG, base64.

    Args:
      image: image in uint8 with 1, 3 or 4 (transparency) channels, or anything that :func:`visible` takes.

    >>> data_uri(np.zeros((2, 2, 1), np.uint8))[:22]
    'data:image/png;base64,'
    """
    pixels = image if image.dtype == np.uint8 and image.shape[-1] == 4 else visible(image)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sprite(images: Shaped[np.ndarray, "n h w c"]) -> Shaped[np.ndarray, "rows columns c2"]:
    """Join many small pictures into one, row by row, ``ceil(√n)`` in a row.

    >>> sprite(np.zeros((5, 2, 2, 1), np.uint8)).shape
    (4, 6, 1)
    """
    n, height, width, _ = images.shape
    check.require(n >= 1, "images", n, "one image or more")
    columns = sprite_columns(n)
    rows = -(-n // columns)
    pixels = visible(images)
    full = np.zeros((rows * columns, height, width, pixels.shape[-1]), np.uint8)
    full[:n] = pixels
    grid = full.reshape(rows, columns, height, width, -1).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, -1)


def sprite_columns(n: int) -> int:
    """Compute the number of pictures in a row of a sprite sheet of n.

    >>> sprite_columns(5)
    3
    """
    return max(1, int(np.ceil(np.sqrt(n))))


def shrink(image: Shaped[np.ndarray, "h w c"], side: int) -> Shaped[np.ndarray, "h2 w2 c2"]:
    """Shrink a picture to no larger than ``side`` pixels; a smaller one stays as it is.

    >>> shrink(np.zeros((64, 32, 3), np.uint8), 16).shape
    (16, 8, 3)
    """
    pixels = visible(image)
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = [max(1, round(length * scale)) for length in pixels.shape[1::-1]]
    small = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).resize((size[0], size[1]), 2)
    return np.asarray(small).reshape(size[1], size[0], -1)


def heat(
    values: Float[np.ndarray, "h w"], *, low: float | None = None, high: float | None = None
) -> Shaped[np.ndarray, "h w 3"]:
    """Turn a map of numbers into colours, dark for the least to light for the greatest.

    Args:
      values: map.
      low: number drawn dark, as are those below; ``None``: the least of this map.
      high: number drawn light, as are those above; ``None``: the greatest of this map.

    >>> heat(np.array([[0.0, 1.0]]))[0, 1].tolist()
    [250, 237, 115]
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    at = (values - low) / (high - low) * (len(HEAT) - 1) if high > low else np.zeros(values.shape)
    channels = [np.interp(at, np.arange(len(HEAT)), HEAT[:, i]) for i in range(3)]
    return (255 * np.stack(channels, axis=-1) + 0.5).astype(np.uint8)


def atlas(
    positions: Float[np.ndarray, "n 2"],
    images: Shaped[np.ndarray, "n h w c"],
    *,
    columns: int = 25,
    rows: int = 19,
) -> Shaped[np.ndarray, "height width 4"]:
    """Draw a map made of its pictures: in each cell of a grid the example nearest to its middle; empty cells are transparent.

    Args:
      positions: positions of the examples as shares of width and height, from the upper left.
      images: small pictures of the same examples.
      columns: number of cells from left to right.
      rows: number of cells from top to bottom.

    >>> made = atlas(np.array([[0.1, 0.1], [0.9, 0.9]]), np.ones((2, 4, 4, 1), np.uint8), columns=2, rows=2)
    >>> int((made[..., 3] == 255).sum())
    32
    """
    unit = positions * [columns, rows]
    cell = np.clip(unit.astype(int), 0, [columns - 1, rows - 1])
    far = np.sum((unit - cell - 0.5) ** 2, axis=1)
    _, height, width, _ = images.shape
    canvas = np.zeros((rows, height, columns, width, 4), np.uint8)
    for i in np.argsort(-far, kind="stable"):  # the nearest is drawn last
        column, row = cell[i]
        canvas[row, :, column, :, :3] = visible(images[i])
        canvas[row, :, column, :, 3] = 255
    return canvas.reshape(rows * height, columns * width, 4)
