"""Masks over the patches of one image: which are masked, with static shapes. The caller vmaps."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key

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


def random_mask(key: Key, length: int, *, ratio: float) -> Mask:
    """Hide a fixed number of patches drawn uniformly without replacement, for one image.

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


def masked_counts(
    key: Key,
    crops: int,
    length: int,
    *,
    share: ScalarLike = 0.5,
    ratio: tuple[float, float] = (0.1, 0.5),
    stratified: bool = False,
) -> Int[Array, " crops"]:
    """How many patches of each crop to hide: a share of the crops gets a random ratio, the others none.

    With u in [0, 1) of a crop: ``⌊L (r₀ + (r₁ − r₀) u / share)⌋`` where ``u < share``, else 0.

    Args:
      key: PRNG key.
      crops: n, the crops of the whole batch.
      length: L, patches of a crop.
      share: of the crops, in [0, 1].
      ratio: (r₀, r₁), least and largest share of masked patches, 0 ≤ r₀ ≤ r₁ ≤ 1.
      stratified: u are a shuffle of ``(i + U) / n``, so that the number of crops with masked patches is ``share · n``,
        rounded, and their ratios are spread evenly (DINOv2); else u are independent and uniform (iBOT).

    Returns:
      ``[n]`` int32, at most ``⌊L r₁⌋``.

    Raises:
      ValueError: a ratio outside its range.

    Example:
      >>> import jax
      >>> counts = masked_counts(jax.random.key(0), 8, 100, stratified=True)
      >>> int((counts > 0).sum()), int(counts.max()) <= 50
      (4, True)

    References: Zhou et al., "iBOT", ICLR 2022, section 4.1 (ratio 0 with probability 1/2, else 0.3 ± 0.2); Oquab et al.,
    "DINOv2", 2023, facebookresearch/dinov2 ``data/collate.py``.
    """
    low, high = ratio
    check.require(0 <= low <= high <= 1, "ratio", ratio, "two shares in [0, 1], the smaller one first")
    order_key, jitter_key = jax.random.split(key)
    u = jax.random.uniform(jitter_key, (crops,))
    if stratified:
        u = (jax.random.permutation(order_key, crops) + u) / crops
    chosen = u < share
    ratios = low + (high - low) * u / jnp.where(chosen, share, 1.0)
    # The product may round up to the next integer only where u is 1, which it is not; the bound is kept all the same.
    counts = jnp.minimum(jnp.floor(length * ratios), int(length * high))
    return jnp.where(chosen, counts, 0).astype(jnp.int32)


def scattered_mask(key: Key, length: int, count: Int[Array, ""]) -> Bool[Array, " length"]:
    """Hide ``count`` patches drawn uniformly without replacement; the count may be traced, as shapes do not depend on it.

    Args:
      key: PRNG key, one a crop.
      length: L, the number of patches.
      count: int scalar in [0, L].

    Returns:
      ``[L]`` bool, True = masked.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> int(scattered_mask(jax.random.key(0), 16, jnp.int32(5)).sum())
      5
    """
    order = jnp.argsort(jax.random.uniform(key, (length,)))
    return jnp.argsort(order) < count


