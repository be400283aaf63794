"""Layers of a ladder network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models.ladder import denoise, ladder_decoder, normalize_parts

RNG = np.random.default_rng(0)
HALF = jnp.arange(10) < 4


def test_halves_are_normalised_by_their_own_statistics():
    for shape in ((10, 3), (10, 2, 5, 3)):
        x = jnp.asarray(RNG.normal(size=shape) * 3 + 1, jnp.float32)
        y, mean, var = jax.jit(normalize_parts)(x, HALF)
        for kind, rows in enumerate((slice(0, 4), slice(4, 10))):
            part = np.asarray(x[rows], np.float64).reshape(-1, 3)
            np.testing.assert_allclose(mean[kind], part.mean(axis=0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(var[kind], part.var(axis=0), rtol=1e-4)
            expected = (part - part.mean(axis=0)) / np.sqrt(part.var(axis=0) + 1e-5)
            np.testing.assert_allclose(y[rows].reshape(-1, 3), expected, atol=1e-4)
        moved = x.at[4:].add(7.0)
        np.testing.assert_array_equal(y[:4], normalize_parts(moved, HALF)[0][:4])


def test_a_missing_half_and_a_single_example_stay_finite():
    x = jnp.asarray(RNG.normal(size=(10, 3)), jnp.float32)
    for labeled in (jnp.zeros(10, bool), jnp.ones(10, bool), jnp.arange(10) == 0):
        value, gradient = jax.value_and_grad(lambda v, k: (normalize_parts(v, k)[0] ** 3).sum())(x, labeled)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_denoising_function_can_be_the_mean_of_the_clean_value_given_the_corrupted_one():
    """Clean values normal around 0.5 u − 1 with deviation 0.8, noise of deviation 0.6: regression on a large sample."""
    u = RNG.normal(size=200_000)
    mu = 0.5 * u - 1.0
    clean = mu + 0.8 * RNG.normal(size=u.shape)
    corrupted = clean + 0.6 * RNG.normal(size=u.shape)
    a = np.zeros((10, 1), np.float32)
    a[3], a[4], a[9] = 0.5, -1.0, 0.64 / (0.64 + 0.36)
    estimate = np.asarray(denoise(jnp.asarray(corrupted[:, None]), jnp.asarray(u[:, None]), jnp.asarray(a)))
    design = np.stack([corrupted, u, np.ones_like(u)], axis=1)
    best = design @ np.linalg.lstsq(design, clean, rcond=None)[0]
    np.testing.assert_allclose(estimate[:, 0], best, atol=0.03)
    # No other shrinkage does better.
    errors = []
    for v in (0.54, 0.64, 0.74):
        a[9] = v
        other = denoise(jnp.asarray(corrupted[:, None]), jnp.asarray(u[:, None]), jnp.asarray(a))
        errors.append(float(np.mean((np.asarray(other)[:, 0] - clean) ** 2)))
    assert errors[1] == min(errors)


def test_denoising_function_equals_its_formula():
    z, u = (RNG.normal(size=(4, 3)) for _ in range(2))
    a = RNG.normal(size=(10, 3))
    s = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    mu = a[0] * s(a[1] * u + a[2]) + a[3] * u + a[4]
    v = a[5] * s(a[6] * u + a[7]) + a[8] * u + a[9]
    found = denoise(*(jnp.asarray(x, jnp.float32) for x in (z, u, a)))
    np.testing.assert_allclose(found, (z - mu) * v + mu, rtol=1e-4, atol=1e-5)


def test_estimates_are_zero_at_first():
    decoder = ladder_decoder()
    z = [jnp.asarray(RNG.normal(size=(10, d)), jnp.float32) for d in (6, 4, 3)]
    params, state = decoder.init(jax.random.key(0), z[-1], z=z, labeled=HALF)
    assert sorted(params) == ["a_0", "a_1", "a_2", "dense_0", "dense_1"] and state == {}
    estimates, _ = decoder.apply(params, {}, jax.nn.softmax(z[-1]), z=z, labeled=HALF)
    assert {i: e.shape for i, e in estimates.items()} == {0: (10, 6), 1: (10, 4), 2: (10, 3)}
    assert not any(np.any(e) for e in estimates.values())


@pytest.fixture(scope="module")
def network():
    network = models.build("ladder", widths=(8, 4), classes=3)
    params, state = network.init(jax.random.key(0), jnp.ones((1, 5, 5, 1)))
    return network, params, state


def test_clean_layers_have_unit_variance_and_noise_is_added_to_them(network):
    network, params, state = network
    images = jnp.asarray(RNG.normal(size=(10, 5, 5, 1)), jnp.float32)
    apply = lambda **options: network.apply(  # noqa: E731
        params, state, images, train=True, labeled=HALF, output="path", **options
    )[0]
    clean = apply()
    np.testing.assert_array_equal(clean.z[0], images.reshape(10, -1))
    for layer in clean.z[1:]:
        np.testing.assert_allclose(layer[4:].mean(axis=0), 0.0, atol=1e-5)
        np.testing.assert_allclose(layer[4:].std(axis=0), 1.0, atol=1e-2)
    still = apply(key=jax.random.key(1), noise=0.0, input_noise=0.0)
    jax.tree.map(np.testing.assert_array_equal, clean, still)
    noisy = apply(key=jax.random.key(1), noise=0.0, input_noise=0.5)
    assert 0.3 < float(jnp.std(noisy.z[0] - clean.z[0])) < 0.7
    top = apply(key=jax.random.key(1), noise=0.5)
    assert 0.3 < float(jnp.std(top.z[1] - clean.z[1])) < 0.7


def test_running_statistics_are_those_of_the_labelled_and_stay_without_any(network):
    network, params, state = network
    images = jnp.asarray(RNG.normal(size=(10, 5, 5, 1)), jnp.float32)
    run = lambda x, labeled: network.apply(params, state, x, train=True, labeled=labeled)[1]  # noqa: E731
    first = run(images, HALF)["batch_stats"]["dense_0_norm"]
    products = np.asarray(images.reshape(10, -1) @ params["dense_0"]["kernel"])[:4]
    np.testing.assert_allclose(first["mean"], 0.1 * products.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first["var"], 0.9 + 0.1 * products.var(axis=0, ddof=1), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, run(images, jnp.zeros(10, bool)), state)


def test_outputs_have_their_shapes(network):
    network, params, state = network
    images = jnp.ones((2, 5, 5, 1))
    assert network.apply(params, state, images)[0].shape == (2, network.features) == (2, 4)
    assert network.apply(params, state, images, output="logits")[0].shape == (2, 3)
    layers, _ = network.apply(params, state, images, output="layers")
    assert {name: x.shape for name, x in layers.items()} == {"dense_0": (2, 1, 1, 8), "dense_1": (2, 1, 1, 4)}


@pytest.mark.parametrize(
    ("options", "message"), [({"widths": ()}, r"widths=\(\)"), ({"classes": 1}, "classes=1")]
)
def test_networks_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("ladder", **options)
