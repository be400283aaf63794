"""Position tables of patch grids: the fixed sine-cosine table of MAE, and moving a table to another grid."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.types import Array


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


def bicubic_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """Compute the matrix that resamples ``source`` values along a line to ``target`` values by cubic convolution.

    Sample ``j`` lies at ``(j + 1/2) · source/target − 1/2``; weights are Keys' cubic kernel with ``a =
    −0.75`` on the four nearest values, values beyond the ends repeating the last one. No smoothing when the
    grid shrinks. This is ``torch.nn.functional.interpolate(mode="bicubic", align_corners=False)``. The
    identity where ``source == target``.

    >>> bicubic_matrix(2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    a = -0.75
    center = (np.arange(target) + 0.5) * (source / target) - 0.5
    taps = np.floor(center).astype(int)[:, None] + np.arange(-1, 3)
    distance = np.abs(center[:, None] - taps)
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], np.clip(taps, 0, source - 1)), weights)
    return matrix


def resize_table(
    table: Float[Array, "length features"], *, source: tuple[int, int], target: tuple[int, int]
) -> Float[Array, "new_length features"]:
    """Interpolate a position table to another grid by cubic convolution, as MAE fine-tunes at other sizes.

    Args:
      table: ``[rows * columns, features]`` in row-major order; floating point.
      source: rows and columns of the table's grid.
      target: rows and columns wanted.

    Returns:
      ``[target rows * target columns, features]``; ``table`` itself where the grids are equal.

    >>> import jax.numpy as jnp
    >>> resize_table(jnp.ones((4, 3)), source=(2, 2), target=(3, 5)).shape
    (15, 3)

    Reference: MAE, ``util/pos_embed.py``. DINO adds 0.1 to the target grid before it computes the scale; this
    does not.
    """
    if source == target:
        return table
    rows, columns = (bicubic_matrix(s, t).astype(table.dtype) for s, t in zip(source, target, strict=True))
    grid = table.reshape(*source, table.shape[-1])
    resized = jnp.einsum("ih,jw,hwd->ijd", rows, columns, grid, precision="highest")
    return resized.reshape(-1, table.shape[-1])


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
