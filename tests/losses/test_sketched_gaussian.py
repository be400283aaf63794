"""SIGReg and LeJEPA: golden numbers, an integral in numpy, Gaussians, collapse."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.sketched_gaussian import lejepa, random_directions, sigreg
from tests.golden_files import assert_close, golden

PRECISIONS = [(jnp.float32, 1e-5, 2e-5), (jnp.float64, 1e-8, 1e-7)]


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
def test_sigreg_equals_golden_with_its_gradient(dtype, loss_tolerance, tolerance):
    file = golden("more_losses")
    with jax.enable_x64(dtype == jnp.float64):
        z, directions = (jnp.asarray(file[f"in__{name}"], dtype) for name in ("v0", "A"))
        value, gradient = jax.jit(jax.value_and_grad(sigreg))(z, directions)
    np.testing.assert_allclose(value, file["sigreg__loss"], rtol=loss_tolerance)
    assert_close(gradient, file["sigreg__grad__v0"], tolerance=tolerance)


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
def test_lejepa_equals_golden_with_gradients_to_all_views(dtype, loss_tolerance, tolerance):
    file = golden("more_losses")
    with jax.enable_x64(dtype == jnp.float64):
        z = jnp.stack([jnp.asarray(file[f"in__v{i}"], dtype) for i in range(4)])
        directions = jnp.asarray(file["in__A"], dtype)
        function = functools.partial(lejepa, targets=2)
        (value, _), gradient = jax.jit(jax.value_and_grad(function, has_aux=True))(z, directions)
    np.testing.assert_allclose(value, file["lejepa__loss"], rtol=loss_tolerance)
    for i in range(4):
        assert_close(gradient[i], file[f"lejepa__grad__v{i}"], tolerance=tolerance)


def test_statistic_equals_a_fine_integral_over_both_signs():
    z = np.random.default_rng(0).normal(size=(40, 3)) * [0.5, 1, 2] + 0.3
    directions = np.asarray(random_directions(jax.random.key(0), 3, 5), np.float64)
    t = np.linspace(-3, 3, 4001)
    expected = []
    for direction in directions.T:
        empirical = np.exp(1j * t[:, None] * (z @ direction)).mean(axis=1)
        density = np.abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
        expected.append(40 * np.sum((density[1:] + density[:-1]) / 2) * (t[1] - t[0]))
    found = sigreg(jnp.asarray(z, jnp.float32), jnp.asarray(directions, jnp.float32), knots=201)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-3)


def test_a_gaussian_is_the_best_and_the_statistic_does_not_grow_with_the_sample():
    directions = random_directions(jax.random.key(1), 16, 64)
    large, small = (jax.random.normal(jax.random.key(2), (n, 16)) for n in (4096, 256))
    values = [float(sigreg(x, directions)) for x in (large, small)]
    assert max(values) < 3
    for other in (2 * small, 0.5 * small, small + 1, small.at[:, 8:].set(small[:, :8]), 0 * small):
        assert float(sigreg(other, directions)) > 3 * values[1]


def test_collapsed_embeddings_cost_the_constant_of_the_formula():
    t = np.linspace(-3, 3, 20_001)
    density = (1 - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    expected = 32 * np.sum((density[1:] + density[:-1]) / 2) * (t[1] - t[0])
    found = sigreg(jnp.zeros((32, 4)), random_directions(jax.random.key(0), 4, 3))
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_views_are_tested_each_by_itself():
    directions = random_directions(jax.random.key(1), 4, 8)
    z = jax.random.normal(jax.random.key(2), (3, 20, 4))
    np.testing.assert_allclose(sigreg(z, directions), np.mean([sigreg(x, directions) for x in z]), rtol=1e-5)


def test_bfloat16_is_computed_in_float32():
    directions = random_directions(jax.random.key(1), 4, 8)
    z = jax.random.normal(jax.random.key(2), (2, 20, 4)).astype(jnp.bfloat16)
    loss, _ = lejepa(z, directions, targets=1)
    expected, _ = lejepa(z.astype(jnp.float32), directions, targets=1)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knots": 4}, "knots=4"),
        ({"limit": 0.0}, r"limit=0\.0"),
        ({"targets": 3}, "targets=3.*1 to 2 views"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    arguments = {"directions": jnp.ones((4, 2)), "targets": 1, **options}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(lejepa)(jnp.ones((2, 8, 4)), **arguments)


def test_directions_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"directions\.shape=\(5, 2\).*\[4, k\]"):
        inspect.unwrap(sigreg)(jnp.ones((8, 4)), jnp.ones((5, 2)))
