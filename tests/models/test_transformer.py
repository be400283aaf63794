"""The pieces of a block that are written for speed equal the plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ssl_jax.models.transformer import gelu, product

rng = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
def test_product_and_its_gradients_are_those_of_matmul(shape):
    x, kernel, g = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (shape, (4, 6), (*shape[:-1], 6)))
    for f in (product, jax.jit(product)):
        value, pull = jax.vjp(f, x, kernel)
        expected, expected_pull = jax.vjp(jnp.matmul, x, kernel)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        for found, wanted in zip(pull(g), expected_pull(g), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_product_maps_over_kernels_and_keeps_bfloat16():
    x, kernels = jnp.ones((3, 4), jnp.bfloat16), jnp.ones((2, 4, 5), jnp.bfloat16)
    gradient = jax.vmap(jax.grad(lambda k: product(x, k).sum().astype(jnp.float32)))(kernels)
    assert gradient.shape == (2, 4, 5)
    assert gradient.dtype == jnp.bfloat16


def test_gelu_is_x_times_the_normal_distribution():
    x = np.linspace(-8, 8, 401, dtype=np.float32)
    expected = x.astype(np.float64) * (1 + erf(x / np.sqrt(2))) / 2
    np.testing.assert_allclose(gelu(jnp.asarray(x)), expected, atol=5e-7, rtol=1e-5)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    slope = (1 + erf(x / np.sqrt(2))) / 2 + x * density
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(jnp.asarray(x)), slope, atol=1e-6)
