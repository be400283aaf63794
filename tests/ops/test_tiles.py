"""Tiles: where they lie, what is done to their colours; pairs, permutations and halved images."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.tiles import (
    FILTERS,
    Layout,
    PatchGrid,
    cut_patches,
    cut_tiles,
    halve,
    make_tiles,
    neighbor_pairs,
    permutations,
)


def places(count, height, width, layout, channels=1):
    """Corners ``[count, tiles, channels, 2]`` of tiles of an image whose pixels hold their own place."""
    image = jnp.arange(height * width).reshape(height, width, 1) * jnp.ones(channels, int)
    keys = jax.random.split(jax.random.key(0), count)
    tiles = np.asarray(jax.jit(jax.vmap(lambda key: cut_tiles(key, image, layout)))(keys))
    corner = tiles[:, :, 0, 0]
    rows, columns = np.ogrid[: layout.tile, : layout.tile]
    whole = corner[:, :, None, None] + (rows * width + columns)[..., None]
    np.testing.assert_array_equal(tiles, whole)
    return np.stack([corner // width, corner % width], axis=-1)


def test_tiles_are_crops_inside_their_cells_of_a_grid_that_lies_anywhere():
    layout = Layout(grid=3, tile=4, gap=2, jitter=1)
    found = places(400, 22, 20, layout)[:, :, 0]
    assert layout.footprint == 19
    cells = np.array(list(itertools.product(range(3), repeat=2)))
    # Origin and shift: from 0 to what is left over, all of it.
    offsets = found - 7 * cells
    assert offsets.min(axis=(0, 1)).tolist() == [0, 0]
    assert offsets.max(axis=(0, 1)).tolist() == [3 + 1, 1 + 1]
    assert set(np.ptp(offsets, axis=1).ravel().tolist()) == {0, 1}
    distance = np.abs(found[:, :, None] - found[:, None]).max(axis=-1)
    apart = ~np.eye(9, dtype=bool)
    assert distance[:, apart].min() == 4 + 2


def test_channels_shift_by_themselves_and_stay_in_their_cells():
    found = places(200, 17, 17, Layout(grid=2, tile=4, gap=1, jitter=1, channel_jitter=2), channels=3)
    between = found.max(axis=2) - found.min(axis=2)
    assert between.min() == 0 and between.max() == 2
    assert found[:, 3].min() == 8 and found.max() == 17 - 4
    assert found[:, 0].min() == 0


def test_layouts_of_the_papers_have_their_size():
    assert Layout(grid=3, tile=64, jitter=21).footprint == 255
    assert Layout(grid=3, tile=64, jitter=19, channel_jitter=2).footprint == 255
    assert Layout(grid=3, tile=96, gap=34, jitter=14).pitch == 96 + 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 1}, "grid=1"),
        ({"tile": 0}, "tile=0"),
        ({"gap": -1}, "gap=-1"),
        ({"jitter": -2}, "jitter=-2"),
    ],
)
def test_layouts_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Layout(**{"grid": 3, "tile": 4, **options})


def test_an_image_smaller_than_the_grid_is_refused_and_told_why():
    message = (
        r"image='20 x 12 pixels': allowed is 13 or more a side: 3 x 3 tiles of 3 pixels .* would overlap"
    )
    with pytest.raises(ValueError, match=message):
        cut_tiles(jax.random.key(0), jnp.zeros((20, 12, 1)), Layout(grid=3, tile=3, gap=2))


@functools.cache
def colored(count=3):
    return jax.random.normal(jax.random.key(1), (count, 8, 8, 3)) + jnp.array([3.0, 0.0, -3.0])


LAYOUT = Layout(grid=2, tile=4)
made = jax.jit(make_tiles, static_argnames=("layout", "drop", "normalize"))


def test_tiles_of_a_batch_are_standardised_each_by_itself_and_empty_ones_stay_empty():
    images = jnp.concatenate([colored(), jnp.full((1, 8, 8, 3), 0.7)])
    tiles = np.asarray(made(jax.random.key(0), images, LAYOUT))
    raw = np.asarray(made(jax.random.key(0), images, LAYOUT, normalize=False))
    np.testing.assert_array_equal(raw[:, 1], images[:, :4, 4:])
    flat = raw.reshape(4, 4, -1)
    expected = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, ddof=1, keepdims=True) + 0.01)
    np.testing.assert_allclose(tiles.reshape(4, 4, -1), expected, atol=1e-5)
    assert not np.abs(tiles[3]).max() > 1e-5
    half = jax.eval_shape(lambda x: make_tiles(jax.random.key(0), x, LAYOUT), images.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32


def test_colours_are_projected_image_by_image_and_dropped_tile_by_tile():
    options = {"normalize": False}
    images = colored(16)
    plain = made(jax.random.key(0), images, LAYOUT, **options)
    projected = made(jax.random.key(0), images, LAYOUT, projection=0.5, **options)
    changed = np.any(np.asarray(plain != projected), axis=(2, 3, 4))
    assert np.all(changed == changed[:, :1]) and 0 < changed[:, 0].sum() < 16
    dropped = made(jax.random.key(0), images, LAYOUT, drop=True, **options)
    kept = np.argmax(np.std(dropped, axis=(2, 3)), axis=-1)
    assert set(kept.ravel().tolist()) == {0, 1, 2} and np.any(kept != kept[:, :1])
    gray = images[..., :1]
    for defences in ({"drop": True}, {"projection": 1.0}):
        np.testing.assert_array_equal(
            made(jax.random.key(0), gray, LAYOUT, **options, **defences), plain[..., :1]
        )


def test_pairs_are_all_neighbours_in_both_orders():
    found = {tuple(row) for row in neighbor_pairs(4, form="all").tolist()}
    compass = {(-1, -1): 0, (-1, 0): 1, (-1, 1): 2, (0, -1): 3, (0, 1): 4, (1, -1): 5, (1, 0): 6, (1, 1): 7}
    expected = set()
    for first, second in itertools.permutations(range(16), 2):
        step = (second // 4 - first // 4, second % 4 - first % 4)
        if step in compass:
            expected.add((first, second, compass[step]))
    assert found == expected
    assert all((second, first, 7 - direction) in found for first, second, direction in found)


def test_pairs_of_the_centre_go_through_the_directions():
    found = neighbor_pairs(3)
    assert found[:, 0].tolist() == [4] * 8
    assert found[:, 1].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert found[:, 2].tolist() == list(range(8))
    with pytest.raises(ValueError, match="grid=4: allowed is 3"):
        neighbor_pairs(4)
    with pytest.raises(ValueError, match="form='ring'"):
        neighbor_pairs(3, form="ring")


@pytest.mark.parametrize(("objective", "worth"), [("max_avg", sum), ("max_min", min)])
def test_permutations_are_chosen_greedily(objective, worth):
    pool = list(itertools.permutations(range(4)))
    found = [tuple(row) for row in permutations(12, tiles=4, objective=objective, seed=3).tolist()]
    for i in range(1, 12):
        left = [p for p in pool if p not in found[:i]]
        value = lambda p: worth([sum(a != b for a, b in zip(p, q, strict=True)) for q in found[:i]])  # noqa: B023, E731
        assert found[i] == max(left, key=value)


@pytest.mark.parametrize("objective", ["max_avg", "max_min"])
def test_permutations_differ_from_each_other_and_follow_from_the_seed(objective):
    found = permutations(24, tiles=4, objective=objective, seed=1)
    assert {tuple(row) for row in found.tolist()} == set(itertools.permutations(range(4)))
    distance = (found[:, None] != found[None]).sum(axis=-1)
    assert distance[~np.eye(24, dtype=bool)].min() == 2
    permutations.cache_clear()
    np.testing.assert_array_equal(found, permutations(24, tiles=4, objective=objective, seed=1))
    assert np.any(found[0] != permutations(24, tiles=4, objective=objective, seed=2)[0])


def test_a_hundred_permutations_of_nine_tiles_are_as_far_apart_as_the_authors():
    found = permutations(100)
    distance = (found[:, None] != found[None]).sum(axis=-1)[~np.eye(100, dtype=bool)]
    # The file permutations_100_max.bin: mean 8.08, which is the most that 100 can have, and least 2.
    assert distance.mean() == pytest.approx(8.08, abs=1e-9)
    assert distance.min() >= 2
    apart = permutations(100, objective="max_min")
    assert (apart[:, None] != apart[None]).sum(axis=-1)[~np.eye(100, dtype=bool)].min() >= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 25, "tiles": 4}, "count=25"),
        ({"count": 2, "tiles": 10}, "tiles=10"),
        ({"count": 2, "objective": "max"}, "objective='max'"),
    ],
)
def test_permutations_that_there_are_not_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        permutations(**options)


def test_halved_images_go_through_the_filter_that_was_drawn():
    images = jax.random.normal(jax.random.key(0), (40, 8, 6, 2))
    box = images.reshape(40, 4, 2, 3, 2, 2).mean(axis=(2, 4))
    resized = [jax.image.resize(images, (40, 4, 3, 2), name) for name in FILTERS[1:]]
    choices = np.stack([box, *resized])
    found = np.asarray(jax.jit(halve)(jax.random.key(1), images))
    fits = np.abs(choices - found).max(axis=(2, 3, 4)) < 1e-5
    assert np.all(fits.sum(axis=0) == 1) and np.all(fits.any(axis=1))
    np.testing.assert_allclose(halve(jax.random.key(1), images, filters=("box",)), box, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "filters", "message"),
    [(5, ("box",), "5 x 5 pixels.*even"), (4, (), "filters="), (4, ("nearest",), "filters='nearest'")],
)
def test_images_that_cannot_be_halved_are_refused(side, filters, message):
    with pytest.raises(ValueError, match=message):
        halve(jax.random.key(0), jnp.zeros((1, side, side, 1)), filters=filters)


@pytest.mark.parametrize(("side", "stride"), [(3, 2), (4, 4), (2, 1)])
def test_patches_that_overlap_are_crops_a_stride_apart(side, stride):
    images = jax.random.normal(jax.random.key(1), (2, 9, 11, 3))
    cut = np.asarray(cut_patches(jax.random.key(0), images, PatchGrid(side=side, stride=stride)))
    expected = [
        images[:, y : y + side, x : x + side]
        for y in range(0, 9 - side + 1, stride)
        for x in range(0, 11 - side + 1, stride)
    ]
    np.testing.assert_array_equal(cut, np.stack(expected, axis=1))


def test_a_jittered_patch_is_a_square_of_it_from_anywhere_in_its_middle():
    layout = PatchGrid(side=5, stride=4, jitter=3)
    images = 1.0 + jnp.arange(81.0).reshape(1, 9, 9, 1) * jnp.ones((300, 1, 1, 1))
    cut = np.asarray(jax.jit(lambda k: cut_patches(k, images, layout))(jax.random.key(0)))[..., 0]
    inner = cut[:, :, 1:3, 1:3]
    assert (
        (inner > 0).all()
        and not np.delete(cut, (1, 2), axis=2).any()
        and not np.delete(cut, (1, 2), axis=3).any()
    )
    corners = inner[:, :, 0, 0].astype(int) - 1
    np.testing.assert_array_equal(
        inner - inner[:, :, :1, :1], np.broadcast_to([[0, 1], [9, 10]], inner.shape)
    )
    for place, (y, x) in enumerate(itertools.product((0, 4), repeat=2)):
        found = {(corner // 9 - y, corner % 9 - x) for corner in corners[:, place].tolist()}
        assert found == set(itertools.product(range(4), repeat=2))
    assert np.any(corners != corners[:, :1] + np.array([0, 4, 36, 40]))


def test_colours_are_dropped_patch_by_patch():
    cut = cut_patches(jax.random.key(0), colored(16), PatchGrid(side=4, stride=2), drop=True)
    kept = np.argmax(np.std(cut, axis=(2, 3)), axis=-1)
    assert set(kept.ravel().tolist()) == {0, 1, 2} and np.any(kept != kept[:, :1])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"side": 0}, "side=0"), ({"stride": 0}, "stride=0"), ({"jitter": 3}, "jitter=3")],
)
def test_grids_of_patches_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PatchGrid(**{"side": 3, "stride": 2, **options})
    with pytest.raises(ValueError, match="side=3: allowed is at most the 2 pixels"):
        PatchGrid(side=3, stride=2).count(2)
