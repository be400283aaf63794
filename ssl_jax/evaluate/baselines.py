"""Features that need no training: what an encoder has to beat."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.core import check
from ssl_jax.core.types import Array
from ssl_jax.train.features import AnyArray

VALUES = 4096
"""Values of an image at most that a baseline of pixels reads: a larger image is shrunk, so that features take 16 KiB each."""


def pixel_side(size: int, channels: int) -> int:
    """Compute the side to which a baseline of pixels shrinks images, so that they have no more than ``VALUES`` values.

    >>> pixel_side(28, 1), pixel_side(32, 3), pixel_side(224, 3)
    (28, 32, 36)
    """
    return size if size * size * channels <= VALUES else max(math.isqrt(VALUES // channels), 1)


def shrink_pixels(images: Float[Array, "n h w c"]) -> Float[Array, "n hwc"]:
    """Flatten images, after they are shrunk where they have more than ``VALUES`` values (see :func:`pixel_side`).

    >>> shrink_pixels(jnp.zeros((2, 3, 3, 1))).shape, shrink_pixels(jnp.zeros((2, 224, 224, 3))).shape
    ((2, 9), (2, 3888))
    """
    n, height, width, channels = images.shape
    side = pixel_side(max(height, width), channels)
    if side < max(height, width):
        images = jax.image.resize(images, (n, side, side, channels), "linear", antialias=True)
    return flatten_pixels(images)


def flatten_pixels(images: Shaped[Array, "n h w c"]) -> Shaped[Array, "n hwc"]:
    """Flatten images as they are.

    >>> flatten_pixels(jnp.zeros((2, 3, 3, 1))).shape
    (2, 9)
    """
    return images.reshape(images.shape[0], -1)


def pca(
    train: Float[AnyArray, "n d"], *others: Float[AnyArray, "_ d"], dims: int
) -> tuple[Float[np.ndarray, "_ dims"], ...]:
    """Compute the principal components of the training features, not whitened: ``(x − mean) V``, V the leading eigenvectors.

    The sign of an eigenvector is such that its largest weight is positive.

    With fewer examples n than dimensions d the axes follow from the eigenvectors U of ``XXᵀ``, as ``V = XᵀU / ‖XᵀU‖``: besides
    the features memory grows with min(n, d)².

    Args:
      train: features that give mean and axes; no label is read.
      *others: further features for the same transform.
      dims: number of components, in [1, d].

    Returns:
      All of them, ``train`` first, components in falling order of variance; with n < d those beyond the rank are 0.

    Raises:
      ValueError: ``dims`` out of range.

    >>> first, = pca(np.array([[0.0, 1.0], [0.0, -1.0]], np.float32), dims=1)
    >>> np.abs(first).tolist()
    [[1.0], [1.0]]

    Reference: Pearson (1901); Jolliffe, Principal Component Analysis (2002), section 1.1.
    """
    width = train.shape[-1]
    check.require(1 <= dims <= width, "dims", dims, f"an integer in [1, {width}]")
    x = jnp.asarray(train)
    mean = jnp.mean(x, axis=0)
    centered = x - mean
    axes = _axes_of_few(centered, dims) if len(x) < width else _axes_of_many(centered, dims)
    largest = jnp.take_along_axis(axes, jnp.abs(axes).argmax(axis=0)[None], axis=0)
    axes = jnp.where(largest < 0, -axes, axes)
    return tuple(np.asarray((jnp.asarray(part) - mean) @ axes) for part in (train, *others))


def _axes_of_many(centered: Array, dims: int) -> Array:
    _, axes = jnp.linalg.eigh(centered.T @ centered)
    return axes[:, ::-1][:, :dims]


def _axes_of_few(centered: Array, dims: int) -> Array:
    """The leading axes [d, dims] of fewer rows than dimensions; 0 beyond their rank."""
    squares, rows = jnp.linalg.eigh(centered @ centered.T)
    squares, rows = squares[::-1][:dims], rows[:, ::-1][:, :dims]
    noise = len(centered) * jnp.finfo(centered.dtype).eps * squares[0]
    axes = centered.T @ rows
    length = jnp.linalg.norm(axes, axis=0)
    axes = jnp.where((squares > noise) & (length > 0), axes / jnp.where(length > 0, length, 1.0), 0.0)
    return jnp.pad(axes, ((0, 0), (0, dims - axes.shape[1])))
