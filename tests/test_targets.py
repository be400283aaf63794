"""Patches: golden numbers of MAE and lightly, round trips, normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.targets import normalize_patches, patchify, unnormalize_patches, unpatchify
from tests.golden_files import golden


@pytest.mark.parametrize(
    ("file", "image", "patch", "size"), [("mae", "img", 8, 32), ("tokens", "images", 4, 12)]
)
def test_patches_equal_golden(file, image, patch, size):
    arrays = golden(file)
    images = jnp.asarray(arrays[f"in__{image}"].transpose(0, 2, 3, 1), jnp.float32)
    expected = arrays["patchify__out__patches"].astype(np.float32)
    np.testing.assert_array_equal(patchify(images, patch=patch), expected)
    patches = arrays["in__pred"] if file == "mae" else expected
    back = unpatchify(jnp.asarray(patches, jnp.float32), patch=patch, height=size, width=size)
    np.testing.assert_array_equal(
        back.transpose(0, 3, 1, 2), arrays["patchify__out__back"].astype(np.float32)
    )


def test_patches_are_the_crops_in_raster_order_on_images_that_are_not_square():
    images = np.random.default_rng(0).integers(0, 255, (2, 4, 6, 3), np.uint8)
    patches = jax.jit(lambda x: patchify(x, patch=2))(images)
    crops = [images[:, y : y + 2, x : x + 2].reshape(2, -1) for y in (0, 2) for x in (0, 2, 4)]
    np.testing.assert_array_equal(patches, np.stack(crops, axis=1))
    assert patches.dtype == jnp.uint8
    np.testing.assert_array_equal(unpatchify(patches, patch=2, height=4, width=6), images)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_normalised_patches_equal_numpy_with_the_unbiased_variance(dtype):
    patches = np.random.default_rng(0).normal(3, 2, (2, 4, 12))
    deviation = patches - patches.mean(-1, keepdims=True)
    expected = deviation / np.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
    with jax.enable_x64(dtype == jnp.float64):
        found = normalize_patches(jnp.asarray(patches, dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, atol=1e-5 if dtype == jnp.float32 else 1e-12)


def test_normalisation_ignores_brightness_and_contrast_of_a_patch():
    patches = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 12)), jnp.float32)
    changed = normalize_patches(5 * patches - 2, epsilon=0.0)
    np.testing.assert_allclose(changed, normalize_patches(patches, epsilon=0.0), atol=1e-5)


def test_unnormalising_is_the_inverse_and_takes_the_statistics_of_the_true_patch():
    rng = np.random.default_rng(1)
    patches = jnp.asarray(rng.normal(2.0, 3.0, size=(2, 4, 12)), jnp.float32)
    back = unnormalize_patches(normalize_patches(patches), patches)
    np.testing.assert_allclose(back, patches, rtol=1e-5, atol=1e-5)
    other = jnp.asarray(rng.normal(size=(2, 4, 12)), jnp.float32)
    found = unnormalize_patches(other, patches, epsilon=0.0)
    expected = other * np.std(patches, axis=-1, ddof=1, keepdims=True) + np.mean(
        patches, axis=-1, keepdims=True
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_constant_patch_becomes_zero_with_finite_gradient():
    patches = jnp.full((1, 1, 12), 0.3)
    found, gradient = jax.value_and_grad(lambda x: normalize_patches(x).sum())(patches)
    np.testing.assert_allclose(normalize_patches(patches), 0, atol=1e-4)
    assert np.isfinite(found) and np.isfinite(gradient).all()


def test_vmap_equals_a_loop_and_bfloat16_is_computed_in_float32():
    patches = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 12)), jnp.bfloat16)
    found = jax.jit(jax.vmap(normalize_patches))(patches)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, jnp.stack([normalize_patches(p) for p in patches]), atol=1e-6)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(height, width\)=\(5, 4\).*multiples of patch=2"):
        patchify(jnp.zeros((1, 5, 4, 3)), patch=2)
    with pytest.raises(ValueError, match="patch=0"):
        patchify(jnp.zeros((1, 4, 4, 3)), patch=0)
    with pytest.raises(ValueError, match=r"patches\.shape"):
        unpatchify(jnp.zeros((1, 3, 12)), patch=2, height=4, width=4)
    with pytest.raises(ValueError, match=r"patches\.shape"):
        normalize_patches(jnp.zeros((2, 1)))
