"""The sweep of linear heads: the update by a numpy loop, what may choose, divergence, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.evaluate import sweep
from ssl_jax.evaluate.linear import hold_out

RNG = np.random.default_rng(0)
LABELS, TEST_LABELS = np.arange(90) % 3, np.arange(60) % 3
CENTERS = RNG.normal(size=(3, 6))
FEATURES = (CENTERS[LABELS] + RNG.normal(size=(90, 6)) * 0.7).astype(np.float32)
TEST = (CENTERS[TEST_LABELS] + RNG.normal(size=(60, 6)) * 0.7).astype(np.float32)
SETS = (FEATURES, LABELS, TEST, TEST_LABELS)
OPTIONS = {
    "classes": 3,
    "learning_rates": (3.0, 0.1),
    "weight_decays": (0.0, 0.01),
    "epochs": 2,
    "batch_size": 16,
    "holdout": 0.2,
}


def sgd(x, labels, orders, rate, decay, *, batch_norm):
    """One head by the update rule, float64."""
    w, b = np.zeros((x.shape[1], 3)), np.zeros(3)
    m, mb = np.zeros_like(w), np.zeros_like(b)
    for step, rows in enumerate(orders):
        batch = x[rows]
        if batch_norm:
            batch = (batch - batch.mean(0)) / np.sqrt(batch.var(0) + 1e-6)
        logits = batch @ w + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - np.eye(3)[labels[rows]]) / len(rows)
        now = rate * 0.5 * (1 + np.cos(np.pi * step / len(orders)))
        m, mb = 0.9 * m + batch.T @ error + decay * w, 0.9 * mb + error.sum(0)
        w, b = w - now * m, b - now * mb
    return w, b


@pytest.mark.parametrize("normalization", sweep.NORMALIZATIONS)
def test_every_cell_of_the_grid_equals_a_loop_over_the_update_rule(normalization):
    result = sweep.linear_sweep(*SETS, **OPTIONS, normalization=normalization)
    x, t = FEATURES.astype(np.float64), TEST.astype(np.float64)
    if normalization != "none":
        x, t = ((part - FEATURES.mean(0)) / FEATURES.std(0) for part in (x, t))

    def orders(examples):
        """The same minibatches for every cell, from the seed."""
        steps = examples // 16
        keys = [jax.random.fold_in(jax.random.key(0), epoch) for epoch in range(2)]
        rows = [np.asarray(jax.random.permutation(key, examples))[: 16 * steps] for key in keys]
        return np.concatenate(rows).reshape(-1, 16)

    held, rest = hold_out(90, holdout=0.2, seed=0)
    batch_norm = normalization == "batch"
    for i, rate in enumerate(result.learning_rates):
        for j, decay in enumerate(result.weight_decays):
            w, b = sgd(x[rest], LABELS[rest], orders(72), rate * 16 / 256, decay, batch_norm=batch_norm)
            expected = np.mean(np.argmax(x[held] @ w + b, axis=1) == LABELS[held])
            assert result.grid[i, j] == pytest.approx(expected)
    w, b = sgd(
        x, LABELS, orders(90), result.learning_rate * 16 / 256, result.weight_decay, batch_norm=batch_norm
    )
    assert result.accuracy == pytest.approx(np.mean(np.argmax(t @ w + b, axis=1) == TEST_LABELS))
    assert result.validation == result.grid.max() and result.learning_rates == (0.1, 3.0)


def test_the_choice_does_not_depend_on_the_test_set_and_a_seed_gives_the_same_numbers():
    flipped = (FEATURES, LABELS, -TEST, (TEST_LABELS + 1) % 3)
    honest, again, other = (sweep.linear_sweep(*sets, **OPTIONS) for sets in (SETS, SETS, flipped))
    np.testing.assert_array_equal(honest.grid, other.grid)
    assert (honest.learning_rate, honest.weight_decay) == (other.learning_rate, other.weight_decay)
    assert honest.accuracy == again.accuracy


def test_the_held_out_part_is_not_fitted():
    # Labels that are pure noise in features with room to memorise: held-out accuracy must stay near chance.
    x, y = RNG.normal(size=(120, 60)).astype(np.float32), RNG.integers(0, 2, 120)
    result = sweep.linear_sweep(
        x,
        y,
        x,
        y,
        classes=2,
        learning_rates=(3.0,),
        weight_decays=(0.0,),
        epochs=30,
        batch_size=30,
        holdout=0.5,
    )
    assert result.accuracy > 0.9 and result.validation < 0.7


def test_cells_do_not_see_each_other_even_if_one_diverges():
    x = (100 * FEATURES).astype(np.float32)
    wild = {**OPTIONS, "learning_rates": (0.001, 1e30), "weight_decays": (10.0,), "normalization": "none"}
    result = sweep.linear_sweep(x, LABELS, 100 * TEST, TEST_LABELS, **wild)
    alone = sweep.linear_sweep(x, LABELS, 100 * TEST, TEST_LABELS, **{**wild, "learning_rates": (0.001,)})
    assert result.grid[1, 0] == 0.0 and result.learning_rate == 0.001
    assert result.grid[0, 0] == pytest.approx(alone.grid[0, 0]) and result.accuracy == alone.accuracy


@pytest.mark.parametrize("normalization", sweep.NORMALIZATIONS)
def test_constant_features_stay_finite_and_near_chance(normalization):
    ones = np.full((90, 6), 7.0, np.float32)
    result = sweep.linear_sweep(ones, LABELS, ones, LABELS, **OPTIONS, normalization=normalization)
    assert np.isfinite(result.grid).all() and result.accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("rate", "decay", "expected"),
    [
        (0.1, 0.1, ()),
        (0.01, 0.0, ("learning_rate",)),
        (1.0, 0.5, ("learning_rate", "weight_decay")),
        (0.1, 0.0, ()),
    ],
)
def test_a_best_value_at_an_end_of_the_grid_is_reported_except_no_decay_at_all(rate, decay, expected):
    assert sweep.edges_of_grid(rate, decay, [0.01, 0.1, 1.0], [0.0, 0.1, 0.5]) == expected
    assert sweep.edges_of_grid(rate, decay, [rate], [decay]) == ()


def test_inputs_spread_over_devices_and_bfloat16_agree():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    plain = sweep.linear_sweep(*SETS, **OPTIONS)
    spread = sweep.linear_sweep(*(jax.device_put(part, rows) for part in SETS), **OPTIONS)
    np.testing.assert_allclose(spread.grid, plain.grid, atol=1e-6)
    narrow = [jnp.asarray(part, jnp.bfloat16) for part in (FEATURES, TEST)]
    loose = sweep.linear_sweep(narrow[0], LABELS, narrow[1], TEST_LABELS, **OPTIONS)
    assert loose.accuracy == pytest.approx(plain.accuracy, abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": ()}, r"learning_rates=\(\)"),
        ({"learning_rates": (0.0,)}, "learning_rates=.*above 0"),
        ({"weight_decays": (-1.0,)}, "weight_decays=.*0 or more"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 73}, r"batch_size=73: allowed is an integer in \[1, 72\]"),
        ({"holdout": 1.0}, "holdout=1.0"),
        ({"normalization": "batchnorm"}, "did you mean 'batch'"),
        ({"classes": 2}, r"train_labels=\[2\]"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sweep.linear_sweep(*SETS, **{**OPTIONS, **change})


def test_with_64_bits_the_sweep_is_the_same():
    """As under ``JAX_ENABLE_X64``, where numbers of Python become float64."""
    expected = sweep.linear_sweep(*SETS, **OPTIONS)
    with jax.enable_x64(True):
        found = sweep.linear_sweep(*SETS, **OPTIONS)
    assert (found.accuracy, found.learning_rate, found.weight_decay) == (
        expected.accuracy,
        expected.learning_rate,
        expected.weight_decay,
    )
    np.testing.assert_allclose(found.validation, expected.validation, atol=0.06)