def block_mask(
    key: Key,
    grid: tuple[int, int],
    count: Int[Array, ""],
    *,
    min_area: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    attempts: int = 32,
) -> Bool[Array, " length"]:
    """Hide at most ``count`` patches in rectangles, of which several may overlap.

    Rectangles are drawn one after the other: area uniform between ``min_area`` and the number of patches that may still be
    masked, logarithm of the aspect ratio uniform, place uniform. One is taken if it is smaller than the grid in both
    directions, hides something new and does not exceed the count.

    Args:
      key: PRNG key, one a crop.
      grid: (rows, columns) of patches, 2 or more each.
      count: int scalar, most patches to hide; may be traced, as shapes do not depend on it.
      min_area: of a rectangle, as drawn; ``None``: ``⌊min(rows, columns) / 3⌋²``, at least 1: 16 of 14 x 14, 1 of 4 x 4.
      aspect: least and largest ratio of height to width, above 0.
      attempts: rectangles that are drawn. The number taken is smaller, and the count need not be reached.

    Returns:
      ``[rows · columns]`` bool in image order, True = masked.

    Raises:
      ValueError: a grid without room, or an option outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> mask = block_mask(jax.random.key(0), (14, 14), jnp.int32(60))
      >>> mask.shape, 0 < int(mask.sum()) <= 60
      ((196,), True)

    Reference: Bao et al., "BEiT", ICLR 2022, algorithm 1; iBOT takes ``min_area`` from the grid as here, DINOv2 takes 4.
    Deviation: their code stops when ten rectangles in a row did not fit, here after a fixed number, for static shapes.
    """
    rows, columns = grid
    check.require(min(grid) >= 2, "grid", grid, "2 patches or more in both directions")
    check.require(0 < aspect[0] <= aspect[1], "aspect", aspect, "two numbers above 0, the smaller one first")
    check.require(attempts >= 1, "attempts", attempts, "an integer of 1 or more")
    least = max(1, (min(grid) // 3) ** 2) if min_area is None else min_area
    check.require(least >= 1, "min_area", min_area, "an integer of 1 or more")
    # (area, aspect, top, left) of every attempt in [0, 1).
    draws = jax.random.uniform(key, (attempts, 4))
    log_low, log_high = jnp.log(aspect[0]), jnp.log(aspect[1])

    def attempt(mask: Array, draw: Array) -> tuple[Array, None]:
        left_over = count - jnp.sum(mask)
        area = least + (left_over - least) * draw[0]
        shape = jnp.exp(log_low + (log_high - log_low) * draw[1])
        height, width = jnp.round(jnp.sqrt(area * shape)), jnp.round(jnp.sqrt(area / shape))
        top = jnp.floor(draw[2] * (rows - height + 1))
        left = jnp.floor(draw[3] * (columns - width + 1))
        inside = numerics.rectangle(grid, top, left, height, width)
        new = jnp.sum(inside & ~mask)
        fits = (height < rows) & (width < columns) & (new > 0) & (new <= left_over)
        return jnp.where(fits, mask | inside, mask), None

    mask, _ = jax.lax.scan(attempt, jnp.zeros(grid, bool), draws)
    return mask.reshape(-1)


def masked_positions(
    mask: Bool[Array, "*batch length"], most: int
) -> tuple[Int[Array, "*batch most"], Bool[Array, "*batch most"]]:
    """Indices of the masked patches in a static number of places, so that only they need be computed.

    Args:
      mask: ``[..., L]``, True = masked, at most ``most`` of them in a row; further ones are lost.
      most: places, 1 to L.

    Returns:
      ``(indices, filled)``, both ``[..., most]``: int32 indices of the masked patches in image order, then of visible ones to
      fill up; bool, True where the place holds a masked patch.

    Raises:
      ValueError: ``most`` outside [1, L].

    Example:
      >>> import jax.numpy as jnp
      >>> indices, filled = masked_positions(jnp.array([False, True, False, True]), 3)
      >>> indices.tolist(), filled.tolist()
      ([1, 3, 0], [True, True, False])
    """
    length = mask.shape[-1]
    check.require(1 <= most <= length, "most", most, f"an integer from 1 to {length}, the number of patches")
    indices = jnp.argsort(~mask, axis=-1).astype(jnp.int32)[..., :most]
    return indices, jnp.take_along_axis(mask, indices, axis=-1)


def uniform_mask(key: Key, grid: tuple[int, int], *, window: int = 2) -> Mask:
    """Hide all but one patch of every ``window`` x ``window`` patches: the visible ones make a smaller, regular grid.

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
    """Hide all but the first patch of every ``window`` x ``window`` patches, in every image the same.

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
    places = jnp.arange(grid[0] * grid[1]).reshape(grid)
    return mask_of_visible(places[::window, ::window].reshape(-1), places.size)


def _windows(grid: tuple[int, int], window: int) -> tuple[int, int]:
    """Rows and columns of windows of which a grid is made."""
    rows, columns = grid
    check.require(window >= 2, "window", window, "an integer of 2 or more")
    fits = rows % window == 0 and columns % window == 0
    check.require(fits, "grid", grid, f"multiples of window={window}")
    return rows // window, columns // window


def mask_of_visible(keep: Int[Array, " k"], length: int) -> Mask:
    """The mask that leaves these patches visible, in this order.

    >>> import jax.numpy as jnp
    >>> mask = mask_of_visible(jnp.array([2, 0]), 4)
    >>> mask.restore.tolist(), mask.masked.tolist()
    ([1, 2, 0, 3], [False, True, False, True])
    """
    keep = keep.astype(jnp.int32)
    masked = jnp.ones(length, bool).at[keep].set(False)
    places = len(keep) + jnp.cumsum(masked, dtype=jnp.int32) - 1
    restore = places.at[keep].set(jnp.arange(len(keep), dtype=jnp.int32))
    return Mask(keep, restore, masked)


def filled_block_mask(key: Key, grid: tuple[int, int], count: int, **options: Any) -> Mask:
    """Hide exactly ``count`` patches: those of :func:`block_mask`, and random ones for what that leaves short.

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


def unit_mask(
    key: Key, grid: tuple[int, int], *, unit: int = 1, ratio: float = 0.6
) -> Bool[Array, " length"]:
    """Hide squares of ``unit`` x ``unit`` patches drawn uniformly without replacement.

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


def mask_of_kind(
    key: Key, grid: tuple[int, int], *, kind: str = "random", ratio: float = 0.75, unit: int = 1
) -> Mask:
    """A mask of the kind that a method's option names, always with the same number of masked patches.

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


class Blocks(NamedTuple):
    """Context and targets of one image, at static shapes: places beyond what was drawn hold other patches and are not filled.

    Attributes:
      context: ``[c]`` int32 indices of the patches that the context encoder sees.
      context_filled: ``[c]`` bool, True where the place counts.
      targets: ``[t, n]`` int32 indices of the patches of each target block.
      targets_filled: ``[t, n]`` bool.
    """

    context: Int[Array, " c"]
    context_filled: Bool[Array, " c"]
    targets: Int[Array, "t n"]
    targets_filled: Bool[Array, "t n"]


def multiblock(
    keys: Key,
    size_key: Key,
    grid: tuple[int, int],
    *,
    targets: int = 4,
    target_scale: tuple[float, float] = (0.15, 0.2),
    target_aspect: tuple[float, float] = (0.75, 1.5),
    context_scale: tuple[float, float] = (0.85, 1.0),
    least_context: int = 1,
    truncate: bool = False,
) -> Blocks:
    """Blocks whose representations are predicted, and a large block around them without them, for a batch of images.

    One size of the target blocks and one of the context block are drawn for the batch; places are drawn for each image and
    block. With a share s and an aspect ratio r a block has ``h = round(√(⌊s L⌋ r))`` rows and ``w = round(√(⌊s L⌋ / r))``
    columns, at most one less than the grid for targets and at most the grid for the context, whose r is 1. The context is
    its block without the patches of all targets.

    Args:
      keys: ``[b]`` PRNG keys, one an image.
      size_key: PRNG key of the sizes, one a batch.
      grid: (rows, columns) of patches, 2 or more each.
      targets: how many target blocks, which may overlap.
      target_scale: least and largest share of the patches in a target block; uniform.
      target_aspect: least and largest ratio of its height to its width; uniform, not its logarithm.
      context_scale: least and largest share of the patches in the context block; uniform.
      least_context: patches that the context has at least. Where the targets leave fewer it takes further ones: first those
        that nobody wants, then those of the last target, which that one then lacks, and so on.
      truncate: as in the authors' code, cut all contexts of the batch to the size of the smallest one, in raster order, and
        let no block reach the last row and column. Contexts are then smaller, the more the larger the batch, and lie at the
        top of the image.

    Returns:
      :class:`Blocks` with a leading axis b on every field; c and n are bounds that depend on the options alone.

    Raises:
      ValueError: an option outside its range.

    Example:
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> blocks = multiblock(keys, jax.random.key(1), (8, 8))
      >>> blocks.targets.shape, blocks.context.shape
      ((3, 4, 12), (3, 56))

    Reference: Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", CVPR 2023,
    appendix A.1; facebookresearch/ijepa ``src/masks/multiblock.py``, which wants more than 10 patches of context and draws
    again, up to 20 times, then lets targets go.
    """
    rows, columns = grid
    length = rows * columns
    check.require(min(grid) >= 2, "grid", grid, "2 patches or more in both directions")
    check.require(targets >= 1, "targets", targets, "an integer of 1 or more")
    check.require(
        1 <= least_context <= length // 2, "least_context", least_context, f"1 to {length // 2} patches"
    )
    for name, (low, high) in {"target_scale": target_scale, "context_scale": context_scale}.items():
        check.require(0 < low <= high <= 1, name, (low, high), "two shares in (0, 1], the smaller one first")
    low, high = target_aspect
    check.require(0 < low <= high, "target_aspect", target_aspect, "two numbers above 0, the smaller first")

    scale_u, aspect_u, context_u = jax.random.uniform(size_key, (3,))
    area, around_area = (
        jnp.floor(length * (least + u * (most - least)))
        for u, (least, most) in ((scale_u, target_scale), (context_u, context_scale))
    )
    aspect = low + aspect_u * (high - low)
    height = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, rows - 1)
    width = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, columns - 1)
    side = jnp.round(jnp.sqrt(around_area))
    # The authors' draw excludes the last place.
    reach = 0 if truncate else 1

    def block(key: Key, h: Array, w: Array) -> Array:
        u = jax.random.uniform(key, (2,))
        top = jnp.floor(u[0] * jnp.maximum(rows - h + reach, 1))
        left = jnp.floor(u[1] * jnp.maximum(columns - w + reach, 1))
        return numerics.rectangle(grid, top, left, h, w).reshape(-1)

    def one(key: Key) -> tuple[Array, Array]:
        *target_keys, context_key = jax.random.split(key, targets + 1)
        masked = jnp.stack([block(k, height, width) for k in target_keys])
        # The official context leaves the last row and column out too.
        most = (rows - 1, columns - 1) if truncate else grid
        around = block(context_key, jnp.minimum(side, most[0]), jnp.minimum(side, most[1]))
        # Patches by the last block that wants them: free ones first, then those of the last block.
        wanted_by = jnp.max(jnp.where(masked, jnp.arange(targets, 0, -1)[:, None], 0), axis=0)
        free = around & (wanted_by == 0)
        order = jnp.argsort(jnp.argsort(jnp.where(free, 0, 1 + wanted_by)))
        context = free | (order < least_context)
        return context, masked & ~context

    context, masked = jax.vmap(one)(keys)
    sizes = jnp.sum(context, axis=-1)
    smallest, largest = _block_bounds(grid, target_scale, target_aspect)
    chosen, filled = masked_positions(context, max(length - smallest, least_context))
    if truncate:
        filled &= jnp.arange(filled.shape[1]) < jnp.min(sizes)
    return Blocks(chosen, filled, *masked_positions(masked, largest))


def _block_bounds(
    grid: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int]:
    """Least and largest number of patches in a target block, with a margin for rounding in float32."""
    rows, columns = grid
    areas = [max(math.floor(rows * columns * share), 1) for share in scale]
    sizes = []
    for height in range(1, rows):
        for area, rounding in zip(areas, (-1e-3, 1e-3), strict=True):
            # Aspect ratios that give this height.
            narrow = max(aspect[0], (height - 0.5 - 1e-3) ** 2 / area)
            wide = min(aspect[1], (height + 0.5 + 1e-3) ** 2 / area)
            if height == 1:
                narrow = aspect[0]
            if height == rows - 1:
                wide = aspect[1]
            if narrow <= wide:
                ratio = wide if rounding < 0 else narrow
                width = math.floor(math.sqrt(area / ratio) + 0.5 + rounding)
                sizes.append(height * min(max(width, 1), columns - 1))
    return min(sizes), max(sizes)
