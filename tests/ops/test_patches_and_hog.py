"""Patches: golden numbers of MAE and lightly, round trips, normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.hog import hog
from ssl_jax.ops.patches import normalize_patches, patchify, unnormalize_patches, unpatchify
from ssl_jax.ops.tiles import rotate
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


def test_rotations_equal_numpy_and_four_quarter_turns_are_the_image():
    images = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 2), dtype=np.uint8)
    found = np.asarray(rotate(images))
    assert found.dtype == np.uint8 and found.shape == (3, 4, 4, 4, 2)
    for turns in range(4):
        np.testing.assert_array_equal(found[:, turns], np.rot90(images, turns, axes=(1, 2)))
    np.testing.assert_array_equal(rotate(found[:, 3])[:, 1], images)


def test_images_that_are_not_square_are_not_turned():
    with pytest.raises(ValueError, match=r"images='4 x 6 pixels'.*square"):
        rotate(np.ones((1, 4, 6, 1)))


# Histograms of oriented gradients.


@pytest.mark.parametrize(("cell", "bins"), [(8, 9), (4, 6)])
def test_hog_equals_scikit_image_channel_by_channel(cell, bins):
    feature = pytest.importorskip("skimage.feature")
    images = np.random.default_rng(0).random((2, 24, 16, 3)).astype(np.float32)
    found = np.asarray(hog(jnp.asarray(images), cell=cell, bins=bins, kernel="central", window=None))
    for image, histograms in zip(images, found, strict=True):
        for channel in range(3):
            expected = feature.hog(
                image[..., channel].astype(np.float64),
                orientations=bins,
                pixels_per_cell=(cell, cell),
                cells_per_block=(1, 1),
                block_norm="L2",
                feature_vector=False,
            ).reshape(24 // cell, 16 // cell, bins)
            np.testing.assert_allclose(
                histograms[..., channel * bins : (channel + 1) * bins], expected, atol=2e-5
            )


def test_hog_of_maskfeat_equals_a_loop_over_pixels():
    image = np.random.default_rng(1).random((16, 16)).astype(np.float32)
    padded = np.pad(image, 1, mode="reflect").astype(np.float64)
    across = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    profile = np.exp(-((np.arange(16) - 7.5) ** 2) / (2 * 4.0**2))
    histogram = np.zeros((2, 2, 9))
    for y in range(16):
        for x in range(16):
            area = padded[y : y + 3, x : x + 3]
            gx, gy = (area * across).sum(), (area * across.T).sum()
            bin_of = int(np.floor(np.arctan2(gx, gy) / np.pi * 9)) % 9
            histogram[y // 8, x // 8, bin_of] += (
                np.hypot(gx, gy) * profile[y] * profile[x] / profile.sum() ** 2
            )
    histogram /= np.linalg.norm(histogram, axis=-1, keepdims=True)
    np.testing.assert_allclose(hog(jnp.asarray(image)[None, ..., None])[0], histogram, atol=1e-5)


def test_hog_of_a_constant_is_zero_and_brightness_and_contrast_do_not_matter():
    assert not hog(jnp.full((1, 16, 16, 1), 0.7)).any()
    image = jnp.asarray(np.random.default_rng(2).random((1, 16, 16, 3)), jnp.float32)
    np.testing.assert_allclose(hog(3 * image - 1), hog(image), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "prewitt"}, "kernel='prewitt'"),
        ({"cell": 5}, "patch=5"),
        ({"window": 10}, "patch=10"),
        ({"bins": 0}, "bins=0"),
    ],
)
def test_hog_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        hog(jnp.zeros((1, 16, 16, 1)), **options)
