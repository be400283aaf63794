"""Words drawn with a gradient."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.discrete_vae import gumbel_softmax, kl_from_uniform

LOGITS = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))


def test_cold_draws_are_one_hot_with_the_probabilities_of_the_words():
    draws = gumbel_softmax(jax.random.key(0), jnp.broadcast_to(LOGITS, (20_000, 4)), temperature=1e-3)
    assert (jnp.max(draws, axis=-1) > 0.99).mean() > 0.99
    # Six standard deviations of a binomial share.
    np.testing.assert_allclose(draws.mean(axis=0), jnp.exp(LOGITS), atol=6 * 0.5 / math.sqrt(20_000))


def test_the_relaxed_draw_is_the_softmax_of_noisy_scores():
    key, logits = jax.random.key(1), jax.random.normal(jax.random.key(2), (3, 5))
    noise = np.asarray(jax.random.gumbel(key, (3, 5)), np.float64)
    expected = np.exp((np.asarray(logits) + noise) / 0.7)
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(gumbel_softmax(key, logits, temperature=0.7), expected, rtol=1e-5)


def test_straight_through_is_one_hot_forward_and_soft_backward():
    key, logits = jax.random.key(1), jax.random.normal(jax.random.key(2), (3, 5))
    weights = jax.random.normal(jax.random.key(3), (3, 5))
    values, gradients = {}, {}
    for hard in (False, True):
        draw = lambda x, hard=hard: gumbel_softmax(key, x, temperature=0.7, hard=hard)  # noqa: E731
        values[hard] = draw(logits)
        gradients[hard] = jax.grad(lambda x, draw=draw: jnp.sum(weights * draw(x)))(logits)
    np.testing.assert_allclose(values[True], jax.nn.one_hot(jnp.argmax(values[False], -1), 5), atol=1e-6)
    np.testing.assert_allclose(gradients[True], gradients[False], atol=1e-6)
    assert np.abs(gradients[True]).max() > 1e-3


def test_divergence_is_zero_at_uniform_and_log_k_at_one_word_whatever_the_batch():
    for shape in ((1, 8192), (4, 3, 8192)):
        np.testing.assert_allclose(kl_from_uniform(jnp.ones(shape)), 0, atol=1e-5)
        one = jnp.zeros(shape).at[..., 7].set(1e4)
        np.testing.assert_allclose(kl_from_uniform(one), math.log(8192), rtol=1e-6)
    p = np.exp(np.asarray(LOGITS, np.float64))
    np.testing.assert_allclose(kl_from_uniform(LOGITS[None]), np.sum(p * np.log(4 * p)), rtol=1e-5)
    assert jnp.isfinite(jax.grad(lambda x: kl_from_uniform(x))(one)).all()


def test_one_word_is_refused():
    with pytest.raises(ValueError, match=r"logits\.shape=\(3, 1\)"):
        inspect.unwrap(kl_from_uniform)(jnp.zeros((3, 1)))
