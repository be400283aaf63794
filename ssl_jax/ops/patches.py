"""Patches of images: cut, joined, standardized."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike, Shaped

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


def patchify(images: Shaped[Array, "b h w c"], *, patch: int) -> Shaped[Array, "b l p"]:
    """Cut images into square patches, flattened in the order (row, column, channel).

    Args:
      images: ``[b, h, w, c]`` any dtype; h and w are multiples of ``patch``.
      patch: side of a patch in pixels.

    Returns:
      ``[b, (h/patch)(w/patch), patch² c]``, patches in raster order.

    Raises:
      ValueError: a height or width that is not a multiple of ``patch``.

    Example:
      >>> import jax.numpy as jnp
      >>> patchify(jnp.arange(16).reshape(1, 4, 4, 1), patch=2)[0, 1].tolist()
      [2, 3, 6, 7]

    Reference: the authors' code of He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022
    (the order; SimMIM's is channel first).
    """
    batch, height, width, channels = images.shape
    rows, columns = _grid(height, width, patch)
    grid = images.reshape(batch, rows, patch, columns, patch, channels)
    return grid.swapaxes(2, 3).reshape(batch, rows * columns, patch * patch * channels)


def unpatchify(
    patches: Shaped[Array, "b l p"], *, patch: int, height: int, width: int
) -> Shaped[Array, "b h w c"]:
    """Put patches back together: the inverse of :func:`patchify`.

    Args:
      patches: ``[b, (height/patch)(width/patch), patch² c]`` any dtype.
      patch: side of a patch in pixels.
      height: height of the images in pixels.
      width: width of the images in pixels.

    Returns:
      ``[b, height, width, c]``.

    Raises:
      ValueError: sizes that do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> images = jnp.arange(48).reshape(1, 4, 4, 3)
      >>> bool((unpatchify(patchify(images, patch=2), patch=2, height=4, width=4) == images).all())
      True
    """
    batch, count, size = patches.shape
    rows, columns = _grid(height, width, patch)
    fits = count == rows * columns and size % (patch * patch) == 0
    allowed = f"[b, {rows * columns}, a multiple of {patch * patch}] for {height} x {width} pixels"
    check.require(fits, "patches.shape", patches.shape, allowed)
    grid = patches.reshape(batch, rows, columns, patch, patch, size // (patch * patch))
    return grid.swapaxes(2, 3).reshape(batch, height, width, size // (patch * patch))


def normalize_patches(
    patches: Float[Array, "*batch p"], *, epsilon: ScalarLike = 1e-6
) -> Float[Array, "*batch p"]:
    """Standardise every patch by its own mean and variance, ``(x − mean) / sqrt(var + epsilon)``.

    Args:
      patches: ``[..., p]`` with p of 2 or more, any float dtype.
      epsilon: added to the variance. A constant patch becomes 0, whatever its value.

    Returns:
      ``[..., p]`` float32 (float64 for float64 inputs).

    Raises:
      ValueError: patches of one number, which have no variance.

    Example:
      >>> import jax.numpy as jnp
      >>> normalize_patches(jnp.array([1.0, 3.0, 5.0]), epsilon=0.0).tolist()
      [-1.0, 0.0, 1.0]

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3. As in the
    authors' code the variance is the unbiased one, over all p values of the patch.
    """
    check.require(patches.shape[-1] >= 2, "patches.shape", patches.shape, "[..., p] with p of 2 or more")
    centered = numerics.center(patches, -1)
    return centered / _deviation(centered, epsilon)


def unnormalize_patches(
    normalized: Float[Array, "*batch p"], patches: Float[Array, "*batch p"], *, epsilon: ScalarLike = 1e-6
) -> Float[Array, "*batch p"]:
    """Give standardised patches the mean and variance of others: the inverse of :func:`normalize_patches`.

    Args:
      normalized: ``[..., p]``, such as what MAE predicts.
      patches: ``[..., p]`` whose mean and variance to take.
      epsilon: as in :func:`normalize_patches`.

    Returns:
      ``[..., p]`` float32 (float64 for float64 inputs).

    Example:
      >>> import jax.numpy as jnp
      >>> patch = jnp.array([1.0, 3.0, 5.0])
      >>> unnormalize_patches(normalize_patches(patch), patch).tolist()
      [1.0, 3.0, 5.0]
    """
    centered, mean = numerics.center_with_mean(patches, -1)
    return numerics.at_least_float32(normalized) * _deviation(centered, epsilon) + mean


def standardize(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Apply layer normalisation without weights, ε 1e-5, biased variance: the targets of data2vec and I-JEPA.

    >>> import jax.numpy as jnp
    >>> standardize(jnp.array([1.0, 3.0])).round(3).tolist()
    [-1.0, 1.0]
    """
    centered = numerics.center(x, -1)
    return centered * jax.lax.rsqrt(jnp.mean(centered**2, axis=-1, keepdims=True) + 1e-5)


def _deviation(centered: Float[Array, "*batch p"], epsilon: ScalarLike) -> Float[Array, "*batch 1"]:
    """Root of the unbiased variance plus ε; 1 where both are 0, so that a constant patch is 0 without an ε too."""
    check.not_negative("epsilon", epsilon)
    variance = jnp.sum(centered**2, axis=-1, keepdims=True) / (centered.shape[-1] - 1) + epsilon
    return jnp.sqrt(jnp.where(variance == 0, 1.0, variance))


def _grid(height: int, width: int, patch: int) -> tuple[int, int]:
    check.require(patch >= 1, "patch", patch, "an integer of 1 or more")
    allowed = f"multiples of patch={patch}"
    check.require(height % patch == 0 and width % patch == 0, "(height, width)", (height, width), allowed)
    return height // patch, width // patch
