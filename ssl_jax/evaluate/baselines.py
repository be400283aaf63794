"""Features that need no training: what an encoder has to beat."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.core import check
from ssl_jax.core.types import Array
from ssl_jax.train.features import AnyArray


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

    Args:
      train: features that give mean and axes; no label is read.
      *others: further features for the same transform.
      dims: number of components, in [1, d].

    Returns:
      All of them, ``train`` first, components in falling order of variance.

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
    _, axes = jnp.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1][:, :dims]
    largest = jnp.take_along_axis(axes, jnp.abs(axes).argmax(axis=0)[None], axis=0)
    axes = jnp.where(largest < 0, -axes, axes)
    return tuple(np.asarray((jnp.asarray(part) - mean) @ axes) for part in (train, *others))
