"""Boltzmann machines: all states of a tiny one, numpy updates, chains that reach the distribution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.energy import contrastive_divergence, free_energy, gibbs

RNG = np.random.default_rng(0)
MACHINE = tuple(jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((3, 4), (4,), (3,)))
STATES = np.array(list(itertools.product((0.0, 1.0), repeat=3)))


def energies():
    """E(v, h) of all 8 x 16 states, by the definition."""
    kernel, hidden_bias, visible_bias = (np.asarray(x, np.float64) for x in MACHINE)
    hidden = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    return np.array([[-visible_bias @ v - hidden_bias @ h - v @ kernel @ h for h in hidden] for v in STATES])


def test_free_energy_is_that_of_all_hidden_states():
    expected = -np.log(np.exp(-energies()).sum(axis=1))
    found = jax.jit(free_energy)(jnp.asarray(STATES, jnp.float32), *MACHINE)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_divergence_from_exact_samples_has_the_gradient_of_the_likelihood():
    """With every visible state, weighed by its probability as repeats cannot, in place of samples: −∇ log p by enumeration."""
    data = jnp.asarray(STATES[[1, 1, 6]], jnp.float32)

    def negative_log_likelihood(machine):
        partition = jax.nn.logsumexp(-free_energy(jnp.asarray(STATES, jnp.float32), *machine))
        return jnp.mean(free_energy(data, *machine)) + partition

    share = np.exp(-energies()).sum(axis=1)
    counts = np.round(6_000 * share / share.sum()).astype(int)
    samples = jnp.asarray(np.repeat(STATES, counts, axis=0), jnp.float32)
    expected = jax.grad(negative_log_likelihood)(MACHINE)
    found = jax.grad(lambda machine: contrastive_divergence(data, samples, *machine))(MACHINE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found, expected)


def test_gradient_is_the_update_of_contrastive_divergence_in_numpy_and_none_reaches_the_samples():
    data, samples = (RNG.uniform(size=shape).astype(np.float32) for shape in ((5, 3), (7, 3)))
    kernel, hidden_bias, _ = (np.asarray(x, np.float64) for x in MACHINE)
    units = lambda v: 1 / (1 + np.exp(-(v @ kernel + hidden_bias)))  # noqa: E731
    expected = (
        samples.T @ units(samples) / 7 - data.T @ units(data) / 5,
        units(samples).mean(axis=0) - units(data).mean(axis=0),
        samples.mean(axis=0) - data.mean(axis=0),
    )
    gradient = jax.jit(jax.grad(contrastive_divergence, argnums=(1, 2, 3, 4)))
    to_samples, *found = gradient(jnp.asarray(data), jnp.asarray(samples), *MACHINE)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert not to_samples.any()


def test_chains_are_a_loop_with_drawn_hidden_units_and_no_gradient():
    key, start = jax.random.key(3), jnp.full((6, 3), 0.5)
    kernel, hidden_bias, visible_bias = (np.asarray(x, np.float64) for x in MACHINE)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    v = np.asarray(start)
    for step_key in jax.random.split(key, 3):
        drawn = np.asarray(jax.random.uniform(step_key, (6, 4))) < sigmoid(v @ kernel + hidden_bias)
        v = sigmoid(drawn @ kernel.T + visible_bias)
    np.testing.assert_allclose(gibbs(key, start, *MACHINE, steps=3), v, rtol=1e-4)
    gradient = jax.grad(lambda k: gibbs(key, start, k, *MACHINE[1:], steps=1).sum())(MACHINE[0])
    assert not gradient.any()


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps=0"):
        gibbs(jax.random.key(0), jnp.ones((1, 3)), *MACHINE, steps=0)
