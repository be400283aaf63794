"""Masks over patches of changing size, as iBOT, DINOv2 and BEiT draw them: their shapes are static, their counts traced."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key


def masked_counts(
    key: Key,
    crops: int,
    length: int,
    *,
    share: ScalarLike = 0.5,
    ratio: tuple[float, float] = (0.1, 0.5),
    stratified: bool = False,
) -> Int[Array, " crops"]:
    """Draw how many patches of each crop to mask: a share of the crops gets a random ratio, the others none.

    With u in [0, 1) of a crop: ``⌊L (r₀ + (r₁ − r₀) u / share)⌋`` where ``u < share``, else 0.

    Args:
      key: PRNG key.
      crops: n, the crops of the whole batch.
      length: L, patches of a crop.
      share: share of the crops, in [0, 1].
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
    """Mask ``count`` patches drawn uniformly without replacement; the count may be traced, as shapes do not depend on it.

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
    """Mask at most ``count`` patches in rectangles, of which several may overlap.

    Rectangles are drawn one after the other: area uniform between ``min_area`` and the number of patches that may still be
    masked, logarithm of the aspect ratio uniform, place uniform. One is taken if it is smaller than the grid in both
    directions, hides something new and does not exceed the count.

    Args:
      key: PRNG key, one a crop.
      grid: (rows, columns) of patches, 2 or more each.
      count: int scalar, most patches to hide; may be traced, as shapes do not depend on it.
      min_area: least area of a rectangle, as drawn; ``None``: ``⌊min(rows, columns) / 3⌋²``, at least 1: 16 of 14 x 14, 1 of
        4 x 4.
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
    """Return the indices of the masked patches in a static number of places, so that only they need be computed.

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
