"""Position tables of patch grids: the fixed sine-cosine table of MAE, and tables moved to another grid."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.types import Array

RESIZES = ("bicubic", "bicubic_offset", "bicubic_antialias", "linear", "linear_corners")


@functools.cache
def sincos_table(height: int, width: int, features: int) -> Float[np.ndarray, "length features"]:
    """Compute the fixed two-dimensional sine-cosine position table, one row a patch, patches in row-major order.

    For the patch in row ``y`` and column ``x`` and ``ω_i = 10000^(−i / (features/4))``, ``i = 0 … features/4
    − 1``::

        [ sin(x ω) | cos(x ω) | sin(y ω) | cos(y ω) ]

    Args:
      height: rows of the grid, ``>= 1``.
      width: columns of the grid, ``>= 1``.
      features: width of the table, divisible by 4.

    Returns:
      ``[height * width, features]``, float64; read-only, as it is computed once.

    Raises:
      ValueError: ``features`` is not divisible by 4.

    >>> sincos_table(2, 2, 4).round(3)[1].tolist()
    [0.841, 0.54, 0.0, 1.0]

    Reference: He et al. 2021 (MAE), whose code puts the column first. MoCo v3's table is this one with halves
    swapped on square grids; big_vision's divides the exponent by ``features/4 − 1`` instead: neither is
    offered here. The row of zeros that MAE stores for the class token is left out: prefix tokens have no
    position.
    """
    check.require(features % 4 == 0, "features", features, "a multiple of 4")
    omega = 10000.0 ** (-np.arange(features // 4) / (features / 4))
    row, column = (index.ravel()[:, None] * omega for index in np.indices((height, width)))
    table = np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], axis=1)
    table.setflags(write=False)
    return table


def resampling_matrix(
    source: int, target: int, *, resize: str = "bicubic"
) -> Float[np.ndarray, "target source"]:
    """Compute the matrix that resamples ``source`` values along a line to ``target`` values.

    Sample ``j`` lies at ``(j + 1/2) · source/target − 1/2`` between the values, unless said otherwise; beyond the ends the
    last value repeats. Libraries differ in the rest:

    * ``"bicubic"``: Keys' cubic kernel with ``a = −0.75`` on the four nearest values, no smoothing when the grid shrinks
      (``interpolate(mode="bicubic", align_corners=False)`` of torch: MAE, transformers).
    * ``"bicubic_offset"``: the same with the step ``source/(target + 0.1)`` in place of ``source/target`` (DINO, DINOv2).
    * ``"bicubic_antialias"``: ``a = −0.5``, the kernel stretched by ``source/target`` when the grid shrinks, weights beyond the
      ends left out and the others made to sum to 1 (torch's ``antialias=True``: timm, DINOv2 with registers).
    * ``"linear"``: the two nearest values (torch's ``"bilinear"``: relative positions in transformers).
    * ``"linear_corners"``: the two nearest values, samples at ``j (source − 1)/(target − 1)``: the ends stay (big_vision).

    Args:
      source: values given, ``>= 1``.
      target: values wanted, ``>= 1``.
      resize: one of :data:`RESIZES`.

    Returns:
      ``[target, source]`` float64, rows of sum 1; the identity where ``source == target``, but for ``"bicubic_offset"``.

    Raises:
      ValueError: ``resize`` is none of them.

    >>> resampling_matrix(2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> resampling_matrix(2, 3, resize="linear_corners").tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]

    References: Keys 1981, eq. 4 and 15 for the cubic kernel; facebookresearch/dinov2 ``interpolate_pos_encoding`` for the 0.1;
    google-research/big_vision ``resample_posemb`` for the corners.
    """
    check.choice("resize", resize, RESIZES)
    steps = np.arange(target)
    if resize == "bicubic_antialias":
        stretch = max(source / target, 1.0)
        distance = np.arange(source) + 0.5 - ((steps + 0.5) * (source / target))[:, None]
        weights = _keys_kernel(distance / stretch, a=-0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    if resize == "linear_corners":
        center = steps * ((source - 1) / max(target - 1, 1))
    else:
        length = target + 0.1 if resize == "bicubic_offset" else target
        center = (steps + 0.5) * (source / length) - 0.5
    reach = 1 if resize.startswith("linear") else 2
    taps = np.floor(center).astype(int)[:, None] + np.arange(1 - reach, 1 + reach)
    distance = np.abs(center[:, None] - taps)
    weights = 1 - distance if reach == 1 else _keys_kernel(distance, a=-0.75)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (steps[:, None], np.clip(taps, 0, source - 1)), weights)
    return matrix


def _keys_kernel(distance: np.ndarray, *, a: float) -> np.ndarray:
    distance = np.abs(distance)
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def resize_table(
    table: Float[Array, "length features"],
    *,
    source: tuple[int, int],
    target: tuple[int, int],
    resize: str = "bicubic",
) -> Float[Array, "new_length features"]:
    """Interpolate a position table to another grid, rows and columns as :func:`resampling_matrix` does a line.

    Args:
      table: ``[rows * columns, features]`` in row-major order; floating point.
      source: rows and columns of the table's grid.
      target: rows and columns wanted.
      resize: one of :data:`RESIZES`.

    Returns:
      ``[target rows * target columns, features]``; ``table`` itself where the grids are equal.

    >>> import jax.numpy as jnp
    >>> resize_table(jnp.ones((4, 3)), source=(2, 2), target=(3, 5)).shape
    (15, 3)

    Reference: MAE, ``util/pos_embed.py``, for ``"bicubic"``.
    """
    if source == target:
        return table
    rows, columns = (
        resampling_matrix(s, t, resize=resize).astype(table.dtype)
        for s, t in zip(source, target, strict=True)
    )
    grid = table.reshape(*source, table.shape[-1])
    resized = jnp.einsum("ih,jw,hwd->ijd", rows, columns, grid, precision="highest")
    return resized.reshape(-1, table.shape[-1])


def relative_rows(height: int, width: int) -> int:
    """Count the rows of a table of relative positions: one for each distance of two patches, three for prefix tokens.

    >>> relative_rows(14, 14)
    732
    """
    return (2 * height - 1) * (2 * width - 1) + 3


def resize_relative_table(
    table: Float[Array, "rows heads"], *, source: tuple[int, int], target: tuple[int, int]
) -> Float[Array, "new_rows heads"]:
    """Interpolate a table of relative positions, see :func:`relative_index`, to another grid of patches.

    The rows of patches, a grid of ``2 height − 1`` by ``2 width − 1`` distances, are interpolated bilinearly (``"linear"`` in
    :func:`resampling_matrix`): a distance of ``d`` rows in the new grid is one of
    ``d (2 height − 1) / (2 new height − 1)`` in the table, at most its greatest. The last three rows stay.

    Args:
      table: ``[relative_rows(*source), heads]``; floating point.
      source: rows and columns of patches that the table is for.
      target: rows and columns of patches wanted.

    Returns:
      ``[relative_rows(*target), heads]``; ``table`` itself where the grids are equal.

    >>> import jax.numpy as jnp
    >>> resize_relative_table(jnp.ones((12, 3)), source=(2, 2), target=(3, 4)).shape
    (38, 3)

    Reference: transformers, ``BeitRelativePositionBias``, after Birkl et al. 2023 (MiDaS 3.1). BEiT's own fine-tuning and timm
    interpolate by a spline over distances in geometric progression; this does not.
    """
    if source == target:
        return table
    distances, prefix = table[:-3], table[-3:]
    height, width = ((2 * s - 1, 2 * t - 1) for s, t in zip(source, target, strict=True))
    grids = {"source": (height[0], width[0]), "target": (height[1], width[1])}
    return jnp.concatenate([resize_table(distances, **grids, resize="linear"), prefix])


@functools.cache
def relative_index(height: int, width: int, prefix: int) -> Int[np.ndarray, "n n"]:
    """Index a table of relative positions for every pair of tokens ``[prefix tokens, patches in row-major order]``.

    Patch (y, x) to patch (y', x') has row ``(y − y' + height − 1)(2 width − 1) + (x − x' + width − 1)``; the last three of the
    ``(2 height − 1)(2 width − 1) + 3`` rows are for prefix to patch, patch to prefix, and prefix to prefix.

    Args:
      height: rows of the grid, ``>= 1``.
      width: columns of the grid, ``>= 1``.
      prefix: class and register tokens.

    Returns:
      ``[n, n]`` int32 with n = prefix + height · width, rows of queries and columns of keys; read-only.

    >>> relative_index(1, 2, 1).tolist()
    [[5, 3, 3], [4, 1, 0], [4, 2, 1]]

    Reference: Bao et al. 2021 (BEiT), microsoft/unilm ``beit/modeling_finetune.py``.
    """
    row, column = (axis.ravel() for axis in np.indices((height, width)))
    down = row[:, None] - row[None, :] + height - 1
    right = column[:, None] - column[None, :] + width - 1
    patches = (2 * height - 1) * (2 * width - 1)
    index = np.full((prefix + height * width,) * 2, patches + 2, np.int32)
    index[:prefix, prefix:], index[prefix:, :prefix] = patches, patches + 1
    index[prefix:, prefix:] = down * (2 * width - 1) + right
    index.setflags(write=False)
    return index
