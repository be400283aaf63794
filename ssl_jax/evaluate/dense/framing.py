"""How images of any size become inputs of an encoder of patches: resized, aligned to its patches, in tiles."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from ssl_jax.augment.host import host_resize
from ssl_jax.core import check

ALIGNMENTS = ("resize", "pad")


class Framing(NamedTuple):
    """How images of any size become inputs of an encoder of maps.

    Attributes:
      size: shorter side in pixels, the longer one by the same factor (antialiased, bicubic); ``None``: as they are stored.
      align: what becomes of sides that the stride does not divide. ``resize``: both go to the nearest multiple, each by a
        factor of its own; ``pad``: the last row and column are repeated at the bottom and the right.
      tile: images of more than ``tile²`` pixels are encoded in squares of at most this side, one at a time.
      overlap: share of a tile that its neighbor sees too, in [0, 1); where tiles overlap their features are averaged.
    """

    size: int | None = None
    align: str = "resize"
    tile: int = 1024
    overlap: float = 0.25

    def require_valid(self, stride: int) -> None:
        """Refuse values out of range.

        Raises:
          ValueError: names the value.
        """
        check.require(self.size is None or self.size >= 1, "size", self.size, "None, or pixels of 1 or more")
        check.choice("align", self.align, ALIGNMENTS)
        check.require(self.tile >= stride, "tile", self.tile, f"pixels of at least the patch, {stride}")
        check.require(0 <= self.overlap < 1, "overlap", self.overlap, "a share in [0, 1)")


class Framed(NamedTuple):
    """An image as an encoder of maps sees it.

    Attributes:
      image: ``[h, w, c]``, sides multiples of the stride.
      covered: shares of height and width that show the image; below 1 where it was padded.
    """

    image: np.ndarray
    covered: tuple[float, float]


def frame_image(image: Shaped[np.ndarray, "h w c"], stride: int, framing: Framing) -> Framed:
    """Resize and align an image, see :class:`Framing`.

    >>> frame_image(np.zeros((45, 61, 3), np.uint8), 8, Framing()).image.shape
    (48, 64, 3)
    >>> framed = frame_image(np.zeros((45, 61, 3), np.uint8), 8, Framing(align="pad"))
    >>> framed.image.shape, framed.covered
    ((48, 64, 3), (0.9375, 0.953125))
    """
    sides = np.array(image.shape[:2], float)
    if framing.size is not None:
        sides *= framing.size / min(image.shape[:2])
    if framing.align == "resize":
        height, width = (max(round(side / stride), 1) * stride for side in sides)
        return Framed(_to_unit(host_resize(image, height, width)), (1.0, 1.0))
    height, width = (max(round(side), 1) for side in sides)
    resized = _to_unit(host_resize(image, height, width))
    padding = [(0, -side % stride) for side in (height, width)]
    padded = np.pad(resized, (*padding, (0, 0)), mode="edge")
    return Framed(padded, (height / padded.shape[0], width / padded.shape[1]))


def _to_unit(image: np.ndarray) -> np.ndarray:
    """Cut the overshoot that a bicubic resize leaves in floats."""
    return np.clip(image, 0, 1) if image.dtype.kind == "f" else image


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """List where tiles begin that cover a line; the last is moved back so that it ends with the line.

    Args:
      length: of the line, in patches.
      tile: patches of a tile.
      overlap: share of a tile that the next one sees too, in [0, 1).

    >>> tile_starts(10, 4, 0.25), tile_starts(3, 4, 0.25)
    ([0, 3, 6], [0])
    """
    if length <= tile:
        return [0]
    step = max(int(tile * (1 - overlap)), 1)
    return [*range(0, length - tile, step), length - tile]
