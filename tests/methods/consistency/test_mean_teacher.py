"""Mean Teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start, with_average
from tests.methods.consistency.test_pi_model import PLAIN, check_labels, half_labeled, plain, without_classes


def collapsed(case):
    return without_classes(case)


def shifted(tree, by):
    return jax.tree.map(lambda x: x + by, tree)


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_labels_few_or_none(kind):
    check_labels("mean_teacher", consistency=kind)


def test_teacher_starts_as_the_mean_of_all_weights_and_changes_to_the_decay():
    method = method_of("mean_teacher", decay=0.7)
    params, state, _ = start(method)
    for k, expected in ((1, 0.5), (2, 1.0), (3, 0.3 * 3 + 0.7 * 1.0)):
        state = method.after_update(shifted(params, float(k)), state, jnp.int32(k - 1))
        averaged = state["teacher"].params
        difference = averaged["classifier"]["dense_0"]["bias"] - params["classifier"]["dense_0"]["bias"]
        np.testing.assert_allclose(difference, expected, rtol=1e-5)
    constant = method_of("mean_teacher", decay=0.7, ramp_decay=False)
    after = constant.after_update(shifted(params, 1.0), start(constant)[1], jnp.int32(0))
    averaged = after["teacher"].params["classifier"]["dense_0"]["bias"]
    np.testing.assert_allclose(averaged, 0.3, rtol=1e-5)


def test_teacher_starts_from_the_student_or_from_weights_of_its_own():
    for own, same in ((False, True), (True, False)):
        params, state, _ = start(method_of("mean_teacher", independent_init=own))
        kernel = state["teacher"].params["classifier"]["dense_0"]["kernel"]
        assert np.array_equal(kernel, params["classifier"]["dense_0"]["kernel"]) is same


def test_teacher_has_batch_statistics_of_its_own_view():
    method = method_of("mean_teacher", **PLAIN)
    params, state, batch = start(method)
    _, after, _ = loss_of(method, params, state, batch)
    old, student, teacher = (
        jax.tree.leaves(x) for x in (state["online"], after["online"], after["teacher"].state)
    )
    assert any(np.any(a != b) for a, b in zip(old, teacher, strict=True))
    assert any(np.any(a != b) for a, b in zip(student, teacher, strict=True))


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_loss_is_the_cross_entropy_plus_the_weighted_difference_from_the_teacher(kind):
    method = method_of("mean_teacher", **plain(5.0), consistency=kind)
    params, state, batch = start(method)
    batch = half_labeled(batch)
    teacher = jax.tree.map(lambda x: 1.3 * x, state["teacher"].params)
    state["teacher"] = with_average(state["teacher"], teacher)
    value, _, metrics = loss_of(method, params, state, batch)
    found = []
    for variables, view in ((params, 0), (teacher, 1)):
        images = batch["views"][0][:, view]
        features, _ = method.encoder.apply(
            variables["encoder"], state["online"]["encoder"], images, train=True
        )
        layer = variables["classifier"]["dense_0"]
        found.append(np.asarray(features @ layer["kernel"] + layer["bias"], np.float64))
    q, p = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in found)
    cost = -np.log(q[np.arange(8), np.arange(8)]).sum() / 16
    distance = np.mean((q - p) ** 2) if kind == "mse" else np.mean(np.sum(p * np.log(p / q), axis=1))
    np.testing.assert_allclose(metrics["consistency"], distance, rtol=1e-3)
    np.testing.assert_allclose(value, cost + 5.0 * distance, rtol=1e-4)


def test_second_classifier_agrees_with_the_teachers_first():
    method = method_of("mean_teacher", **plain(2.0), logit_distance=0.5)
    params, state, batch = start(method)
    assert sorted(params) == ["classifier", "consistent", "encoder"]
    batch = {**batch, "label": jnp.full(16, -1)}
    alike = {**params, "consistent": params["classifier"]}
    same = {**batch, "views": (jnp.repeat(batch["views"][0][:, :1], 2, axis=1),)}
    # Both classifiers are the teacher's, all see the same: nothing differs.
    assert loss_of(method, alike, state, same)[0] == pytest.approx(0.0, abs=1e-10)
    far = {**alike, "consistent": shifted(params["classifier"], 0.0)}
    bias = far["consistent"]["dense_0"]["bias"]
    far["consistent"]["dense_0"]["bias"] = bias + jnp.arange(10.0)
    value, _, metrics = loss_of(method, far, state, same)
    distance = 0.5 * np.mean(np.arange(10.0) ** 2)
    np.testing.assert_allclose(value, 2.0 * metrics["consistency"] + distance, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: method.loss(p, state, same, jax.random.key(2), jnp.int32(0))[0]))
    to_params = gradient(far)
    for name in ("classifier", "consistent"):
        assert np.any(to_params[name]["dense_0"]["bias"])


def test_encode_and_classify_are_the_teachers():
    method = method_of("mean_teacher")
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    moved = shifted(params, 1.0)
    np.testing.assert_array_equal(method.encode(params, state, images), method.encode(moved, state, images))
    first, second = (method.classify(p, state, images) for p in (params, moved))
    np.testing.assert_array_equal(first["classifier"], second["classifier"])
    np.testing.assert_allclose(first["classifier"], first["student"], atol=1e-6)
    assert np.any(first["student"] != second["student"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"consistency": "l1"}, "consistency='l1'"), ({"decay": -0.1}, r"decay=-0\.1")],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("mean_teacher", **options)
