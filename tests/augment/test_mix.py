"""CutMix."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.mix import cutmix

KEYS = jax.random.split(jax.random.key(0), 400)
many = jax.jit(jax.vmap(cutmix, in_axes=(0, None, None)))


def test_a_rectangle_comes_from_the_other_image_and_the_rest_stays():
    image, other = jnp.zeros((9, 12, 2)), jnp.ones((9, 12, 2))
    for cut in np.asarray(many(KEYS, image, other)[0][..., 0]):
        rows, columns = np.flatnonzero(cut.any(1)), np.flatnonzero(cut.any(0))
        assert (np.diff(rows) == 1).all() and (np.diff(columns) == 1).all()
        assert cut.sum() == len(rows) * len(columns)


def test_the_share_is_that_of_the_pixels_that_stay():
    image, other = jax.random.normal(jax.random.key(1), (2, 8, 10, 3))
    mixed, shares = many(KEYS, image, other)
    same = np.asarray((mixed == image).all(-1))
    np.testing.assert_allclose(shares, same.mean((1, 2)), rtol=1e-6)
    assert np.where(same[..., None], image, other).tolist() == mixed.tolist()


def test_rectangles_have_the_sides_and_places_of_the_paper():
    mixed, shares = many(KEYS, jnp.zeros((101, 101, 1)), jnp.ones((101, 101, 1)))
    for key, cut, share in zip(KEYS[:50], np.asarray(mixed[..., 0], bool), np.asarray(shares), strict=False):
        side, row, column = np.asarray(jax.random.uniform(key, (3,)), np.float64)
        half = int(101 * np.sqrt(1 - side)) // 2
        expected = np.zeros((101, 101), bool)
        top, left = int(row * 101), int(column * 101)
        expected[max(top - half, 0) : top + half, max(left - half, 0) : left + half] = True
        np.testing.assert_array_equal(cut, expected)
        assert share == pytest.approx(1 - expected.mean(), abs=1e-6)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"other\.shape=\(8, 9, 1\)"):
        inspect.unwrap(cutmix)(jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.zeros((8, 9, 1)))
