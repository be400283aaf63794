"""The moving average against closed forms, golden numbers and an independent loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops import schedules
from ssl_jax.optim.ema import ema
from tests.golden_files import assert_close, golden


def run(transform, start, values):
    state = transform.init(start)
    average = start
    for value in values:
        average, state = transform.update(value, state)
    return average, state


def test_update_equals_the_golden_momentum_update_of_lightly_in_float64_and_float32():
    data = golden("schedules")
    for wide, tolerance in ((True, 1e-8), (False, 1e-5)):
        with jax.enable_x64(wide):
            teacher = {name: jnp.asarray(data[f"in__target_{name}"]) for name in "wb"}
            student = {name: jnp.asarray(data[f"in__online_{name}"]) for name in "wb"}
            average, _ = run(ema(0.99), teacher, [student])
            for name in "wb":
                assert_close(average[name], data[f"ema_update__out__target_{name}"], tolerance=tolerance)


def test_several_steps_equal_the_closed_form():
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    average, state = run(ema(0.9), jnp.ones(3), list(values))
    expected = 0.9**5 * np.ones(3) + sum(0.1 * 0.9 ** (4 - t) * values[t] for t in range(5))
    np.testing.assert_allclose(average, expected, rtol=1e-5)
    assert int(state.count) == 5
    np.testing.assert_array_equal(state.average, average)


@pytest.mark.parametrize("decay", [0.8, schedules.linear(0.5, 0.9, 4)], ids=["constant", "scheduled"])
def test_debiased_average_is_the_weighted_mean_of_what_was_seen(decay):
    values = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    average, _ = run(ema(decay, debias=True), jnp.full(2, 99.0), list(values))
    decays = [float(decay(t)) if callable(decay) else decay for t in range(4)]
    weights = [(1 - decays[t]) * np.prod(decays[t + 1 :]) for t in range(4)]
    np.testing.assert_allclose(average, np.average(values, axis=0, weights=weights), rtol=1e-5)


def test_debiased_average_is_zero_and_finite_while_nothing_has_entered():
    average, _ = run(ema(1.0, debias=True), jnp.ones(2), [jnp.ones(2)])
    np.testing.assert_array_equal(average, 0.0)


def test_schedule_is_read_at_the_step_before_the_update():
    # Decay 1 at step 0 keeps the start; decay 0 at step 1 copies.
    transform = ema(lambda step: jnp.where(step == 0, 1.0, 0.0))
    first, state = transform.update(jnp.full(2, 5.0), transform.init(jnp.ones(2)))
    second, _ = transform.update(jnp.full(2, 7.0), state)
    assert first.tolist() == [1.0, 1.0] and second.tolist() == [7.0, 7.0]


def test_decay_zero_copies_the_tree_bit_for_bit_and_decay_one_keeps_it():
    values = jnp.asarray(np.random.default_rng(2).normal(size=100).astype(np.float32)) * 1e-20
    start = jnp.full(100, 3.0)
    assert run(ema(0.0), start, [values])[0].tobytes() == values.tobytes()
    assert run(ema(1.0), start, [values])[0].tobytes() == start.tobytes()


def test_every_kind_of_tree_is_averaged_and_leaves_that_are_not_floating_are_copied():
    tree = {"a": (jnp.zeros(2), [jnp.zeros((1, 1))]), "count": jnp.array(1), "key": jax.random.key(0)}
    new = {"a": (jnp.ones(2), [jnp.ones((1, 1))]), "count": jnp.array(7), "key": jax.random.key(1)}
    average, state = run(ema(0.5), tree, [new])
    assert jax.tree.structure(average) == jax.tree.structure(tree) == jax.tree.structure(state.average)
    assert average["a"][0].tolist() == [0.5, 0.5] and int(average["count"]) == 7
    assert jnp.array_equal(jax.random.key_data(average["key"]), jax.random.key_data(new["key"]))


def test_bfloat16_inputs_are_averaged_in_float32_so_that_small_steps_are_not_lost():
    average, state = run(ema(0.999), jnp.ones(1, jnp.bfloat16), [jnp.zeros(1, jnp.bfloat16)] * 20)
    assert average.dtype == state.average.dtype == jnp.float32
    np.testing.assert_allclose(average, 0.999**20, rtol=1e-5)


def test_the_start_is_a_copy_that_donating_the_source_cannot_touch():
    start = jnp.ones(4)
    state = ema(0.9).init({"w": start})
    assert state.average["w"].unsafe_buffer_pointer() != start.unsafe_buffer_pointer()


@pytest.mark.parametrize("debias", [False, True])
def test_jit_equals_eager_with_a_traced_decay_and_state_types_are_stable(debias):
    def step(decay, tree):
        transform = ema(decay, debias=debias)
        return transform.update(tree, transform.init(jax.tree.map(jnp.zeros_like, tree)))

    tree = {"w": jnp.arange(3.0), "b": jnp.ones(2)}
    eager, compiled = step(0.9, tree), jax.jit(step)(jnp.float32(0.9), tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), eager, compiled)
    state = ema(0.9, debias=debias).init(tree)
    assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, eager[1])


def test_vmap_over_decays_equals_a_loop():
    decays, value = jnp.array([0.0, 0.3, 0.9]), jnp.arange(3.0)
    batched = jax.vmap(lambda d: run(ema(d), jnp.ones(3), [value, value])[0])(decays)
    for row, decay in zip(batched, decays, strict=True):
        np.testing.assert_allclose(row, run(ema(decay), jnp.ones(3), [value, value])[0], rtol=1e-6)


def test_gradient_through_the_average_is_one_minus_decay():
    gradient = jax.grad(lambda x: run(ema(0.75), jnp.zeros(()), [x])[0])(2.0)
    assert float(gradient) == 0.25
