"""Deep belief network: machines in stages, chains that persist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.config import build
from ssl_jax.losses.energy import gibbs
from tests.methods.case import config_of, loss_inputs, loss_of, method_of, start

# The loss is a difference of energies, near 0 for any machine.
FALLS = ((None, "reconstruction_error"),)


def collapsed(case):
    """Weights 0: every image has the same energy as what the machine makes."""
    params, state, batch = loss_inputs(case)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, batch)[0], 0.0


def test_gradient_is_that_of_contrastive_divergence_in_numpy_with_the_same_samples():
    """Both layers, each in its stage; of the other machine the gradient is exactly 0."""
    method = method_of("dbn", run_steps=4, gibbs_steps=2)
    params, state, batch = start(method)
    key = jax.random.key(2)
    sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x, np.float64)))  # noqa: E731
    data = np.asarray(batch["views"][0][:, 0]).reshape(16, -1)
    gradient = jax.jit(jax.grad(lambda p, s: method.loss(p, state, batch, key, s)[0]))
    for k, name in enumerate(("dense_0", "dense_1")):
        layer, visible = params["encoder"][name], params["visible"][name]
        kernel, bias = layer["kernel"], layer["bias"]
        samples = np.asarray(gibbs(key, jnp.asarray(data, jnp.float32), kernel, bias, visible, steps=2))
        positive, negative = (sigmoid(v @ np.asarray(kernel) + np.asarray(bias)) for v in (data, samples))
        expected = {
            "kernel": -(data.T @ positive - samples.T @ negative) / len(data),
            "bias": -(positive - negative).mean(axis=0),
        }
        found = gradient(params, jnp.int32(2 * k))
        for part in ("kernel", "bias"):
            np.testing.assert_allclose(found["encoder"][name][part], expected[part], atol=1e-5)
        np.testing.assert_allclose(found["visible"][name], -(data - samples).mean(axis=0), atol=1e-5)
        other = f"dense_{1 - k}"
        assert not any(g.any() for g in jax.tree.leaves(found["encoder"][other]))
        assert not found["visible"][other].any()
        data = positive


def test_chains_go_on_from_step_to_step_in_the_machine_of_the_stage():
    method = method_of("dbn", run_steps=4, chains=5)
    params, state, batch = start(method)
    assert {name: x.shape for name, x in state["chains"].items()} == {"dense_0": (5, 784), "dense_1": (5, 8)}
    layer = params["encoder"]["dense_0"]
    machine = (layer["kernel"], layer["bias"], params["visible"]["dense_0"])
    expected = gibbs(jax.random.key(2), state["chains"]["dense_0"], *machine, steps=1)
    _, after, _ = loss_of(method, params, state, batch)
    np.testing.assert_allclose(after["chains"]["dense_0"], expected, rtol=1e-5)
    np.testing.assert_array_equal(after["chains"]["dense_1"], state["chains"]["dense_1"])
    _, later, _ = loss_of(method, params, after, batch, step=2)
    np.testing.assert_array_equal(later["chains"]["dense_0"], after["chains"]["dense_0"])
    assert (later["chains"]["dense_1"] != after["chains"]["dense_1"]).any()


def test_features_are_the_probabilities_of_the_last_layer():
    method = method_of("dbn")
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    units = images.reshape(len(images), -1)
    for name in ("dense_0", "dense_1"):
        layer = params["encoder"][name]
        units = jax.nn.sigmoid(units @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(method.encode(params, state, images), units, atol=1e-6)
    predictions = jax.jit(method.reconstruct)(params, state, images, jax.random.key(0)).predictions
    assert predictions.shape == images.shape
    assert 0 <= float(predictions.min()) <= float(predictions.max()) <= 1


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({"gibbs_steps": 0}, {}, "gibbs_steps=0"),
        ({"chains": -1}, {}, "chains=-1"),
        ({}, {"activation": "relu"}, "encoder='mlp relu'"),
    ],
)
def test_bad_options_are_refused_by_name(options, encoder, message):
    with pytest.raises(ValueError, match=message):
        method_of("dbn", encoder=encoder, **options)


def test_normalised_pixels_are_refused():
    config = config_of("dbn")
    config["views"] |= {"mean": (0.5,), "std": (0.5,)}
    with pytest.raises(ValueError, match="not normalised"):
        build.method(config)
