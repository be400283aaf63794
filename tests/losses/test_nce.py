"""Noise-contrastive estimation, negative sampling, choice among many, drawing by frequency: loops and closed forms."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.contrastive import info_nce
from ssl_jax.losses.nce import (
    cross_entropy,
    frequency_probabilities,
    frequency_sampler,
    information_bound,
    nce,
    negative_sampling,
)

RANDOM = np.random.default_rng(0)
OWN, OTHERS = RANDOM.normal(size=5), RANDOM.normal(size=(5, 7))
SCORES = jnp.asarray(OWN, jnp.float32), jnp.asarray(OTHERS, jnp.float32)
LOSSES = {
    "nce": lambda own, others: nce(own, others, log_normalizer=1.3, noise=0.02),
    "negative_sampling": negative_sampling,
    "cross_entropy": cross_entropy,
}
COMPILED = {name: jax.jit(jax.value_and_grad(loss, argnums=(0, 1))) for name, loss in LOSSES.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loop(name):
    """From the definitions, with plain exponentials."""
    terms, noise = [], 7 * 0.02
    for own, others in zip(OWN, OTHERS, strict=True):
        if name == "nce":
            s, rest = np.exp(own) / np.exp(1.3), np.exp(others) / np.exp(1.3)
            terms.append(-np.log(s / (s + noise)) - sum(np.log(noise / (r + noise)) for r in rest))
        elif name == "negative_sampling":
            terms.append(-np.log(sigmoid(own)) - sum(np.log(sigmoid(-r)) for r in others))
        else:
            terms.append(-np.log(np.exp(own) / (np.exp(own) + np.exp(others).sum())))
    return np.mean(terms)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_equals_a_loop_over_the_definition_in_float32_and_bfloat16(name):
    loss, gradients = COMPILED[name](*SCORES)
    np.testing.assert_allclose(loss, loop(name), rtol=1e-5)
    assert np.all(gradients[0] < 0) and np.all(gradients[1] > 0)  # the positive up, the others down
    narrow, gradients = COMPILED[name](*(x.astype(jnp.bfloat16) for x in SCORES))
    assert narrow.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow, loss, rtol=0.02)
    np.testing.assert_allclose(LOSSES[name](*SCORES), loss, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_negatives_does_not_matter(name):
    order = RANDOM.permutation(7)
    np.testing.assert_allclose(
        COMPILED[name](SCORES[0], SCORES[1][:, order])[0], COMPILED[name](*SCORES)[0], rtol=1e-6
    )


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_agrees_with_a_finite_difference(name):
    with jax.enable_x64(True):
        inputs = jnp.asarray(OWN), jnp.asarray(OTHERS)
        directions = RANDOM.normal(size=5), RANDOM.normal(size=(5, 7))
        above, below = (
            LOSSES[name](*(x + h * d for x, d in zip(inputs, directions, strict=True))) for h in (1e-5, -1e-5)
        )
        gradients = jax.grad(LOSSES[name], argnums=(0, 1))(*inputs)
        slope = sum(jnp.sum(g * d) for g, d in zip(gradients, directions, strict=True))
        np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6)


def test_equal_scores_give_the_constants_of_theory():
    k, examples = 64, 1000
    zeros = jnp.zeros(3), jnp.zeros((3, k))
    # Z = M exp(score) for all: the model is the noise, s = P = 1/M.
    matched = nce(*zeros, log_normalizer=math.log(examples), noise=1 / examples)
    expected = math.log(1 + k) + k * math.log(1 + 1 / k)
    np.testing.assert_allclose(matched, expected, rtol=1e-5)
    assert float(matched) == pytest.approx(math.log(k) + 1, rel=0.01)
    np.testing.assert_allclose(cross_entropy(*zeros), math.log(k + 1), rtol=1e-6)
    np.testing.assert_allclose(negative_sampling(*zeros), (k + 1) * math.log(2), rtol=1e-6)


def test_nce_is_negative_sampling_of_scores_less_the_normalizer_and_the_noise():
    offset = 1.3 + math.log(7 * 0.02)
    found = negative_sampling(*(x - offset for x in SCORES))
    np.testing.assert_allclose(COMPILED["nce"](*SCORES)[0], found, rtol=1e-6)


def test_nce_finds_the_normalizer_of_the_data():
    """Its minimum over log Z is at the true one: scores are log 3, 0 and the data follow them (Gutmann & Hyvärinen)."""
    scores, draws, k = jnp.log(jnp.array([3.0, 1.0])), 4000, 4
    data, noise = jax.random.split(jax.random.key(0))
    own = scores[(jax.random.uniform(data, (draws,)) > 0.75).astype(int)]
    others = scores[jax.random.randint(noise, (draws, k), 0, 2)]
    grid = jnp.linspace(0.8, 2.0, 61)
    losses = jax.vmap(lambda z: nce(own, others, log_normalizer=z, noise=0.5))(grid)
    assert float(grid[jnp.argmin(losses)]) == pytest.approx(math.log(4), abs=0.06)


def test_cross_entropy_of_shared_negatives_is_info_nce_and_one_negative_is_a_softplus():
    rows = [jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in ((5, 3), (5, 3), (4, 3))]
    q, keys, bank = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in rows)
    found = cross_entropy(jnp.sum(q * keys, axis=1) / 0.2, q @ bank.T / 0.2)
    np.testing.assert_allclose(found, info_nce(q, keys, bank, temperature=0.2), rtol=1e-5)
    one = cross_entropy(SCORES[0], SCORES[1][:, :1])
    np.testing.assert_allclose(one, np.mean(np.log1p(np.exp(OTHERS[:, 0] - OWN))), rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_large_scores_stay_finite(name):
    loss, gradients = COMPILED[name](-200 * jnp.ones(5), 200 * jnp.ones((5, 7)))
    assert np.isfinite(loss) and loss > 300 and all(np.isfinite(g).all() for g in gradients)


def test_information_bound_is_the_logarithm_less_the_loss_in_either_unit():
    assert float(information_bound(0.0, 8)) == pytest.approx(math.log(8))
    assert float(information_bound(0.0, 8, unit="bits")) == pytest.approx(3.0)
    assert float(information_bound(cross_entropy(jnp.zeros(2), jnp.zeros((2, 7))), 8)) == pytest.approx(0.0)


def test_sampler_draws_with_the_powers_of_the_counts():
    counts = jnp.array([0, 1, 16, 81, 0, 256])
    expected = np.array([0, 1, 8, 27, 0, 64]) / 100
    np.testing.assert_allclose(frequency_probabilities(counts), expected, rtol=1e-5)
    uniform = frequency_probabilities(counts, power=0.0)
    np.testing.assert_allclose(uniform, [0, 0.25, 0.25, 0.25, 0, 0.25], rtol=1e-6)
    draw = jax.jit(lambda key, power: frequency_sampler(key, counts, (100, 500), power=power))
    for power, wanted in ((0.75, expected), (1.0, np.asarray(counts) / 354)):
        drawn = draw(jax.random.key(1), power)
        assert drawn.dtype == jnp.int32 and drawn.shape == (100, 500)
        found = np.bincount(np.asarray(drawn).ravel(), minlength=6) / 50_000
        np.testing.assert_allclose(found, wanted, atol=0.01)
        assert not found[[0, 4]].any()
    assert np.any(draw(jax.random.key(2), 0.75) != drawn)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inspect.unwrap(cross_entropy)(jnp.zeros(0), jnp.zeros((0, 3))), "positives.shape"),
        (lambda: inspect.unwrap(negative_sampling)(jnp.zeros(2), jnp.zeros((2, 0))), "negatives.shape"),
        (lambda: nce(*SCORES, log_normalizer=0.0, noise=0.0), r"noise=0\.0"),
        (lambda: information_bound(1.0, 0), "candidates=0"),
        (lambda: information_bound(1.0, 4, unit="bit"), "did you mean 'bits'"),
        (lambda: inspect.unwrap(frequency_sampler)(jax.random.key(0), jnp.zeros(0), (2,)), "counts.shape"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
