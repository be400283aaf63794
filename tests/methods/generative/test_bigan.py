"""BiGAN: three networks, one scalar."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_inputs, loss_of, make_gradient, method_of, start

FALLS = ((("discriminator",), "discriminator_loss"), (("encoder", "head", "generator"), "generator_loss"))


def collapsed(case):
    """Weights 0: the discriminator cannot tell, two terms of 2 log 2, which is also where the game ends."""
    params, state, batch = loss_inputs(case)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, batch)[0], 4 * np.log(2)


def test_encoder_and_generator_get_the_gradient_of_one_scalar_and_the_discriminator_its_own():
    method = method_of("bigan")
    params, state, batch = start(method)
    _, (found, _) = make_gradient(method)(params, state, batch)

    def term(name):
        value = lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[1][1][name]  # noqa: E731
        return jax.jit(jax.grad(value))(params)

    told, confused = term("discriminator_loss"), term("generator_loss")
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)  # noqa: E731
    jax.tree.map(close, found["discriminator"], told["discriminator"])
    assert not any(g.any() for g in jax.tree.leaves(confused["discriminator"]))
    for name in ("encoder", "head", "generator"):
        jax.tree.map(close, found[name], confused[name])
        assert any(g.any() for g in jax.tree.leaves(confused[name]))
        assert not any(g.any() for g in jax.tree.leaves(told[name]))


def test_the_players_want_opposite_labels_of_the_same_scores():
    """Scores of a bias b alone cost both sides ``softplus(−b) + softplus(b)``."""
    method = method_of("bigan")
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    zero["discriminator"]["score"]["bias"] = jnp.full(1, 1.5)
    expected = np.log1p(np.exp(-1.5)) + np.log1p(np.exp(1.5))
    _, _, metrics = loss_of(method, zero, state, batch)
    for name in ("discriminator_loss", "generator_loss"):
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-5)


@pytest.mark.parametrize("prior", ["uniform", "normal"])
def test_reconstruction_is_the_generator_on_the_code_in_the_range_of_pixels(prior):
    method = method_of("bigan", prior=prior)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    reconstruction = jax.jit(method.reconstruct)(params, state, images, jax.random.key(0))
    pixels = np.asarray(reconstruction.predictions) * 0.353 + 0.286
    assert reconstruction.predictions.shape == images.shape
    assert 0 <= pixels.min() <= pixels.max() <= 1
    assert jax.eval_shape(method.encode, params, state, images).shape == (16, method.encoder.features)


@pytest.mark.parametrize(
    ("options", "message"), [({"prior": "gauss"}, "prior='gauss'"), ({"latent": 0}, "latent=0")]
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("bigan", **options)
