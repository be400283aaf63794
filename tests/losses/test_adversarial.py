"""Two players: against numpy, gradients that do not vanish, precision."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.losses.adversarial import discriminator_cross_entropy, generator_cross_entropy

REAL, FAKE = jnp.array([2.0, -1.0, 0.3]), jnp.array([0.5, -3.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_losses_are_the_cross_entropies_of_the_formulas():
    told = -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean()
    np.testing.assert_allclose(discriminator_cross_entropy(REAL, FAKE), told, rtol=1e-6)
    np.testing.assert_allclose(generator_cross_entropy(FAKE), -np.log(sigmoid(FAKE)).mean(), rtol=1e-6)
    flipped = -np.log(sigmoid(FAKE)).mean() - np.log(1 - sigmoid(REAL)).mean()
    np.testing.assert_allclose(discriminator_cross_entropy(FAKE, REAL), flipped, rtol=1e-6)


def test_gradients_are_those_of_the_formulas_and_do_not_vanish_where_the_discriminator_is_sure():
    to_real, to_fake = jax.jit(jax.grad(discriminator_cross_entropy, argnums=(0, 1)))(REAL, FAKE)
    np.testing.assert_allclose(to_real, (sigmoid(REAL) - 1) / 3, rtol=1e-5)
    np.testing.assert_allclose(to_fake, sigmoid(FAKE) / 2, rtol=1e-5)
    sure = jnp.full(2, -60.0)
    np.testing.assert_allclose(jax.grad(generator_cross_entropy)(sure), -0.5, rtol=1e-6)
    assert np.isfinite(generator_cross_entropy(1e6 * sure))


def test_vmap_is_a_loop_and_bfloat16_is_summed_in_float32():
    batch = jnp.stack([REAL, -REAL])
    loop = [generator_cross_entropy(row) for row in batch]
    np.testing.assert_allclose(jax.vmap(generator_cross_entropy)(batch), loop, rtol=1e-6)
    half = discriminator_cross_entropy(REAL.astype(jnp.bfloat16), FAKE.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, discriminator_cross_entropy(REAL, FAKE), rtol=1e-2)
