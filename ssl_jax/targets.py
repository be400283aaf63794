"""Targets computed from images: what a model predicts of them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

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


def rotate(images: Shaped[Array | np.ndarray, "n h w c"]) -> Shaped[Array, "n 4 h w c"]:
    """Square images turned by 0, 90, 180 and 270 degrees, counter-clockwise.

    Args:
      images: any type; h = w.

    Returns:
      All four of each image, the image itself first.

    Raises:
      ValueError: images that are not square.

    >>> import numpy as np
    >>> rotate(np.arange(4).reshape(1, 2, 2, 1))[0, :, 0, :, 0].tolist()  # the first rows
    [[0, 1], [1, 3], [3, 2], [2, 0]]
    """
    height, width = images.shape[1:3]
    check.require(height == width, "images", f"{height} x {width} pixels", "square images")
    return jnp.stack([jnp.rot90(jnp.asarray(images), turns, axes=(1, 2)) for turns in range(4)], axis=1)


def normalize_patches(
    patches: Float[Array, "*batch p"], *, epsilon: float = 1e-6
) -> Float[Array, "*batch p"]:
    """Standardise every patch by its own mean and variance, ``(x − mean) / sqrt(var + epsilon)``.

    Args:
      patches: ``[..., p]`` with p of 2 or more, any float dtype.
      epsilon: added to the variance; a constant patch becomes 0.

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
    x = numerics.at_least_float32(patches)
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    return centered / jnp.sqrt(jnp.var(x, axis=-1, keepdims=True, ddof=1) + epsilon)


def unnormalize_patches(
    normalized: Float[Array, "*batch p"], patches: Float[Array, "*batch p"], *, epsilon: float = 1e-6
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
    x = numerics.at_least_float32(patches)
    std = jnp.sqrt(jnp.var(x, axis=-1, keepdims=True, ddof=1) + epsilon)
    return numerics.at_least_float32(normalized) * std + jnp.mean(x, axis=-1, keepdims=True)


def _grid(height: int, width: int, patch: int) -> tuple[int, int]:
    check.require(patch >= 1, "patch", patch, "an integer of 1 or more")
    allowed = f"multiples of patch={patch}"
    check.require(height % patch == 0 and width % patch == 0, "(height, width)", (height, width), allowed)
    return height // patch, width // patch


def hog(
    images: Float[Array, "b h w c"],
    *,
    cell: int = 8,
    bins: int = 9,
    kernel: str = "sobel",
    window: int | None = 16,
) -> Float[Array, "b rows columns k"]:
    """Histograms of oriented gradients, the target of MaskFeat, for each channel by itself.

    At every pixel the gradient (g_x, g_y) votes with its length, weighted by the window, for the bin of its direction::

        bin = ⌊bins · θ / π⌋ mod bins      θ = angle of the gradient
        hist = Σ votes of the pixels of a cell,  hist ← hist / √(Σ_bins hist² + 1e-12)

    Args:
      images: ``[b, h, w, c]`` any float dtype; h and w multiples of ``cell``.
      cell: side of a cell in pixels.
      bins: number of directions.
      kernel: gradients by the ``"sobel"`` filters with reflected borders, θ measured from the y axis (MaskFeat), or
        ``"central"``: ``x[i + 1] − x[i − 1]``, 0 at the borders, θ from the x axis (scikit-image).
      window: side of the squares in which votes are weighted by a Gaussian, with a deviation of a quarter of it; h and w have
        to be multiples of it. ``None``: equal weights.

    Returns:
      ``[b, h/cell, w/cell, c · bins]`` float32, channel by channel; unit length in every channel, 0 where nothing changes.

    Raises:
      ValueError: sizes that are no multiples, or an unknown kernel.

    Example:
      >>> import jax.numpy as jnp
      >>> rising = jnp.broadcast_to(jnp.arange(8.0)[:, None], (1, 8, 8))[..., None]
      >>> hog(rising, cell=8, bins=2, kernel="central", window=None).tolist()  # straight down
      [[[[0.0, 1.0]]]]

    References: Dalal and Triggs, CVPR 2005; Wei et al., "Masked Feature Prediction for Self-Supervised Visual Pre-Training",
    CVPR 2022, section 3 (9 bins, cells of 8 pixels, normalised; the window is its code's).
    """
    height, width = images.shape[1:3]
    check.choice("kernel", kernel, ("sobel", "central"))
    check.require(bins >= 1, "bins", bins, "an integer of 1 or more")
    _grid(height, width, cell)
    x = numerics.at_least_float32(images)
    if kernel == "sobel":
        horizontal, vertical = slopes(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"))
        angle = jnp.arctan2(horizontal, vertical)
    else:
        inner = ((0, 0), (1, 1), (0, 0), (0, 0))
        vertical = jnp.pad(x[:, 2:] - x[:, :-2], inner)
        horizontal = jnp.pad(x[:, :, 2:] - x[:, :, :-2], (inner[0], inner[2], inner[1], inner[3]))
        angle = jnp.arctan2(vertical, horizontal)
    votes = jnp.hypot(horizontal, vertical)
    if window is not None:
        _grid(height, width, window)
        offset = jnp.arange(window) - (window - 1) / 2
        profile = jnp.exp(-(offset**2) / (2 * (window / 4) ** 2))
        square = jnp.outer(profile, profile) / jnp.sum(profile) ** 2
        votes = votes * jnp.tile(square, (height // window, width // window))[..., None]
    place = jnp.floor(bins * angle / jnp.pi).astype(jnp.int32) % bins
    spread = jnp.where(place[..., None] == jnp.arange(bins), votes[..., None], 0.0)
    cells = spread.reshape(len(x), height // cell, cell, width // cell, cell, x.shape[-1], bins)
    histogram = jnp.sum(cells, axis=(2, 4))
    length = jnp.sqrt(jnp.sum(histogram**2, axis=-1, keepdims=True) + 1e-12)
    return (histogram / length).reshape(*histogram.shape[:3], -1)


def slopes(
    padded: Float[Array, "b h2 w2 *c"],
) -> tuple[Float[Array, "b h w *c"], Float[Array, "b h w *c"]]:
    """Sobel filters: ``[1 2 1]ᵀ [1 0 −1]`` and ``[1 0 −1]ᵀ [1 2 1]``, as correlations, of images with a border of one pixel.

    >>> import jax.numpy as jnp
    >>> horizontal, vertical = slopes(jnp.broadcast_to(jnp.arange(3.0), (1, 3, 3)))
    >>> horizontal.item(), vertical.item()
    (-8.0, 0.0)
    """
    # The filters are products of a sum along one axis and a difference along the other.
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return down[:, :, :-2] - down[:, :, 2:], across[:, :-2] - across[:, 2:]


def standardized(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Layer normalisation without weights, ε 1e-5, biased variance: the targets of data2vec and I-JEPA.

    >>> import jax.numpy as jnp
    >>> standardized(jnp.array([1.0, 3.0])).round(3).tolist()
    [-1.0, 1.0]
    """
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(jnp.var(x, axis=-1, keepdims=True) + 1e-5)
