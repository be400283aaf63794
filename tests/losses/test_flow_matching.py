"""Flow matching: a Gaussian is carried to a Gaussian by a velocity in closed form, which minimises the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.flow_matching import flow_matching, interpolate
from ssl_jax.ops.ode import integrate

MEAN, STD = 1.5, 0.4
"""Of the data; the noise is N(0, 1)."""


def gaussian_velocity(x, t):
    """``E[x₁ − x₀ | x_t = x]`` of independent x₀ ~ N(0, 1) and x₁ ~ N(μ, σ²): a regression in closed form."""
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def test_the_velocity_of_a_gaussian_carries_each_point_to_its_quantile():
    start = jnp.linspace(-2.0, 2.0, 9)
    found = integrate(gaussian_velocity, start, steps=200)
    np.testing.assert_allclose(found, MEAN + STD * start, atol=1e-3)


@pytest.mark.parametrize("time", [0.0, 0.3, 0.9])
def test_least_squares_at_one_time_finds_the_velocity(time):
    rng = np.random.default_rng(0)
    noise, data = rng.normal(size=200_000), MEAN + STD * rng.normal(size=200_000)
    point = np.asarray(interpolate(jnp.asarray(noise), jnp.asarray(data), jnp.full(200_000, time)))
    design = np.stack([np.ones_like(point), point], axis=1)
    weights = np.linalg.lstsq(design, data - noise, rcond=None)[0]
    np.testing.assert_allclose(
        weights[0] + weights[1] * np.array([-1.0, 2.0]),
        gaussian_velocity(np.array([-1.0, 2.0]), time),
        atol=0.02,
    )


def test_the_velocity_of_a_gaussian_has_less_loss_than_its_neighbours():
    keys = jax.random.split(jax.random.key(0), 3)
    noise = jax.random.normal(keys[0], (50_000, 1))
    data = MEAN + STD * jax.random.normal(keys[1], (50_000, 1))
    time = jax.random.uniform(keys[2], (50_000,))
    velocity = gaussian_velocity(interpolate(noise, data, time), time[:, None])
    best = float(flow_matching(velocity, noise, data))
    others = [velocity + 0.1, velocity - 0.1, 1.1 * velocity, 0.9 * velocity]
    assert all(float(flow_matching(other, noise, data)) > best for other in others)
    # What is left is the variance that x_t does not determine: σ² / ((1 − t)² + t²σ²), averaged over t.
    t = np.linspace(0, 1, 10_001)
    left = np.mean(STD**2 / ((1 - t) ** 2 + (t * STD) ** 2))
    assert best == pytest.approx(left, rel=0.03)


def test_loss_and_paths_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    velocity, noise, data = rng.normal(size=(3, 4, 2, 2, 3)).astype(np.float32)
    time = rng.random(4).astype(np.float32)
    total, points = 0.0, np.zeros_like(noise)
    for index in np.ndindex(noise.shape):
        total += (velocity[index] - (data[index] - noise[index])) ** 2
        points[index] = noise[index] + time[index[0]] * (data[index] - noise[index])
    arrays = [jnp.asarray(array) for array in (velocity, noise, data)]
    assert float(flow_matching(*arrays)) == pytest.approx(total / noise.size, rel=1e-5)
    np.testing.assert_allclose(interpolate(*arrays[1:], jnp.asarray(time)), points, atol=1e-6)


def test_half_precision_is_subtracted_in_single():
    given = [jnp.full((1, 1), value, jnp.bfloat16) for value in (0.0, -1.0, 256.0)]
    assert float(flow_matching(*given)) == 257.0**2
