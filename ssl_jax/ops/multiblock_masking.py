"""Context and target blocks of one image, as I-JEPA draws them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key
from ssl_jax.ops.block_masking import masked_positions


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
    """Draw blocks whose representations are predicted, and a large block around them without them, for a batch of images.

    One size of the target blocks and one of the context block are drawn for the batch; places are drawn for each image and
    block. With a share s and an aspect ratio r a block has ``h = round(√(⌊s L⌋ r))`` rows and ``w = round(√(⌊s L⌋ / r))``
    columns, at most one less than the grid for targets and at most the grid for the context, whose r is 1. The context is
    its block without the patches of all targets.

    Args:
      keys: ``[b]`` PRNG keys, one an image.
      size_key: PRNG key of the sizes, one a batch.
      grid: (rows, columns) of patches, 2 or more each.
      targets: number of target blocks, which may overlap.
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
