"""Uniform, grid, block, unit and multi-block masks: counts, places, statistics against draws in numpy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.block_masking import block_mask
from ssl_jax.ops.masking import (
    filled_block_mask,
    grid_mask,
    mask_of_kind,
    mask_of_visible,
    uniform_mask,
    unit_mask,
)
from ssl_jax.ops.multiblock_masking import multiblock


def many(function, count=400):
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), count)))


def assert_consistent(mask, length):
    """``keep``, ``restore`` and ``masked`` say the same."""
    for keep, restore, masked in zip(*mask, strict=True):
        assert sorted(keep) == [i for i in range(length) if not masked[i]]
        np.testing.assert_array_equal(restore[keep], np.arange(len(keep)))
        assert sorted(restore) == list(range(length))


@pytest.mark.parametrize(("grid", "window"), [((4, 6), 2), ((6, 3), 3)])
def test_uniform_mask_leaves_one_patch_of_every_window_in_raster_order_and_each_equally_often(grid, window):
    mask = many(lambda key: uniform_mask(key, grid, window=window), 2000)
    assert_consistent([x[:50] for x in mask], grid[0] * grid[1])
    rows, columns = grid[0] // window, grid[1] // window
    visible = ~mask.masked.reshape(-1, rows, window, columns, window)
    assert (visible.sum(axis=(2, 4)) == 1).all()
    windows = [(k // grid[1] // window) * columns + k % grid[1] // window for k in mask.keep[0]]
    assert windows == list(range(rows * columns))
    share = 1 / window**2
    # Six standard deviations of a binomial share.
    np.testing.assert_allclose(visible.mean(axis=0), share, atol=6 * math.sqrt(share * (1 - share) / 2000))


def test_grid_mask_keeps_the_first_of_every_window():
    mask = grid_mask((4, 4))
    assert mask.keep.tolist() == [0, 2, 8, 10]
    assert_consistent([x[None] for x in jax.tree.map(np.asarray, mask)], 16)


def test_mask_of_visible_keeps_the_order_it_is_given():
    mask = mask_of_visible(jnp.array([5, 1, 3]), 6)
    tokens = jnp.arange(6)
    slots = jnp.concatenate([tokens[mask.keep], jnp.full(3, -1)])[mask.restore]
    assert slots.tolist() == [-1, 1, -1, 3, -1, 5]


@pytest.mark.parametrize("count", [1, 8, 15])
def test_filled_block_mask_hides_the_blocks_and_exactly_the_count(count):
    mask = many(lambda key: filled_block_mask(key, (4, 4), count), 100)
    assert_consistent(mask, 16)
    assert (mask.masked.sum(axis=1) == count).all()
    blocks = many(lambda key: block_mask(jax.random.split(key)[0], (4, 4), jnp.int32(count)), 100)
    assert (mask.masked >= blocks).all()


@pytest.mark.parametrize(("grid", "unit", "ratio", "units"), [((12, 12), 2, 0.6, 22), ((14, 14), 2, 0.6, 30)])
def test_unit_mask_hides_whole_squares_as_many_as_simmim(grid, unit, ratio, units):
    masked = many(lambda key: unit_mask(key, grid, unit=unit, ratio=ratio), 50)
    squares = masked.reshape(-1, grid[0] // unit, unit, grid[1] // unit, unit)
    assert (squares.any(axis=(2, 4)) == squares.all(axis=(2, 4))).all()
    assert (squares.all(axis=(2, 4)).sum(axis=(1, 2)) == units).all()


@pytest.mark.parametrize(
    ("kind", "ratio", "unit", "masked"),
    [
        ("random", 0.6, 1, 39),
        ("random", 0.6, 2, 40),
        ("block", 0.4, 1, 26),
        ("grid", 0.75, 1, 48),
        ("uniform", 0.75, 1, 48),
        ("uniform", 0.9375, 1, 60),
    ],
)
def test_masks_of_every_kind_hide_a_fixed_number(kind, ratio, unit, masked):
    mask = many(lambda key: mask_of_kind(key, (8, 8), kind=kind, ratio=ratio, unit=unit), 20)
    assert_consistent(mask, 64)
    assert (mask.masked.sum(axis=1) == masked).all()
    assert len({tuple(row) for row in mask.masked}) == (1 if kind == "grid" else 20)


# Multi-block.

GRID = (8, 8)


def blocks_of(seed, batch=16, **options):
    keys = jax.random.split(jax.random.key(seed), batch)
    return jax.tree.map(np.asarray, draw(batch, **options)(keys, jax.random.key(1000 + seed)))


@functools.cache
def draw(batch, **options):
    del batch
    return jax.jit(functools.partial(multiblock, grid=GRID, **options))


def as_masks(indices, filled):
    masks = np.zeros((*indices.shape[:-1], GRID[0] * GRID[1]), bool)
    for place in np.ndindex(indices.shape):
        masks[(*place[:-1], indices[place])] |= filled[place]
    return masks


def test_targets_are_rectangles_of_one_size_a_batch_and_the_context_is_what_they_leave_of_a_square():
    for seed in range(20):
        blocks = blocks_of(seed)
        targets = as_masks(blocks.targets, blocks.targets_filled).reshape(16, 4, *GRID)
        context = as_masks(blocks.context, blocks.context_filled).reshape(16, *GRID)
        sizes = {(t.any(axis=1).sum(), t.any(axis=0).sum(), t.sum()) for t in targets.reshape(-1, *GRID)}
        ((height, width, area),) = sizes
        assert height * width == area
        assert not (context[:, None] & targets).any()
        assert (context.sum(axis=(1, 2)) >= 1).all()


def test_sizes_have_the_distribution_of_a_draw_in_numpy():
    found = np.array([blocks_of(seed, batch=2).targets_filled[0, 0].sum() for seed in range(800)])
    rng = np.random.default_rng(0)
    expected = []
    for _ in range(20_000):
        area = math.floor(64 * rng.uniform(0.15, 0.2))
        aspect = rng.uniform(0.75, 1.5)
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        expected.append(min(height, 7) * min(width, 7))
    assert set(found) <= set(expected)
    # Six standard errors.
    band = 6 * np.std(expected) / math.sqrt(len(found))
    assert abs(found.mean() - np.mean(expected)) < band


def test_every_place_can_be_context_and_target_unless_the_authors_draw_is_asked_for():
    for truncate, edge in ((False, True), (True, False)):
        options = {"truncate": True} if truncate else {}
        drawn = [blocks_of(seed, **options) for seed in range(40)]
        seen = {
            "targets": np.any(
                [as_masks(b.targets, b.targets_filled).any(axis=(0, 1)) for b in drawn], axis=0
            ),
            "context": np.any([as_masks(b.context, b.context_filled).any(axis=0) for b in drawn], axis=0),
        }
        for places in seen.values():
            grid = places.reshape(GRID)
            assert grid[:-1, :-1].all()
            assert grid[-1].any() == grid[:, -1].any() == edge


def test_truncation_cuts_all_contexts_of_a_batch_to_the_smallest():
    blocks = blocks_of(3, truncate=True)
    sizes = blocks.context_filled.sum(axis=1)
    assert len(set(sizes)) == 1
    whole = blocks_of(3)
    assert len(set(whole.context_filled.sum(axis=1))) > 1
    # What remains are the first in raster order.
    assert (np.diff(np.where(blocks.context_filled, blocks.context, 99), axis=1)[:, : sizes[0] - 1] > 0).all()


def test_a_context_that_would_be_too_small_takes_patches_back_from_the_last_targets():
    options = {"target_scale": (0.9, 0.9), "target_aspect": (1.0, 1.0), "least_context": 20}
    blocks = blocks_of(0, **options)
    context = as_masks(blocks.context, blocks.context_filled)
    targets = as_masks(blocks.targets, blocks.targets_filled)
    assert (context.sum(axis=1) >= 20).all()
    assert not (context[:, None] & targets).any()
    assert (targets[:, 0].sum(axis=1) >= targets[:, 3].sum(axis=1)).all()


@pytest.mark.parametrize("grid", [(4, 4), (7, 5), (14, 14), (16, 16)])
def test_every_draw_fits_the_static_bounds(grid):
    function = jax.jit(functools.partial(multiblock, grid=grid, least_context=1))
    for seed in range(30):
        keys = jax.random.split(jax.random.key(seed), 8)
        blocks = function(keys, jax.random.key(seed))
        # A block that did not fit its places would have lost its corner.
        for indices, filled in zip(
            np.asarray(blocks.targets), np.asarray(blocks.targets_filled), strict=True
        ):
            for places, there in zip(indices, filled, strict=True):
                rows, columns = np.unique(places[there] // grid[1]), np.unique(places[there] % grid[1])
                assert there.sum() <= len(rows) * len(columns)
                assert there.sum() >= 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: uniform_mask(jax.random.key(0), (3, 4)), r"grid=\(3, 4\).*window=2"),
        (lambda: uniform_mask(jax.random.key(0), (4, 4), window=1), "window=1"),
        (lambda: grid_mask((4, 5)), r"grid=\(4, 5\)"),
        (lambda: filled_block_mask(jax.random.key(0), (4, 4), 16), "count=16.*1 to 15"),
        (lambda: unit_mask(jax.random.key(0), (4, 4), unit=3), "unit=3"),
        (lambda: unit_mask(jax.random.key(0), (4, 4), ratio=1.0), r"ratio=1\.0"),
        (lambda: mask_of_kind(jax.random.key(0), (4, 4), kind="cross"), "mask='cross'"),
        (lambda: mask_of_kind(jax.random.key(0), (4, 4), kind="grid", ratio=0.5), r"ratio=0\.5.*0\.75"),
        (lambda: mask_of_kind(jax.random.key(0), (4, 4), kind="block", unit=2), "unit=2"),
        (lambda: mask_of_kind(jax.random.key(0), (4, 4), ratio=0.9, unit=2), r"ratio=0\.9"),
        (lambda: many_blocks(grid=(1, 4)), r"grid=\(1, 4\)"),
        (lambda: many_blocks(targets=0), "targets=0"),
        (lambda: many_blocks(target_scale=(0.3, 0.2)), "target_scale"),
        (lambda: many_blocks(target_aspect=(0.0, 1.0)), "target_aspect"),
        (lambda: many_blocks(least_context=40), "least_context=40.*1 to 32"),
    ],
)
def test_bad_input_is_refused_by_name(function, message):
    with pytest.raises(ValueError, match=message):
        function()


def many_blocks(grid=GRID, **options):
    return multiblock(jax.random.split(jax.random.key(0), 2), jax.random.key(1), grid, **options)
