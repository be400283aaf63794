"""Greedy layer-wise pre-training: stages, and what stands still in them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax.config import build
from ssl_jax.losses.reconstruction import weighted_mse
from tests.methods.case import config_of, loss_of, method_of, start
from tests.methods.generative.test_autoencoder import gray_loss


def collapsed(case):
    """Weights 0 in the first stage: every pixel has the probability 1/2."""
    return gray_loss(case), float(np.log(2))


FAST = {"run_steps": 8, "joint": 0.25}
"""Two layers: steps 0 to 2, 3 to 5, then both."""


def test_layers_outside_their_stage_keep_their_bits_with_their_moments():
    """By the config's own optimizer, AdamW with decay, over all stages in one program."""
    config = config_of("greedy", steps=8)
    method = method_of("greedy", **FAST)
    optimizer = build.optimizer(config)
    params, state, batch = start(method)

    @jax.jit
    def update(params, moments, key, step):
        one = lambda p: method.loss(p, state, batch, key, step)  # noqa: E731
        (_, (_, metrics)), gradients = jax.value_and_grad(one, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, metrics

    moments, stages = optimizer.init(params), []
    for step in range(8):
        before = (params, moments)
        params, moments, metrics = update(params, moments, jax.random.key(step), jnp.int32(step))
        stage = int(metrics["stage"])
        stages.append(stage)
        for k, name in enumerate(("dense_0", "dense_1")):
            parts = [(p["encoder"][name], p["decoder"][name]) for p in (before[0], params)]
            inner = [m.rule.inner_states[f"from_0_skip_{k}"] for m in (before[1], moments)]
            if stage in (k, 2):
                # The warm-up begins at a learning rate of 0.
                moved = [(a != b).any() for a, b in zip(*map(jax.tree.leaves, parts), strict=True)]
                assert all(moved) or step == 0
            else:
                jax.tree.map(np.testing.assert_array_equal, *parts)
                jax.tree.map(np.testing.assert_array_equal, *inner)
    assert stages == [0, 0, 0, 1, 1, 1, 2, 2]
    assert update._cache_size() == 1


@pytest.mark.parametrize("step", [0, 3, 6])
def test_each_stage_has_the_loss_of_its_autoencoder(step):
    """Without corruption, against numpy with sigmoid units and the mean square error."""
    method = method_of("greedy", corruption="none", loss="mse", **FAST)
    params, state, batch = start(method)
    images = np.asarray(batch["views"][0][:, 0])
    x = images.reshape(len(images), -1)
    down, up = (jax.tree.map(np.asarray, params[name]) for name in ("encoder", "decoder"))
    dense = lambda layer, x: x @ layer["kernel"] + layer["bias"]  # noqa: E731
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    first = sigmoid(dense(down["dense_0"], x))
    second = sigmoid(dense(down["dense_1"], first))
    again = sigmoid(dense(up["dense_1"], second))
    expected = {
        0: (dense(up["dense_0"], first), x),
        3: (again, first),
        6: (dense(up["dense_0"], again), x),
    }[step]
    found = loss_of(method, params, state, batch, step=step)[0]
    np.testing.assert_allclose(found, np.mean((expected[0] - expected[1]) ** 2), rtol=1e-4)
    assert float(weighted_mse(*map(jnp.asarray, expected), jnp.ones_like(expected[0]))) == pytest.approx(
        found
    )


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({"joint": 1.0}, {}, r"joint=1\.0"),
        ({"loss": "cross_entropy"}, {"activation": "relu"}, "'mse' for units that are 'relu'"),
        ({"corruption": "mask"}, {}, "corruption='mask'"),
    ],
)
def test_bad_options_are_refused_by_name(options, encoder, message):
    with pytest.raises(ValueError, match=message):
        method_of("greedy", encoder=encoder, **options)


def test_another_encoder_is_refused():
    config = config_of("greedy")
    config["encoder"] = {"name": "convnet"}
    with pytest.raises(ValueError, match="encoder='convnet'"):
        build.method(config)
