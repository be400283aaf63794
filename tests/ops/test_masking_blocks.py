"""Masks of changing size: counts, scattered patches, blocks, the places of masked patches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.block_masking import block_mask, masked_counts, masked_positions, scattered_mask


@functools.partial(jax.jit, static_argnames=("grid", "min_area"))
def blocks(keys, counts, grid=(14, 14), min_area=None):
    return jax.vmap(lambda key, count: block_mask(key, grid, count, min_area=min_area))(keys, counts)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_half_of_the_crops_get_a_ratio_between_the_bounds():
    counts = masked_counts(jax.random.key(0), 4000, 200, ratio=(0.1, 0.5))
    some = np.asarray(counts[counts > 0])
    assert counts.dtype == jnp.int32
    np.testing.assert_allclose(len(some) / 4000, 0.5, atol=5 * np.sqrt(0.25 / 4000))
    assert some.min() == 20 and some.max() <= 100
    np.testing.assert_allclose(some.mean(), 59.5, atol=5 * 80 / np.sqrt(12 * 2000))


def test_stratified_counts_are_the_same_set_but_for_jitter_in_another_order():
    first, second = (masked_counts(jax.random.key(k), 64, 1000, stratified=True) for k in (0, 1))
    assert (first > 0).sum() == (second > 0).sum() == 32
    strata = 100 + 400 * np.arange(33) / 32
    for counts in (first, second):
        some = np.sort(counts)[32:]
        assert (some >= np.floor(strata[:-1])).all() and (some <= strata[1:]).all()
    assert (first != second).any()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 8)])
def test_none_or_all_crops_are_masked(share, expected):
    assert (masked_counts(jax.random.key(0), 8, 100, share=share) > 0).sum() == expected


def test_scattered_masks_have_their_count_and_hide_every_patch_equally_often():
    counts = jnp.arange(4000) % 8
    masks = jax.jit(jax.vmap(lambda key, count: scattered_mask(key, 8, count)))(keys(4000), counts)
    np.testing.assert_array_equal(masks.sum(axis=1), counts)
    np.testing.assert_allclose(masks.mean(axis=0), 3.5 / 8, atol=5 * 0.5 / np.sqrt(4000))


@pytest.mark.parametrize("grid", [(14, 14), (4, 4), (6, 10), (2, 2)])
def test_blocks_never_exceed_their_count_and_nearly_reach_it(grid):
    length = grid[0] * grid[1]
    counts = jnp.arange(512) % (length // 2 + 1)
    masks = blocks(keys(512), counts, grid=grid)
    assert masks.shape == (512, length) and masks.dtype == bool
    found = masks.sum(axis=1)
    assert (found <= counts).all()
    # A count below the least area is hard to meet: most rectangles are too large.
    assert (found[counts >= max(1, (min(grid) // 3) ** 2)] > 0).all()
    assert found.sum() > 0.75 * counts.sum()


def test_hidden_patches_lie_together():
    """Neighbours agree far more often than with scattered patches of the same number."""
    counts = jnp.full(256, 70)

    def agreement(masks):
        masks = np.asarray(masks).reshape(-1, 14, 14)
        return (masks[:, :, 1:] == masks[:, :, :-1]).mean()

    scattered = jax.vmap(lambda key: scattered_mask(key, 196, jnp.int32(70)))(keys(256))
    assert agreement(blocks(keys(256), counts)) > 0.8 > 0.6 > agreement(scattered)


def test_one_block_is_a_rectangle_of_the_least_area():
    """With one attempt the union is one rectangle, or nothing where it did not fit."""
    mask = jax.jit(jax.vmap(lambda key: block_mask(key, (14, 14), jnp.int32(100), attempts=1)))(keys(200))
    sizes = []
    for one in np.asarray(mask).reshape(-1, 14, 14):
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert one.sum() == len(rows) * len(columns)
        if one.any():
            assert one[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
            assert 0.2 < len(rows) / len(columns) < 5
            sizes.append(one.sum())
    assert len(sizes) > 100 and min(sizes) >= 12  # 16, rounded to whole sides


def test_every_patch_can_be_hidden():
    assert blocks(keys(2000), jnp.full(2000, 60)).any(axis=0).all()
    assert blocks(keys(500), jnp.full(500, 5), grid=(4, 4)).any(axis=0).all()


def test_a_least_area_of_its_own_is_respected_at_the_small_end():
    large = blocks(keys(64), jnp.full(64, 60), min_area=40).sum(axis=1)
    assert (large[large > 0] >= 35).all()


def test_places_hold_the_hidden_patches_first_and_in_order():
    mask = jnp.array([[True, False, False, True], [False] * 4, [True] * 4])
    indices, filled = masked_positions(mask, 3)
    np.testing.assert_array_equal(indices, [[0, 3, 1], [0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(filled, [[True, True, False], [False] * 3, [True] * 3])
    assert indices.dtype == jnp.int32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masked_counts(jax.random.key(0), 4, 9, ratio=(0.5, 0.1)), "ratio="),
        (lambda: block_mask(jax.random.key(0), (1, 4), jnp.int32(1)), "grid="),
        (lambda: block_mask(jax.random.key(0), (4, 4), jnp.int32(1), aspect=(0.0, 1.0)), "aspect="),
        (lambda: block_mask(jax.random.key(0), (4, 4), jnp.int32(1), attempts=0), "attempts=0"),
        (lambda: block_mask(jax.random.key(0), (4, 4), jnp.int32(1), min_area=0), "min_area=0"),
        (lambda: masked_positions(jnp.zeros((2, 4), bool), 5), "most=5"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
