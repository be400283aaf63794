"""Masks over the patches of one image of which a fixed number is masked, with static shapes. The caller vmaps."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ssl_jax.core import check
from ssl_jax.core.types import Array, Key
from ssl_jax.ops.block_masking import block_mask, scattered_mask

KINDS = ("random", "block", "grid", "uniform")


class Mask(NamedTuple):
    """Which of L patches are masked, with the indices to drop them and to put them back.

    Attributes:
      keep: ``[k]`` int32 indices of the visible patches, in the order in which the encoder sees them.
      restore: ``[L]`` int32: ``concatenate([visible, masked])[restore]`` puts tokens back in image order,
        where ``visible = tokens[keep]`` and the masked ones may be L − k copies of a mask token.
      masked: ``[L]`` bool, True = masked, in image order.
    """

    keep: Int[Array, " k"]
    restore: Int[Array, " length"]
    masked: Bool[Array, " length"]


def mask_of_kind(
    key: Key, grid: tuple[int, int], *, kind: str = "random", ratio: float = 0.75, unit: int = 1
) -> Mask:
    """Draw a mask of the kind that a method's option names, always with the same number of masked patches.

    Args:
      key: PRNG key, one an image.
      grid: (rows, columns) of patches.
      kind: ``"random"``: :func:`random_mask`, or squares of ``unit`` patches a side (:func:`unit_mask`); ``"block"``:
        :func:`filled_block_mask`; ``"grid"`` and ``"uniform"``: :func:`grid_mask`, :func:`uniform_mask`, with the window that
        hides the share.
      ratio: share of masked patches in (0, 1); ``1 − 1/window²``, such as 0.75, for ``"grid"`` and ``"uniform"``.
      unit: side of a square in patches, for ``"random"``.

    Returns:
      A :class:`Mask`.

    Raises:
      ValueError: an unknown kind, or a ratio, unit or grid that it cannot do.

    Example:
      >>> import jax
      >>> [int(mask_of_kind(jax.random.key(0), (4, 4), kind=kind).masked.sum()) for kind in KINDS]
      [12, 12, 12, 12]
    """
    check.choice("mask", kind, KINDS)
    check.require(unit == 1 or kind == "random", "unit", unit, f"1 for masks of kind {kind!r}")
    length = grid[0] * grid[1]
    if kind == "random":
        if unit == 1:
            return random_mask(key, length, ratio=ratio)
        masked = unit_mask(key, grid, unit=unit, ratio=ratio)
        units = length // unit**2
        count = (units - math.ceil(units * ratio)) * unit**2
        check.require(count >= 1, "ratio", ratio, f"a share that leaves one of {units} squares visible")
        return mask_of_visible(jnp.argsort(masked, stable=True)[:count], length)
    if kind == "block":
        return filled_block_mask(key, grid, length - int(length * (1 - ratio)))
    window = round((1 - ratio) ** -0.5)
    fits = window >= 2 and abs(1 - 1 / window**2 - ratio) < 1e-3
    check.require(fits, "ratio", ratio, f"1 - 1/window² for masks of kind {kind!r}: 0.75, 0.889, 0.9375")
    return grid_mask(grid, window=window) if kind == "grid" else uniform_mask(key, grid, window=window)


def random_mask(key: Key, length: int, *, ratio: float) -> Mask:
    """Mask a fixed number of patches drawn uniformly without replacement, for one image.

    Args:
      key: PRNG key, one an image.
      length: L, the number of patches.
      ratio: share of masked patches in [0, 1); ``int(L (1 − ratio))`` patches stay visible.

    Returns:
      A :class:`Mask`.

    Raises:
      ValueError: a ratio outside [0, 1), or one that leaves no patch visible.

    Example:
      >>> import jax
      >>> mask = random_mask(jax.random.key(0), 16, ratio=0.75)
      >>> mask.keep.shape, int(mask.masked.sum())
      ((4,), 12)

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3.
    """
    return mask_from_noise(jax.random.uniform(key, (length,)), ratio=ratio)


def mask_from_noise(noise: Float[Array, " length"], *, ratio: float) -> Mask:
    """Keep the patches with the smallest noise visible: the deterministic core of :func:`random_mask`.

    Args:
      noise: ``[L]`` any float dtype; equal values count in image order.
      ratio: share of masked patches in [0, 1). As in the authors' code ``int(L (1 − ratio))``, a product of
        floats that is truncated, stay visible: ratio 0.9 of 100 patches leaves 9, since 1 − 0.9 < 0.1 in
        floating point.

    Returns:
      A :class:`Mask`.

    Raises:
      ValueError: a ratio outside [0, 1), or one that leaves no patch visible.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = mask_from_noise(jnp.array([0.9, 0.1, 0.5, 0.3]), ratio=0.5)
      >>> mask.keep.tolist(), mask.restore.tolist(), mask.masked.tolist()
      ([1, 3], [3, 0, 2, 1], [True, False, True, False])
    """
    length = noise.shape[0]
    visible = int(length * (1 - ratio))
    check.require(0 <= ratio < 1, "ratio", ratio, "a share in [0, 1)")
    check.require(
        visible >= 1, "ratio", ratio, f"a share that leaves at least one of {length} patches visible"
    )
    order = jnp.argsort(noise).astype(jnp.int32)
    restore = jnp.argsort(order).astype(jnp.int32)
    return Mask(keep=order[:visible], restore=restore, masked=restore >= visible)


def mask_of_visible(keep: Int[Array, " k"], length: int) -> Mask:
    """Make the mask that leaves these patches visible, in this order.

    >>> import jax.numpy as jnp
    >>> mask = mask_of_visible(jnp.array([2, 0]), 4)
    >>> mask.restore.tolist(), mask.masked.tolist()
    ([1, 2, 0, 3], [False, True, False, True])
    """
    keep = keep.astype(jnp.int32)
    masked = jnp.ones(length, bool).at[keep].set(False)
    positions = len(keep) + jnp.cumsum(masked, dtype=jnp.int32) - 1
    restore = positions.at[keep].set(jnp.arange(len(keep), dtype=jnp.int32))
    return Mask(keep, restore, masked)


def unit_mask(
    key: Key, grid: tuple[int, int], *, unit: int = 1, ratio: float = 0.6
) -> Bool[Array, " length"]:
    """Mask squares of ``unit`` x ``unit`` patches drawn uniformly without replacement.

    ``⌈units · ratio⌉`` of the ``(rows/unit)(columns/unit)`` squares are masked.

    Args:
      key: PRNG key, one an image.
      grid: (rows, columns) of patches, multiples of ``unit``.
      unit: side of a square in patches: 2 is SimMIM's 32 pixels at patches of 16.
      ratio: share of masked squares, in (0, 1).

    Returns:
      ``[rows · columns]`` bool in image order, True = masked.

    Raises:
      ValueError: a grid that is not made of squares, or a ratio outside (0, 1).

    Example:
      >>> import jax
      >>> mask = unit_mask(jax.random.key(0), (4, 4), unit=2, ratio=0.6)
      >>> int(mask.sum())  # 3 of 4 squares
      12

    Reference: Xie et al., "SimMIM", CVPR 2022; microsoft/SimMIM ``data/data_simmim.py`` (the rounding).
    """
    rows, columns = grid
    check.require(unit >= 1, "unit", unit, "an integer of 1 or more")
    check.require(rows % unit == 0 and columns % unit == 0, "grid", grid, f"multiples of unit={unit}")
    check.require(0 < ratio < 1, "ratio", ratio, "a share in (0, 1)")
    shape = (rows // unit, columns // unit)
    units = shape[0] * shape[1]
    chosen = scattered_mask(key, units, jnp.int32(math.ceil(units * ratio))).reshape(shape)
    return jnp.repeat(jnp.repeat(chosen, unit, 0), unit, 1).reshape(-1)


def filled_block_mask(key: Key, grid: tuple[int, int], count: int, **options: Any) -> Mask:
    """Mask exactly ``count`` patches: those of :func:`block_mask`, and random ones for what that leaves short.

    Args:
      key: PRNG key, one an image.
      grid: (rows, columns) of patches, 2 or more each.
      count: patches to hide, 1 to all but one.
      **options: ``min_area``, ``aspect`` and ``attempts`` of :func:`block_mask`.

    Returns:
      A :class:`Mask`, the visible patches in raster order.

    Raises:
      ValueError: a count or option outside its range.

    Example:
      >>> import jax
      >>> mask = filled_block_mask(jax.random.key(0), (4, 4), 6)
      >>> int(mask.masked.sum()), mask.keep.shape
      (6, (10,))

    Reference: the block-wise masking of BEiT at the static shapes that MAE needs (He et al. 2022, figure 6, "block").
    """
    length = grid[0] * grid[1]
    check.require(1 <= count < length, "count", count, f"an integer from 1 to {length - 1}")
    block_key, fill_key = jax.random.split(key)
    blocks = block_mask(block_key, grid, jnp.int32(count), **options)
    # Patches of the blocks first, then the others in random order.
    order = jnp.argsort(jnp.where(blocks, -1.0, jax.random.uniform(fill_key, (length,))))
    return mask_of_visible(jnp.sort(order[count:]), length)


def uniform_mask(key: Key, grid: tuple[int, int], *, window: int = 2) -> Mask:
    """Mask all but one patch of every ``window`` x ``window`` patches: the visible ones make a smaller, regular grid.

    Args:
      key: PRNG key, one an image.
      grid: (rows, columns) of patches, multiples of ``window``.
      window: side in patches, 2 or more; ``1 − 1/window²`` of the patches are masked.

    Returns:
      A :class:`Mask`, the visible patches in raster order of the windows.

    Raises:
      ValueError: a grid that is not made of windows.

    Example:
      >>> import jax
      >>> mask = uniform_mask(jax.random.key(0), (4, 4))
      >>> mask.keep.shape, mask.masked.reshape(2, 2, 2, 2).sum(axis=(1, 3)).tolist()
      ((4,), [[3, 3], [3, 3]])

    Reference: Li et al., "Uniform Masking: Enabling MAE Pre-training for Pyramid-based Vision Transformers with Locality",
    2022, section 3. Deviation: places are independent and uniform; the authors' code draws the patterns of an image without
    replacement from a balanced pool.
    """
    counts = _windows(grid, window)
    place = jax.random.randint(key, counts, 0, window * window)
    row = jnp.arange(counts[0])[:, None] * window + place // window
    column = jnp.arange(counts[1])[None, :] * window + place % window
    return mask_of_visible((row * grid[1] + column).reshape(-1), grid[0] * grid[1])


def grid_mask(grid: tuple[int, int], *, window: int = 2) -> Mask:
    """Mask all but the first patch of every ``window`` x ``window`` patches, in every image the same.

    Args:
      grid: (rows, columns) of patches, multiples of ``window``.
      window: side in patches, 2 or more.

    Returns:
      A :class:`Mask`, the visible patches in raster order.

    Raises:
      ValueError: a grid that is not made of windows.

    Example:
      >>> grid_mask((2, 4)).keep.tolist()
      [0, 2]

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, figure 6 (grid-wise sampling).
    """
    _windows(grid, window)
    positions = jnp.arange(grid[0] * grid[1]).reshape(grid)
    return mask_of_visible(positions[::window, ::window].reshape(-1), positions.size)


def _windows(grid: tuple[int, int], window: int) -> tuple[int, int]:
    """Rows and columns of windows of which a grid is made."""
    rows, columns = grid
    check.require(window >= 2, "window", window, "an integer of 2 or more")
    fits = rows % window == 0 and columns % window == 0
    check.require(fits, "grid", grid, f"multiples of window={window}")
    return rows // window, columns // window
