"""The tokenizer."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.methods.masked import dvae
from tests.methods.case import loss_inputs, loss_of, method_of, start


def collapsed(case):
    """Output 0: the mean square of the pixels."""
    params, state, batch = loss_inputs(case)
    gray = jnp.full(batch["views"][0].shape, -0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    loss, _, metrics = loss_of(case.method, zero, state, {**batch, "views": (gray,)})
    assert float(metrics["code_perplexity"]) == pytest.approx(1.0)
    return loss, 0.25


def test_loss_is_error_plus_weighted_divergence():
    method = method_of("dvae", kl_weight=0.3)
    value, _, metrics = loss_of(method, *start(method))
    assert float(metrics["kl"]) > 0
    np.testing.assert_allclose(value, metrics["error"] + 0.3 * metrics["kl"], rtol=1e-6)


def test_temperature_falls_on_a_cosine_and_stays_without_a_length():
    method = method_of("dvae", temperature=2.0, temperature_end=0.5, decay_steps=8)
    temperatures = [float(loss_of(method, *start(method), step=s)[2]["temperature"]) for s in (0, 4, 8)]
    np.testing.assert_allclose(temperatures, [2.0, 1.25, 0.5], rtol=1e-6)
    method = method_of("dvae", temperature=2.0, decay_steps=None)
    assert float(loss_of(method, *start(method), step=5)[2]["temperature"]) == 2.0


def test_straight_through_gives_the_decoder_one_code_a_position():
    # With one-hot draws at any temperature the output is one of a finite set: that of single codes.
    method = method_of("dvae", straight_through=True, temperature=5.0, decay_steps=None)
    soft = method_of("dvae", temperature=5.0, decay_steps=None)
    params, state, batch = start(method)
    one = {**params, "codebook": jnp.ones_like(params["codebook"])}
    # All codes alike: hard and soft draws, which both sum to 1, give the same.
    np.testing.assert_allclose(
        loss_of(method, one, state, batch)[0], loss_of(soft, one, state, batch)[0], rtol=1e-5
    )
    assert loss_of(method, params, state, batch)[0] != loss_of(soft, params, state, batch)[0]


def test_perplexity_counts_the_codes_in_use():
    method = method_of("dvae")
    params, state, batch = start(method)
    logits = params["encoder"]["logits"]
    logits["kernel"], logits["bias"] = jnp.zeros_like(logits["kernel"]), logits["bias"].at[3].set(9.0)
    assert float(loss_of(method, params, state, batch)[2]["code_perplexity"]) == pytest.approx(1.0)
    assert float(loss_of(method, *start(method))[2]["code_perplexity"]) > 1.5


def test_smooth_error_equals_its_formula():
    method = method_of("dvae", loss="smooth_l1")
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    for value, expected in ((0.5, 0.125), (3.0, 2.5)):
        flat = {**batch, "views": (jnp.full(batch["views"][0].shape, value),)}
        assert loss_of(method, zero, state, flat)[0] == pytest.approx(expected)


def test_reconstruction_comes_out_of_the_best_codes():
    method = method_of("dvae")
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    reconstruction = jax.jit(method.reconstruct)(params, state, images, jax.random.key(0))
    assert reconstruction.predictions.shape == images.shape
    assert reconstruction.masked.all()
    again = jax.jit(method.reconstruct)(params, state, images, jax.random.key(1))
    np.testing.assert_array_equal(reconstruction.predictions, again.predictions)


def test_features_and_scores_of_the_encoder_have_their_shapes():
    network = models.build("dvae", vocabulary_size=16, width=8, stride=8, blocks=1)
    params, state = network.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    apply = lambda **options: network.apply(params, state, jnp.ones((2, 32, 32, 3)), **options)[0]  # noqa: E731
    assert apply().shape == (2, network.features) == (2, 32)
    assert apply(output="logits").shape == (2, 4, 4, 16)
    assert apply(output="tokens").shape == (2, 4, 4, 8)
    assert math.log2(models.build(**network.config).config["stride"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 6}, "stride=6"),
        ({"vocabulary_size": 0}, "vocabulary_size=0"),
        ({"blocks": -1}, "blocks=-1"),
    ],
)
def test_networks_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("dvae", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, r"temperature=0\.0"), ({"loss": "huber"}, "loss='huber'")],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("dvae", **options)


def test_another_encoder_is_refused():
    with pytest.raises(ValueError, match="encoder='convnet'"):
        dvae.build(models.build("convnet"))
