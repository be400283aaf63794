"""Defences against chromatic aberration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.chromatic import drop_colors, project_colors

IMAGE = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, (16, 12, 3)), jnp.float32)


def test_one_channel_stays_without_its_mean_and_the_others_become_faint_noise():
    keys = jax.random.split(jax.random.key(0), 60)
    found = np.asarray(jax.jit(jax.vmap(lambda key: drop_colors(key, IMAGE, noise=0.05)))(keys))
    centered = np.asarray(IMAGE) - np.asarray(IMAGE).mean(axis=(0, 1))
    kept = np.abs(found - centered).max(axis=(1, 2)) < 1e-5
    assert np.all(kept.sum(axis=1) == 1)
    assert kept.sum(axis=0).min() > 8
    noise = (found / np.where(kept, centered.std(axis=(0, 1)), 0).sum(axis=1)[:, None, None, None]).transpose(
        0, 3, 1, 2
    )[~kept]
    assert noise.std() == pytest.approx(0.05, rel=0.02) and abs(noise.mean()) < 1e-3
    # Both other channels are drawn, each by itself.
    assert abs(np.corrcoef(noise.reshape(60, 2, -1).transpose(1, 0, 2).reshape(2, -1))[0, 1]) < 0.05


def test_a_single_channel_is_left_as_it_is():
    for function in (lambda x: drop_colors(jax.random.key(0), x), project_colors):
        np.testing.assert_array_equal(function(IMAGE[..., :1]), IMAGE[..., :1])


def test_projection_is_the_matrix_of_the_jigsaw_code():
    matrix = np.array([[5, 2, -1], [2, 2, 2], [-1, 2, 5]]) / 6
    once = project_colors(IMAGE)
    np.testing.assert_allclose(once, np.asarray(IMAGE) @ matrix, atol=1e-5)
    np.testing.assert_allclose(project_colors(once), once, atol=1e-5)
    gray = jnp.broadcast_to(IMAGE[..., :1], IMAGE.shape)
    np.testing.assert_allclose(project_colors(gray), gray, atol=1e-5)
    np.testing.assert_allclose(jax.jit(project_colors)(IMAGE), once, atol=1e-5)
