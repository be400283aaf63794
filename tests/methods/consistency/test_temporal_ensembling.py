"""Temporal ensembling: the averages against closed forms and the paper's update of whole epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ssl_jax import optim
from ssl_jax.methods.parts.memory_bank import update_row_averages
from ssl_jax.optim.ema import debias_average, ema
from ssl_jax.train.program import make_program
from ssl_jax.train.sharding import batch_sharding, make_mesh
from tests.methods.case import loss_of, method_of, real_batch, start
from tests.methods.consistency.test_pi_model import check_labels, plain, without_classes

RNG = np.random.default_rng(0)


def collapsed(case):
    return without_classes(case)


def empty(average, examples, classes=3):
    return average.init(jnp.zeros((examples, classes)))._replace(weight=jnp.zeros((examples, 1)))


def predictions(*shape):
    return jnp.asarray(RNG.dirichlet(np.ones(3), shape), jnp.float32)


def test_labels_few_or_none():
    check_labels("temporal_ensembling", num_examples=20)


def test_whole_epochs_equal_the_papers_update():
    """Every image once an epoch, in another order each time: Z ← αZ + (1 − α)z, z̃ = Z / (1 − α^t)."""
    alpha, average = 0.6, ema(0.6, debias=True)
    memory, z = empty(average, 8), np.zeros((8, 3))
    for epoch in range(1, 6):
        seen = np.asarray(predictions(8))
        z = alpha * z + (1 - alpha) * seen
        for batch in RNG.permutation(8).reshape(4, 2):
            memory = update_row_averages(average, memory, jnp.asarray(batch), jnp.asarray(seen[batch]))
        np.testing.assert_allclose(memory.average, z, rtol=1e-5)
        np.testing.assert_allclose(debias_average(memory), z / (1 - alpha**epoch), rtol=1e-5)


def test_equal_predictions_are_their_own_target_however_often_they_came():
    average = ema(0.9, debias=True)
    memory, constant = empty(average, 4), predictions(4)
    for index in ([0, 1], [0], [0, 2], [0]):
        memory = update_row_averages(average, memory, jnp.array(index), constant[jnp.array(index)])
        for i in range(4):
            expected = constant[i] if memory.weight[i, 0] > 0 else jnp.zeros(3)
            np.testing.assert_allclose(debias_average(memory)[i], expected, rtol=1e-5)
    np.testing.assert_allclose(memory.weight.ravel(), [1 - 0.9**4, 0.1, 0.1, 0.0], rtol=1e-5)


def test_decay_zero_keeps_the_last_prediction_and_one_keeps_nothing():
    last, never = (ema(d, debias=True) for d in (0.0, 1.0))
    rows, index = predictions(2, 2), jnp.array([3, 1])
    memory, blank = empty(last, 5), empty(never, 5)
    for row in rows:
        memory = update_row_averages(last, memory, index, row)
        blank = update_row_averages(never, blank, index, row)
    np.testing.assert_array_equal(debias_average(memory)[index], rows[1])
    assert not np.any(debias_average(blank))


def test_images_that_do_not_come_are_untouched_and_of_equal_ones_the_last_is_written():
    average = ema(0.5, debias=True)
    memory = update_row_averages(average, empty(average, 6), jnp.arange(6), predictions(6))
    rows = predictions(3)
    after = jax.jit(lambda m, i, r: update_row_averages(average, m, i, r))(memory, jnp.array([2, 4, 2]), rows)
    for i in (0, 1, 3, 5):
        np.testing.assert_array_equal(after.average[i], memory.average[i])
        np.testing.assert_array_equal(after.weight[i], memory.weight[i])
    np.testing.assert_allclose(after.average[2], 0.5 * memory.average[2] + 0.5 * rows[2], rtol=1e-6)
    assert not np.any(
        jax.grad(lambda r: jnp.sum(update_row_averages(average, memory, jnp.arange(3), r).average))(rows)
    )


def test_target_is_read_before_it_is_written_and_new_images_have_none():
    method = method_of("temporal_ensembling", **plain(4.0), num_examples=20, decay=0.0)
    params, state, batch = start(method)
    batch = {**batch, "label": np.full(16, -1, np.int32), "index": np.arange(16, dtype=np.int32)}
    value, first, metrics = loss_of(method, params, state, batch)
    assert value == 0.0 and float(metrics["seen"]) == 0.0
    assert np.all(first["ensemble"].weight[:16] == 1.0) and not np.any(first["ensemble"].average[16:])
    np.testing.assert_allclose(first["ensemble"].average[:16].sum(axis=1), 1.0, rtol=1e-5)
    other = jax.tree.map(lambda x: x + 0.3 * jnp.ones_like(x), params)
    moved = {**batch, "index": np.arange(4, 20, dtype=np.int32)}
    value, second, metrics = loss_of(method, other, first, moved)
    assert float(metrics["seen"]) == 0.75
    targets, now = first["ensemble"].average[4:20], second["ensemble"].average[4:20]
    expected = np.sum((np.asarray(now) - np.asarray(targets))[:12] ** 2) / (16 * 10)
    np.testing.assert_allclose(metrics["consistency"], expected, rtol=1e-4)
    np.testing.assert_allclose(value, 4.0 * expected, rtol=1e-4)


def test_averages_may_be_spread_over_devices_by_a_rule():
    method, batch = method_of("temporal_ensembling", num_examples=64), real_batch()
    optimizer = optim.from_options("sgd", steps=4, learning_rate=0.05, scaling="none", batch_size=16)
    rules = [("ensemble", PartitionSpec("data"))]
    states = []
    for count, given in ((1, []), (8, [("ensemble/count", PartitionSpec()), *rules])):
        mesh = make_mesh(devices=jax.devices()[:count])
        program = make_program(method, optimizer, batch, mesh, rules=given)
        state = program.init(0)
        for _ in range(2):
            state, _ = program.step(state, jax.device_put(batch, batch_sharding(mesh)))
        states.append(state.state["ensemble"])
    assert states[1].average.sharding.spec == PartitionSpec("data")
    np.testing.assert_allclose(states[0].average, states[1].average, atol=1e-5)
    assert int((states[1].weight > 0).sum()) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_examples": 0}, "num_examples=0"),
        ({"decay": 1.5}, r"decay=1\.5"),
        ({"normalize_by": "all"}, "normalize_by='all'"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method = method_of("temporal_ensembling", **options)
        loss_of(method, *start(method))
