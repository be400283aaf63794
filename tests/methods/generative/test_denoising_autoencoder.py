"""The denoising autoencoder: what it adds to the autoencoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start
from tests.methods.generative.test_autoencoder import gray_loss, mlp_of


def collapsed(case):
    """Output 0: the mean square of the clean pixels, whatever was corrupted."""
    return gray_loss(case), 0.25


@pytest.mark.parametrize("corruption", ["none", "masking", "gaussian", "salt_and_pepper"])
def test_without_noise_it_is_the_autoencoder(corruption):
    method, plain = mlp_of("denoising_autoencoder", corruption=corruption, level=0.0), mlp_of("autoencoder")
    inputs = start(method)
    np.testing.assert_allclose(loss_of(method, *inputs)[0], loss_of(plain, *inputs)[0], rtol=1e-5)


def test_the_error_is_that_of_clean_pixels_and_weighs_corrupted_ones():
    """Weights of 0 predict 0; with the biases at 1 the errors of corrupted and clean pixels are known."""
    alpha, beta, level = 3.0, 0.5, 0.25
    method = mlp_of("denoising_autoencoder", level=level, corrupted_weight=alpha, clean_weight=beta)
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    flat = {**batch, "views": (jnp.full(batch["views"][0].shape, 2.0),)}
    value, _, metrics = loss_of(method, zero, state, flat)
    share = float(metrics["corrupted"])
    assert share == pytest.approx(level, abs=0.02)
    np.testing.assert_allclose(value, 4.0 * (alpha * share + beta * (1 - share)), rtol=1e-5)


def test_the_encoder_sees_masked_pixels_black_and_what_is_shown_says_so():
    method = method_of("denoising_autoencoder", level=1.0)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    reconstruction = jax.jit(method.reconstruct)(params, state, images, jax.random.key(0))
    assert reconstruction.masked.all()
    # All pixels black: every image has the same reconstruction, that of a black one.
    np.testing.assert_allclose(reconstruction.predictions[0], reconstruction.predictions[1], atol=1e-6)
    np.testing.assert_array_equal(reconstruction.images, images)


def test_bad_corruptions_are_refused_by_name():
    with pytest.raises(ValueError, match="did you mean 'masking'"):
        method_of("denoising_autoencoder", corruption="maskin")
