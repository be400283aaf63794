"""CutMix, mixup, whole batches, erasing."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.mix import cutmix, erase, mix_batch, mixup

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


# Mixup, whole batches, erasing.


def test_mixup_is_the_weighted_mean_with_weights_from_the_beta_distribution():
    image, other = jnp.ones((2, 3, 1)), jnp.zeros((2, 3, 1))
    keys = jax.random.split(jax.random.key(0), 4000)
    mixed, share = jax.vmap(lambda k: mixup(k, image, other, alpha=0.8))(keys)
    np.testing.assert_allclose(mixed, jnp.broadcast_to(share[:, None, None, None], mixed.shape), atol=1e-6)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)); six standard errors.
    variance = 1 / (4 * 2.6)
    assert abs(float(share.mean()) - 0.5) < 6 * (variance / 4000) ** 0.5
    assert float(share.var()) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("kinds", [("mixup",), ("cutmix",), ("mixup", "cutmix")])
def test_images_and_targets_of_a_batch_are_mixed_in_the_same_shares_with_half_a_batch_away(kinds):
    # Image i is all i; its target the i-th unit vector.
    images = jnp.broadcast_to(jnp.arange(6.0)[:, None, None, None], (6, 8, 8, 1))
    mixed, targets = mix_batch(jax.random.key(1), images, jnp.eye(6), kinds=kinds)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets @ jnp.arange(6.0), atol=1e-4)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)
    partners = {(i, (i - 3) % 6) for i in range(6)}
    assert {tuple(pair) for pair in np.argwhere(targets > 0)} <= {(i, j) for i, k in partners for j in (i, k)}
    inside = np.asarray(mixed).reshape(6, -1)
    uniform = [len(set(row.tolist())) == 1 for row in inside]
    assert all(uniform) if kinds == ("mixup",) else not all(uniform)


def test_both_kinds_are_drawn_equally_often():
    images = jnp.broadcast_to(jnp.arange(400.0)[:, None, None, None], (400, 8, 8, 1))
    mixed, _ = mix_batch(jax.random.key(2), images, jnp.eye(400))
    flat = np.asarray(mixed).reshape(400, -1)
    smooth = np.mean([np.ptp(row) < 1e-3 for row in flat])
    # A rectangle that covers nothing or everything looks like mixup: at most a few of a hundred.
    assert 0.4 < smooth < 0.7


def test_erasing_replaces_one_rectangle_by_noise_with_the_probability_and_share():
    images = jnp.full((2000, 16, 16, 1), 9.0)
    keys = jax.random.split(jax.random.key(3), 2000)
    erased = np.asarray(jax.vmap(lambda k, x: erase(k, x, probability=0.3))(keys, images))
    holes = erased[..., 0] != 9.0
    hit = holes.any(axis=(1, 2))
    assert abs(hit.mean() - 0.3) < 6 * (0.21 / 2000) ** 0.5
    for hole in holes[hit][:100]:
        rows, columns = hole.any(axis=1), hole.any(axis=0)
        assert hole.sum() == rows.sum() * columns.sum()
    shares = holes[hit].mean(axis=(1, 2))
    # Uniform in [0.02, 1/3] but for rounding and for rectangles longer than the image.
    assert 0.12 < shares.mean() < 0.2
    noise = erased[..., 0][holes]
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: inspect.unwrap(mixup)(jax.random.key(0), x, jnp.ones((2, 2, 1))), r"other\.shape"),
        (lambda x: mix_batch(jax.random.key(0), x[None], jnp.eye(1), kinds=()), "kinds="),
        (lambda x: mix_batch(jax.random.key(0), x[None], jnp.eye(1), kinds=("cut",)), "kinds='cut'"),
        (lambda x: erase(jax.random.key(0), x, area=(0.5, 0.2)), r"area=\(0\.5, 0\.2\)"),
        (lambda x: erase(jax.random.key(0), x, ratio=(0.0, 1.0)), r"ratio=\(0\.0, 1\.0\)"),
    ],
)
def test_mixing_refuses_what_it_cannot_do(function, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.ones((4, 4, 1)))
