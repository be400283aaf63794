"""PCA agrees with a singular value decomposition; pixels keep every value."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.evaluate.baselines import flatten_pixels, pca


def test_pca_is_the_leading_part_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(50, 6)) * [5, 4, 3, 2, 1, 0.5] + 7).astype(np.float32)
    test = rng.normal(size=(8, 6)).astype(np.float32)
    found_train, found_test = pca(train, test, dims=3)
    mean = train.mean(0)
    _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
    np.testing.assert_allclose(np.abs(found_train), np.abs((train - mean) @ axes[:3].T), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.abs(found_test), np.abs((test - mean) @ axes[:3].T), rtol=1e-3, atol=1e-3)
    assert (np.diff(found_train.var(0)) < 0).all()


def test_pca_of_all_dimensions_keeps_distances():
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    (turned,) = pca(x, dims=4)
    np.testing.assert_allclose(
        np.linalg.norm(turned[:, None] - turned, axis=-1), np.linalg.norm(x[:, None] - x, axis=-1), atol=1e-5
    )


def test_pca_refuses_more_components_than_dimensions():
    with pytest.raises(ValueError, match=r"dims=5: allowed is an integer in \[1, 4\]"):
        pca(np.zeros((6, 4), np.float32), dims=5)


def test_pixels_are_kept_in_order():
    images = jnp.arange(24.0).reshape(2, 2, 3, 2)
    np.testing.assert_array_equal(flatten_pixels(images), np.arange(24.0).reshape(2, 12))
