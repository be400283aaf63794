"""Histograms of oriented gradients."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array
from ssl_jax.ops.patches import _grid


def hog(
    images: Float[Array, "b h w c"],
    *,
    cell: int = 8,
    bins: int = 9,
    kernel: str = "sobel",
    window: int | None = 16,
) -> Float[Array, "b rows columns k"]:
    """Compute the histograms of oriented gradients, the target of MaskFeat, for each channel by itself.

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
        sine, cosine = horizontal, vertical
    else:
        inner = ((0, 0), (1, 1), (0, 0), (0, 0))
        vertical = jnp.pad(x[:, 2:] - x[:, :-2], inner)
        horizontal = jnp.pad(x[:, :, 2:] - x[:, :, :-2], (inner[0], inner[2], inner[1], inner[3]))
        sine, cosine = vertical, horizontal
    # A direction has no gradient here, and a length of 0 one of 0 (hypot's and arctan2's are NaN there).
    angle = jnp.arctan2(jax.lax.stop_gradient(sine), jax.lax.stop_gradient(cosine))
    votes = numerics.safe_sqrt(horizontal**2 + vertical**2)
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
    """Apply Sobel filters, ``[1 2 1]ᵀ [1 0 −1]`` and ``[1 0 −1]ᵀ [1 2 1]``, as correlations, to images with a border.

    >>> import jax.numpy as jnp
    >>> horizontal, vertical = slopes(jnp.broadcast_to(jnp.arange(3.0), (1, 3, 3)))
    >>> horizontal.item(), vertical.item()
    (-8.0, 0.0)
    """
    # The filters are products of a sum along one axis and a difference along the other.
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return down[:, :, :-2] - down[:, :, 2:], across[:, :-2] - across[:, 2:]
