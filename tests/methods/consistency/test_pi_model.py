"""Π-model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_inputs, loss_of, method_of, start, with_average

PLAIN = {"noise": 0.0, "dropout": 0.0, "ramp": {"steps": 0}}


def plain(weight):
    """No noise, and the weight from the start."""
    return {**PLAIN, "ramp": {"steps": 0, "weight": weight}}


def without_classes(case):
    """Loss with all params 0, those of a teacher too: every class is as likely, to every pass; all images have a label."""
    params, state, batch = jax.tree.map(jnp.asarray, loss_inputs(case))
    zero = jax.tree.map(jnp.zeros_like, params)
    if "teacher" in state:
        teacher = state["teacher"]
        state["teacher"] = with_average(teacher, jax.tree.map(jnp.zeros_like, teacher.params))
    value, _, metrics = loss_of(case.method, zero, state, batch, step=5)
    (collapse,) = (value.at(16) for value in case.method.collapse)
    assert collapse.metric == "cross_entropy"
    assert float(metrics["cross_entropy"]) == pytest.approx(collapse.value)
    assert float(metrics.get("consistency", 0.0)) == 0.0
    return value, math.log(10)


def collapsed(case):
    return without_classes(case)


def half_labeled(batch):
    """Labels 0, 1, ... of the first half."""
    return {**batch, "label": np.where(np.arange(16) < 8, np.arange(16), -1).astype(np.int32)}


def check_labels(name, **options):
    """What every method of the family does with batches of few labels, many or none."""
    method = method_of(name, **{**plain(0.0), **options})
    params, state, batch = start(method)
    none = {**batch, "label": np.full(16, -1, np.int32)}
    gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    (value, (kept, metrics)), to_params = gradient(params, state, none, jax.random.key(2), jnp.int32(3))
    assert float(value) == 0.0 and not any(np.any(g) for g in jax.tree.leaves(to_params))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((kept, metrics)))
    weighted = method_of(name, **{**plain(3.0), **options, "dropout": 0.5})
    gradient = jax.jit(jax.value_and_grad(weighted.loss, has_aux=True))
    (value, (_, metrics)), to_params = gradient(params, state, none, jax.random.key(2), jnp.int32(3))
    np.testing.assert_allclose(value, 3.0 * metrics["consistency"], rtol=1e-6)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(to_params))
    # Half of the labels: the cost over the batch is half of that over the labelled.
    costs = [
        loss_of(method_of(name, **{**plain(0.0), **options, "normalize_by": n}), params, state, some)[0]
        for some in (half_labeled(batch),)
        for n in ("batch", "labeled")
    ]
    assert costs[0] == pytest.approx(0.5 * costs[1], rel=1e-6)


def test_labels_few_or_none():
    check_labels("pi_model")


def test_loss_is_the_cross_entropy_plus_the_weighted_difference_of_two_passes():
    method = method_of("pi_model", **plain(7.0))
    params, state, batch = start(method)
    batch = half_labeled(batch)
    params["classifier"]["dense_0"]["kernel"] *= 100.0
    value, _, metrics = loss_of(method, params, state, batch)
    images, logits = batch["views"][0], []
    for view in range(2):
        features, _ = method.encoder.apply(params["encoder"], state["encoder"], images[:, view], train=True)
        layer = params["classifier"]["dense_0"]
        logits.append(np.asarray(features @ layer["kernel"] + layer["bias"], np.float64))
    p = [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in logits]
    cost = -np.log(p[0][np.arange(8), np.arange(8)]).sum() / 16
    difference = np.mean((p[0] - p[1]) ** 2)
    np.testing.assert_allclose(metrics["consistency"], difference, rtol=1e-4)
    np.testing.assert_allclose(value, cost + 7.0 * difference, rtol=1e-4)
    assert difference > 1e-4


def test_both_passes_get_a_gradient():
    """With the two passes swapped the second term is the same, and so is its gradient."""
    method = method_of("pi_model", **plain(1.0))
    params, state, batch = start(method)
    batch = {**batch, "label": np.full(16, -1, np.int32)}
    swapped = {**batch, "views": (batch["views"][0][:, ::-1],)}
    gradient = jax.jit(jax.grad(lambda p, b: method.loss(p, state, b, jax.random.key(2), jnp.int32(0))[0]))
    first, second = gradient(params, batch), gradient(params, swapped)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(float(jnp.abs(a).max()), 1e-4))


def test_one_view_differs_only_by_noise_and_dropout():
    views = method_of("pi_model").views[:1]
    for options, agree in (
        (PLAIN, True),
        ({**PLAIN, "noise": 0.3}, False),
        ({**PLAIN, "dropout": 0.5}, False),
    ):
        method = dataclasses.replace(method_of("pi_model", **options), views=views)
        value = float(loss_of(method, *start(method))[2]["consistency"])
        assert (value == 0.0) is agree


def test_weight_rises_after_its_quiet_steps():
    method = method_of("pi_model", ramp={"weight": 2.0, "steps": 4, "quiet_steps": 1})
    params, state, batch = start(method)
    found = [float(loss_of(method, params, state, batch, step=s)[2]["weight"]) for s in (0, 1, 4)]
    np.testing.assert_allclose(found, [0.0, 2 * math.exp(-5 * 0.75**2), 2.0], rtol=1e-6)


def test_classifier_reads_the_features_that_encode_gives():
    method = method_of("pi_model")
    params, state, batch = start(method)
    images, layer = batch["views"][0][:, 0], params["classifier"]["dense_0"]
    expected = method.encode(params, state, images) @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(method.classify(params, state, images)["classifier"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes=1"),
        ({"noise": -1.0}, r"noise=-1\.0"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"ramp": {"steps": -1}}, "steps=-1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("pi_model", **options)
