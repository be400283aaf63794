"""Losses of frames: loops, what is chosen, where gradients go."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.temporal import pair_info_nce, ranking, semi_hard_triplet, time_masks

CLIPS, TIMES = np.repeat([3, 5], 6), np.tile(np.arange(6), 2)
X = jax.random.normal(jax.random.key(0), (12, 4))
UNIT = np.asarray(X / jnp.linalg.norm(X, axis=1, keepdims=True), np.float64)


def masks(across=False, near=1, far=2):
    return time_masks(jnp.asarray(CLIPS), jnp.asarray(TIMES), near=near, far=far, across=across)


@pytest.mark.parametrize("across", [False, True])
def test_masks_equal_a_loop(across):
    positives, negatives = masks(across)
    for i, j in np.ndindex(12, 12):
        same, apart = CLIPS[i] == CLIPS[j], abs(int(TIMES[i]) - int(TIMES[j]))
        assert positives[i, j] == (same and 0 < apart <= 1)
        assert negatives[i, j] == ((same and apart > 2) or (not same and across))


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("margin", [0.2, 3.0])
def test_semi_hard_triplets_equal_a_loop(across, margin):
    positives, negatives = masks(across)
    squared = ((UNIT[:, None] - UNIT[None]) ** 2).sum(axis=-1)
    costs = []
    for a, p in np.argwhere(positives):
        others = squared[a][np.asarray(negatives[a])]
        if len(others):
            beyond = others[others > squared[a, p]]
            costs.append(max(0.0, squared[a, p] - (beyond.min() if len(beyond) else others.max()) + margin))
    loss, active = jax.jit(semi_hard_triplet)(X, positives, negatives, margin=margin)
    np.testing.assert_allclose(loss, np.mean(costs), rtol=1e-5)
    np.testing.assert_allclose(active, np.mean(np.array(costs) > 0), rtol=1e-6)


def test_info_nce_equals_a_loop():
    positives, negatives = masks(across=True)
    scores = UNIT @ UNIT.T / 0.3
    costs = []
    for a, p in np.argwhere(positives):
        sums = np.exp(scores[a, p]) + np.exp(scores[a][np.asarray(negatives[a])]).sum()
        costs.append(np.log(sums) - scores[a, p])
    found = jax.jit(pair_info_nce)(X, positives, negatives, temperature=0.3)
    np.testing.assert_allclose(found, np.mean(costs), rtol=1e-5)


LOSSES = {
    "triplet": lambda x, p, n: semi_hard_triplet(x, p, n, margin=0.5)[0],
    "info_nce": lambda x, p, n: pair_info_nce(x, p, n),
}


@pytest.mark.parametrize("name", LOSSES)
def test_frames_without_negatives_count_for_nothing_and_gradients_are_finite(name):
    positives, negatives = masks(far=3)
    loss = LOSSES[name]
    # The middle frames have none at |Δt| > 3, but may be positives of others.
    assert not negatives[2].any()
    kept = loss(X, positives.at[2].set(False), negatives)
    value, gradient = jax.value_and_grad(loss)(X, positives, negatives)
    np.testing.assert_allclose(value, kept, rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    none = jnp.zeros_like(positives)
    value, gradient = jax.value_and_grad(loss)(X, none, none)
    assert float(value) == 0
    assert not gradient.any()
    assert loss(X.astype(jnp.bfloat16), positives, negatives).dtype == jnp.float32


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_differences(name):
    inputs = masks(across=True)
    loss = lambda x: LOSSES[name](x, *inputs)  # noqa: E731
    with jax.enable_x64(True):
        x, direction = (jnp.asarray(np.random.default_rng(s).normal(size=(12, 4))) for s in (0, 1))
        slope = (loss(x + 1e-6 * direction) - loss(x - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(x), direction), slope, rtol=1e-5)


def test_alike_frames_cost_the_margin_and_log_of_the_candidates():
    positives, negatives = masks(across=True)
    same = jnp.ones((12, 4))
    np.testing.assert_allclose(semi_hard_triplet(same, positives, negatives, margin=0.3)[0], 0.3, rtol=1e-6)
    counts = np.repeat(np.asarray(negatives).sum(axis=1), np.asarray(positives).sum(axis=1))
    np.testing.assert_allclose(pair_info_nce(same, positives, negatives), np.log1p(counts).mean(), rtol=1e-6)


PARTNERS = jnp.arange(12).reshape(6, 2)[:, ::-1].reshape(-1)
OTHERS = jnp.asarray(np.arange(12)[:, None] // 2 != np.arange(12)[None] // 2)
COSINES = 1 - UNIT @ UNIT.T


def test_ranking_with_all_negatives_is_the_mean_hinge():
    loss, active = jax.jit(lambda x: ranking(jax.random.key(0), x, PARTNERS, OTHERS, negatives=10, hard=4))(X)
    hinges = [
        max(0.0, COSINES[a, PARTNERS[a]] - COSINES[a, n] + 1) for a, n in np.argwhere(np.asarray(OTHERS))
    ]
    np.testing.assert_allclose(loss, np.mean(hinges), rtol=1e-5)
    np.testing.assert_allclose(active, np.mean(np.array(hinges) > 0), rtol=1e-6)


def chosen(key, **options):
    """Which negatives have a gradient on their distance: rows move on axes of their own."""
    # Unit rows of ever larger angle to the first, which is the anchor that is looked at.
    angles = jnp.linspace(0.0, 1.5, 12)
    rows = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    alone = PARTNERS.at[1:].set(-1)
    loss = lambda x: ranking(key, x, alone, OTHERS, margin=1.0, **options)[0]  # noqa: E731
    gradient = jax.grad(loss)(rows)
    return {int(i) for i in np.flatnonzero(np.abs(gradient).sum(axis=1) > 1e-7)} - {0, 1}


def test_hard_negatives_are_of_the_nearest_and_random_ones_of_all():
    draws = [chosen(key, negatives=4, hard=2) for key in jax.random.split(jax.random.key(1), 12)]
    assert all(len(draw) == 4 for draw in draws)
    # The four nearest candidates of row 0 are 2, 3, 4, 5: two of them at least are taken, others by chance.
    assert all(len(draw & {2, 3, 4, 5}) >= 2 for draw in draws)
    assert set.union(*draws) > {2, 3, 4, 5}
    assert len({frozenset(draw) for draw in draws}) > 3
    assert chosen(jax.random.key(0), negatives=4, hard=4) == {2, 3, 4, 5}


def test_ranking_is_the_margin_when_all_agree_and_0_when_all_are_apart():
    for rows in (jnp.ones((12, 3)), jnp.zeros((12, 3))):
        value = ranking(jax.random.key(0), rows, PARTNERS, OTHERS, margin=0.7)[0]
        np.testing.assert_allclose(value, 0.7, rtol=1e-6)
    apart = jnp.repeat(jnp.eye(6), 2, axis=0)
    assert float(ranking(jax.random.key(0), apart, PARTNERS, OTHERS, margin=0.9)[0]) == 0
    few = ranking(jax.random.key(0), jnp.ones((12, 3)), PARTNERS, OTHERS, margin=0.7, negatives=40)[0]
    np.testing.assert_allclose(few, 0.7, rtol=1e-6)
    nobody = ranking(jax.random.key(0), X, jnp.full(12, -1), OTHERS)
    assert [float(x) for x in nobody] == [0.0, 0.0]
    assert math.isfinite(
        float(jax.grad(lambda x: ranking(jax.random.key(0), x, PARTNERS, OTHERS)[0])(X).sum())
    )


@pytest.mark.parametrize("options", [{"negatives": 0, "hard": 0}, {"negatives": 2, "hard": 3}])
def test_counts_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=r"negatives=0|hard=3"):
        inspect.unwrap(ranking)(jax.random.key(0), X, PARTNERS, OTHERS, **options)


def test_a_temperature_of_0_is_refused():
    with pytest.raises(ValueError, match=r"temperature=0\.0"):
        inspect.unwrap(pair_info_nce)(X, *masks(), temperature=0.0)
