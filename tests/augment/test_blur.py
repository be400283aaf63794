"""Gaussian blur against torchvision and kornia (float64), PIL's approximation, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import blur
from tests.golden_files import assert_close, golden

G = golden("augment")
IMAGE = np.moveaxis(G["in__img"], 0, -1)
CASES = [(23, s) for s in (0.1, 0.5, 1.0, 1.5, 2.0)] + [(5, 1.0)]


def named(sigma):
    return f"{sigma:g}".replace(".", "p")


def test_blur_equals_torchvision_and_kornia_in_both_precisions():
    run = jax.jit(lambda x, sigma, kernel: blur.gaussian_blur(x, sigma, kernel=kernel), static_argnums=2)
    for x64, tolerance in ((False, 1e-5), (True, 1e-8)):
        with jax.enable_x64(x64):
            image = jnp.asarray(IMAGE, jnp.float64 if x64 else jnp.float32)
            for kernel, sigma in CASES:
                found = np.moveaxis(np.asarray(run(image, sigma, kernel)), -1, 0)
                assert_close(found, G[f"tv_blur{kernel}_{named(sigma)}__out__y"], tolerance=tolerance)
                if (kernel, sigma) == (23, 1.0):
                    assert_close(found, G["kornia_blur23_1__out__y"], tolerance=tolerance)


def test_pil_approximates_the_same_gaussian_by_boxes_within_some_levels():
    for sigma in (0.5, 1.0, 2.0):
        exact = blur.gaussian_blur(jnp.asarray(IMAGE, jnp.float32), sigma, kernel=23)
        difference = np.abs(np.asarray(exact) * 255 - G[f"pil_blur_{named(sigma)}__out__y"])
        assert difference.mean() < 1.5 and difference.max() < 17


def test_blur_keeps_constants_and_the_interior_mean_and_commutes_with_flips():
    image = jnp.zeros((21, 21, 2)).at[10, 10].set(1.0)
    blurred = blur.gaussian_blur(image, 1.5, kernel=9)
    np.testing.assert_allclose(blurred.sum((0, 1)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(blurred, blurred.transpose(1, 0, 2), atol=1e-6)
    noise = jnp.asarray(IMAGE, jnp.float32)
    flipped = blur.gaussian_blur(noise[:, ::-1], 1.5, kernel=9)
    np.testing.assert_allclose(flipped[:, ::-1], blur.gaussian_blur(noise, 1.5, kernel=9), atol=1e-6)
    ones = jnp.ones((8, 8, 1))
    np.testing.assert_allclose(blur.gaussian_blur(ones, 2.0, kernel=15), ones, rtol=1e-5)


def test_blur_is_linear_so_its_gradient_is_itself_for_symmetric_interior_weights():
    gradient = jax.grad(lambda x: blur.gaussian_blur(x, 1.0, kernel=5)[8, 8, 0])(jnp.zeros((17, 17, 1)))
    impulse = blur.gaussian_blur(jnp.zeros((17, 17, 1)).at[8, 8].set(1.0), 1.0, kernel=5)
    np.testing.assert_allclose(gradient, impulse, atol=1e-7)


def test_blur_of_bfloat16_stays_bfloat16():
    image = jnp.asarray(IMAGE[:12, :12], jnp.bfloat16)
    assert blur.gaussian_blur(image, 1.0, kernel=3).dtype == jnp.bfloat16


@pytest.mark.parametrize("kernel", [4, 25])
def test_even_and_too_large_kernels_are_errors(kernel):
    with pytest.raises(ValueError, match=f"kernel={kernel}"):
        blur.gaussian_blur(jnp.zeros((12, 12, 1)), 1.0, kernel=kernel)
