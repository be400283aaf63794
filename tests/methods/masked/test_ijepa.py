"""I-JEPA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.decoders import jepa_predictor
from tests.methods.case import loss_of, method_of, start, with_average
from tests.models.fill import random_variables


def collapsed(case):
    """A teacher whose tokens are all 0, and predictions 0: nothing is left, so the targets' spread tells the collapse."""
    params, state, batch = start(case.method)
    zero = jax.tree.map(jnp.zeros_like, params)
    still = {**state, "teacher": jax.tree.map(jnp.zeros_like, state["teacher"])}
    loss, _, metrics = loss_of(case.method, zero, still, batch)
    assert float(metrics["target_std"]) == 0.0
    return loss, 0.0


def test_loss_at_zero_predictions_is_half_the_variance_of_the_targets_over_beta():
    method = method_of("ijepa", beta=100.0)
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    # Targets have mean 0 and variance 1 over features: d²/(2β).
    np.testing.assert_allclose(loss_of(method, zero, state, batch)[0], 0.5 / 100, rtol=1e-3)


def test_no_gradient_reaches_the_teacher_and_it_follows_in_a_straight_line():
    method = method_of("ijepa", decay=0.5, decay_steps=4)
    params, state, batch = start(method)
    moved = {**params, "encoder": jax.tree.map(lambda x: x + 1, params["encoder"])}
    for step, share in ((0, 0.5), (1, 0.375)):
        fresh = {**state, "teacher": state["teacher"]}
        for _ in range(step):
            fresh = method.after_update(params, fresh, jnp.int32(0))
        after = method.after_update(moved, fresh, jnp.int32(step))
        for old, new in zip(
            jax.tree.leaves(state["teacher"].params), jax.tree.leaves(after["teacher"].params), strict=True
        ):
            np.testing.assert_allclose(new, old + share, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(
        lambda teacher: method.loss(
            params,
            {**state, "teacher": with_average(state["teacher"], teacher)},
            batch,
            jax.random.key(2),
            0,
        )[0]
    )(state["teacher"].params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_decay_0_makes_the_teacher_the_student_of_the_step_before_for_the_whole_run():
    method = method_of("ijepa", decay=0.0, decay_steps=4)
    params, state, _ = start(method)
    for step in range(4):
        moved = {**params, "encoder": jax.tree.map(lambda x, k=step: x + k + 1.0, params["encoder"])}
        state = method.after_update(moved, state, jnp.int32(step))
        jax.tree.map(np.testing.assert_array_equal, state["teacher"].params, moved["encoder"])


def predicted(seed=0, **changes):
    predictor = jepa_predictor(outputs=8, grid=3, width=16, depth=2, heads=2)
    inputs = {
        "context": jnp.array([[0, 4, 8, 1]]),
        "present": jnp.array([[True, True, True, False]]),
        "targets": jnp.array([[[2, 5, 0], [6, 7, 3]]]),
        "counted": jnp.array([[[True, True, False], [True, True, True]]]),
    }
    tokens = jnp.asarray(np.random.default_rng(seed).normal(size=(1, 4, 8)), jnp.float32)
    params, state = random_variables(
        predictor._replace(init=functools.partial(predictor.init, **inputs)), tokens
    )
    tokens = changes.pop("tokens", lambda x: x)(tokens)
    return np.asarray(predictor.apply(params, state, tokens, **{**inputs, **changes})[0])


def test_predictions_depend_on_the_positions_and_the_present_context_only():
    base = predicted()
    swapped = predicted(targets=jnp.array([[[5, 2, 0], [6, 7, 3]]]))
    np.testing.assert_allclose(swapped[0, 0, :2], base[0, 0, 1::-1], atol=1e-5)
    assert np.abs(base[0, 0, 0] - base[0, 0, 1]).max() > 1e-3
    absent = predicted(tokens=lambda x: x.at[0, 3].add(5.0))
    np.testing.assert_allclose(absent[0, 0, :2], base[0, 0, :2], atol=1e-5)
    np.testing.assert_allclose(absent[0, 1], base[0, 1], atol=1e-5)
    present = predicted(tokens=lambda x: x.at[0, 0].add(5.0))
    assert np.abs(present[0, 1] - base[0, 1]).max() > 1e-3


def test_blocks_are_predicted_each_by_itself_and_unwanted_positions_change_no_prediction():
    base = predicted()
    other = predicted(targets=jnp.array([[[2, 5, 3], [0, 1, 2]]]))
    np.testing.assert_allclose(other[0, 0, :2], base[0, 0, :2], atol=1e-5)


def test_contexts_keep_their_sizes_and_one_program_serves_all_batches():
    method = method_of("ijepa")
    params, state, batch = start(method)
    compiled = jax.jit(method.loss)
    shares = [
        float(compiled(params, state, batch, jax.random.key(k), jnp.int32(0))[1][1]["context"])
        for k in range(8)
    ]
    assert len(set(shares)) > 1
    assert compiled._cache_size() == 1
    assert all(0.2 < share < 0.9 for share in shares)
    cut = method_of("ijepa", blocks={"truncate": True})
    fewer = [
        float(jax.jit(cut.loss)(params, state, batch, jax.random.key(k), jnp.int32(0))[1][1]["context"])
        for k in range(3)
    ]
    assert np.mean(fewer) < np.mean(shares)


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({}, {"class_token": True}, "class_token=False"),
        ({}, {"registers": 2}, "no registers"),
        ({"blocks": {"targets": 0}}, {}, "targets=0"),
        ({"decay": 1.5}, {}, r"decay=1\.5"),
    ],
)
def test_bad_options_are_refused_by_name(options, encoder, message):
    with pytest.raises(ValueError, match=message):
        method = method_of("ijepa", encoder=encoder, **options)
        loss_of(method, *start(method))
