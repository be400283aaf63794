"""Consistency losses against loops in numpy."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.consistency import labeled_cross_entropy, mean_divergence, mean_squared_difference

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(6, 4)) * 2 for _ in range(2))
LABELS = np.array([1, -1, 3, -1, 0, 1])
MASK = np.array([True, False, True, True, False, True])


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def cross_entropy_loop(logits, labels, normalize_by):
    costs = [-math.log(softmax(row)[y]) for row, y in zip(logits, labels, strict=True) if y >= 0]
    return sum(costs) / (len(logits) if normalize_by == "batch" else len(costs))


def squared_loop(x, y, mask=None):
    mask = np.ones(len(x)) if mask is None else mask
    pairs = [(x[i, j] - y[i, j]) ** 2 * mask[i] for i in range(len(x)) for j in range(x.shape[1])]
    return sum(pairs) / x.size


def divergence_loop(x, y):
    total = 0.0
    for row, target in zip(x, y, strict=True):
        q, p = softmax(row), softmax(target)
        total += sum(p[j] * math.log(p[j] / q[j]) for j in range(len(p)))
    return total / len(x)


CASES = {
    "cross entropy over the batch": (
        lambda x, y: labeled_cross_entropy(x, jnp.asarray(LABELS)),
        lambda x, y: cross_entropy_loop(x, LABELS, "batch"),
    ),
    "cross entropy over the labelled": (
        lambda x, y: labeled_cross_entropy(x, jnp.asarray(LABELS), normalize_by="labeled"),
        lambda x, y: cross_entropy_loop(x, LABELS, "labeled"),
    ),
    "squared": (mean_squared_difference, squared_loop),
    "squared, masked": (
        lambda x, y: mean_squared_difference(x, y, mask=jnp.asarray(MASK)),
        lambda x, y: squared_loop(x, y, MASK),
    ),
    "divergence": (mean_divergence, divergence_loop),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_their_loops_also_compiled_mapped_and_in_half_precision(name):
    ours, loop = CASES[name]
    x, y = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    np.testing.assert_allclose(ours(x, y), loop(X, Y), rtol=1e-5)
    stacked = jax.jit(jax.vmap(ours))(jnp.stack([x, y]), jnp.stack([y, x]))
    np.testing.assert_allclose(stacked, [loop(X, Y), loop(Y, X)], rtol=1e-5)
    half = ours(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, loop(X, Y), rtol=0.02)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_differences_of_the_loops(name):
    ours, loop = CASES[name]
    with jax.enable_x64(True):
        gradients = jax.grad(ours, argnums=(0, 1))(jnp.asarray(X), jnp.asarray(Y))
    step = 1e-5
    for which, gradient in enumerate(gradients):
        for i, j in ((0, 1), (1, 2), (2, 3)):
            ends = []
            for sign in (1, -1):
                arrays = [X.copy(), Y.copy()]
                arrays[which][i, j] += sign * step
                ends.append(loop(*arrays))
            np.testing.assert_allclose(gradient[i, j], (ends[0] - ends[1]) / (2 * step), atol=1e-7)


def test_without_labels_the_cross_entropy_is_zero_with_a_zero_gradient():
    nothing = jnp.full(6, -1)
    for normalize_by in ("batch", "labeled"):
        value, gradient = jax.value_and_grad(labeled_cross_entropy)(
            jnp.asarray(X, jnp.float32), nothing, normalize_by=normalize_by
        )
        assert float(value) == 0.0 and not np.any(gradient)


def test_the_share_of_labels_scales_the_cross_entropy_over_the_batch():
    logits = jnp.zeros((8, 10))
    for count in (2, 4, 8):
        labels = jnp.where(jnp.arange(8) < count, 3, -1)
        value = labeled_cross_entropy(logits, labels)
        np.testing.assert_allclose(value, count / 8 * math.log(10), rtol=1e-6)


def test_extreme_logits_stay_finite():
    far = jnp.array([[1e4, -1e4, 0.0]])
    for loss in (mean_divergence, lambda x, y: labeled_cross_entropy(x, jnp.array([1]))):
        value, gradient = jax.value_and_grad(loss)(far, -far)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_an_unknown_count_is_refused():
    with pytest.raises(ValueError, match="normalize_by='all'"):
        inspect.unwrap(labeled_cross_entropy)(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32), normalize_by="all")
