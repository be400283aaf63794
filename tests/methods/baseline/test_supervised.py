"""Supervised training."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(case.config["method"]["classes"])


def with_logits(method, bias):
    """A start whose classifier says the same of every image, and a batch of the labels 0, 1, ..."""
    params, state, batch = start(method)
    layer = params["classifier"]["dense_0"]
    layer["kernel"], layer["bias"] = jnp.zeros_like(layer["kernel"]), jnp.asarray(bias, jnp.float32)
    return params, state, {**batch, "label": np.arange(16, dtype=np.int32) % 10}


BIAS = np.linspace(-2, 2, 10)
COSTS = -(BIAS - np.log(np.exp(BIAS).sum()))


def test_smoothed_labels_cost_their_share_of_every_class():
    method = method_of("supervised", label_smoothing=0.2)
    value, _, _ = loss_of(method, *with_logits(method, BIAS))
    expected = np.mean([0.8 * COSTS[i % 10] + 0.2 * COSTS.mean() for i in range(16)])
    assert value == pytest.approx(expected, rel=1e-5)


def test_mixed_targets_lie_between_those_of_the_two_images():
    plain, mixed = method_of("supervised"), method_of("supervised", mixup=0.8, cutmix=True)
    params, state, batch = with_logits(plain, BIAS)
    same = {**batch, "label": np.full(16, 3, np.int32)}
    # Partners of one class: nothing changes for a classifier that does not look.
    assert loss_of(mixed, params, state, same)[0] == pytest.approx(COSTS[3], rel=1e-5)
    half = {**batch, "label": np.repeat([0, 9], 8).astype(np.int32)}
    value = loss_of(mixed, params, state, half)[0]
    assert min(COSTS[0], COSTS[9]) < value < max(COSTS[0], COSTS[9])


def test_images_without_a_label_count_for_nothing():
    for options in ({}, {"label_smoothing": 0.1}):
        method = method_of("supervised", **options)
        params, state, batch = with_logits(method, BIAS)
        half = {**batch, "label": np.where(np.arange(16) < 8, 3, -1).astype(np.int32)}
        whole = {**batch, "label": np.full(16, 3, np.int32)}
        values = [loss_of(method, params, state, x)[0] for x in (half, whole)]
        np.testing.assert_allclose(*values, rtol=1e-6)


def test_erasing_changes_what_the_network_sees():
    params, state, batch = start(method_of("supervised"))
    values = [loss_of(method_of("supervised", erasing=p), params, state, batch)[0] for p in (0.0, 1.0)]
    assert values[0] != values[1]
    assert jax.tree.all(jax.tree.map(np.isfinite, values))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mixup": -1.0}, r"mixup=-1\.0"), ({"erasing": 2.0}, r"erasing=2\.0"), ({"classes": 1}, "classes=1")],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("supervised", **options)
