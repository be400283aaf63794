"""Transformations of images that can be told from what is seen: all versions of each image, itself first."""

import itertools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Shaped

from ssl_jax.core import check
from ssl_jax.core.types import Array
from ssl_jax.ops.tiles import rotate

Images = Shaped[Array, "n h w c"]
Versions = Shaped[Array, "n k h w c"]


def flip_vertically(images: Images) -> Versions:
    """Make each image and its upside-down mirror image.

    >>> flip_vertically(jnp.arange(2).reshape(1, 2, 1, 1)).ravel().tolist()
    [0, 1, 1, 0]
    """
    return jnp.stack([images, images[:, ::-1]], axis=1)


def flip_horizontally(images: Images) -> Versions:
    """Make each image and its mirror image, left for right.

    >>> flip_horizontally(jnp.arange(2).reshape(1, 1, 2, 1)).ravel().tolist()
    [0, 1, 1, 0]
    """
    return jnp.stack([images, images[:, :, ::-1]], axis=1)


def half_swap(images: Images) -> Versions:
    """Make each image and the one whose upper and lower half have changed places.

    Raises:
      ValueError: an odd height.

    >>> half_swap(jnp.arange(4).reshape(1, 4, 1, 1)).ravel().tolist()
    [0, 1, 2, 3, 2, 3, 0, 1]
    """
    height = images.shape[1]
    check.require(height % 2 == 0, "images", f"a height of {height} pixels", "an even one, to be halved")
    return jnp.stack([images, jnp.roll(images, height // 2, axis=1)], axis=1)


def shuffle_quarters(images: Images) -> Versions:
    """Make all 24 puzzles of the four quarters of each image, in lexicographic order of the quarters.

    Raises:
      ValueError: an odd side.

    >>> versions = shuffle_quarters(jnp.arange(4).reshape(1, 2, 2, 1))
    >>> versions.shape, versions[0, 1].ravel().tolist()
    ((1, 24, 2, 2, 1), [0, 1, 3, 2])
    """
    n, height, width, channels = images.shape
    even = height % 2 == 0 and width % 2 == 0
    check.require(even, "images", f"{height} x {width} pixels", "even sides, to be quartered")
    h, w = height // 2, width // 2
    quarters = images.reshape(n, 2, h, 2, w, channels).swapaxes(2, 3).reshape(n, 4, h, w, channels)
    orders = jnp.array(list(itertools.permutations(range(4))))
    puzzles = quarters[:, orders].reshape(n, len(orders), 2, 2, h, w, channels)
    return puzzles.swapaxes(3, 4).reshape(n, len(orders), height, width, channels)


TRANSFORMATIONS: dict[str, tuple[Callable[[Images], Versions], int]] = {
    "rotation": (rotate, 4),
    "vertical_flip": (flip_vertically, 2),
    "horizontal_flip": (flip_horizontally, 2),
    "half_swap": (half_swap, 2),
    "jigsaw": (shuffle_quarters, 24),
}
"""By name: the function and how many versions of an image it makes."""
