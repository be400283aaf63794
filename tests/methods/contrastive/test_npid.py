"""NPID."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.methods.parts.memory_bank import update_memory_bank
from tests.methods.case import loss_of, method_of, start, zero_params_loss

OPTIONS = {"negatives": 8, "num_examples": 40, "loss": "nce", "temperature": 0.07}


def constants(k):
    return {
        "nce": math.log(1 + k) + k * math.log(1 + 1 / k),
        "cross_entropy": math.log(1 + k),
        "negative_sampling": (1 + k) * math.log(2),
    }


def collapsed(case):
    """With all params 0 the query is 0: every score is the same, and Z of this first batch makes the model the noise."""
    options = case.config["method"]
    return zero_params_loss(case), constants(options["negatives"])[options["loss"]]


@pytest.mark.parametrize("loss", ["nce", "negative_sampling"])
def test_other_losses_collapse_to_their_declared_constants(loss):
    method = method_of("npid", **{**OPTIONS, "loss": loss})
    params, state, batch = start(method)
    found, *_ = loss_of(method, jax.tree.map(jnp.zeros_like, params), state, batch)
    (collapse,) = (value.at(16) for value in method.collapse)
    assert found == pytest.approx(constants(8)[loss], rel=1e-5)
    assert collapse.value == pytest.approx(constants(8)[loss])


def test_memory_is_read_then_written_for_the_batch_alone_and_the_normalizer_is_set_once():
    method = method_of("npid", **{**OPTIONS, "decay": 0.0})
    params, state, batch = start(method)
    np.testing.assert_allclose(jnp.linalg.norm(state["bank"], axis=1), 1.0, rtol=1e-6)
    _, first, metrics = loss_of(method, params, state, batch)
    before, after = state["bank"], first["bank"]
    np.testing.assert_array_equal(after[16:], before[16:])
    assert np.all(np.any(after[:16] != before[:16], axis=1))
    # Scores are within ±1/τ, so Z is within M exp(±1/τ).
    assert abs(float(metrics["log_normalizer"]) - math.log(40)) < 1 / 0.07
    assert bool(first["normalized"]) and not bool(state["normalized"])
    _, second, later = loss_of(method, params, first, batch, step=1)
    assert float(second["log_normalizer"]) == float(first["log_normalizer"])
    # Decay 0 stores the queries: had they been written before they were read, the first batch would have found itself.
    assert float(metrics["alignment"]) > 0.5 and float(later["alignment"]) < 1e-6


def test_update_averages_then_normalizes_and_of_equal_images_keeps_the_last():
    random = np.random.default_rng(0)
    bank, q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in random.normal(size=(2, 5, 3)))
    index, expected = [4, 1, 4, 0, 1], bank.copy()
    for place, row in zip(index, q, strict=True):
        blended = 0.5 * bank[place] + 0.5 * row  # all read the memory from before the batch
        expected[place] = blended / np.linalg.norm(blended)
    arrays = jnp.asarray(bank, jnp.float32), jnp.array(index), jnp.asarray(q, jnp.float32)
    np.testing.assert_allclose(jax.jit(update_memory_bank)(*arrays, 0.5), expected, rtol=1e-5)


def test_decay_may_be_traced_and_moves_no_gradient():
    arrays = jnp.eye(3), jnp.array([0, 2]), jnp.ones((2, 3))
    assert not np.any(jax.grad(lambda q: jnp.sum(update_memory_bank(*arrays[:2], q, 0.3)))(arrays[2]))
    stacked = jax.vmap(lambda d: update_memory_bank(*arrays, d))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(stacked[1], arrays[0], atol=1e-7)
    np.testing.assert_allclose(stacked[0][0], 1 / math.sqrt(3), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "infonce"}, "loss='infonce'"),
        ({"num_examples": 0}, "num_examples=0"),
        ({"negatives": 0}, "negatives=0"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("npid", **options)
