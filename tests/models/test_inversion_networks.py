"""Networks from features to images: gradients by finite differences, sizes, what a condition reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.inversion import feature_decoder, resample, side_near, velocity_net


def numerical_gradient(function, x, epsilon=1e-6):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = epsilon
        gradient[index] = (function(x + step) - function(x - step)) / (2 * epsilon)
    return gradient


def filled(params, seed=0):
    """Params without the zeros at which some layers start."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype), params)


def test_the_gradient_of_the_decoder_is_that_of_finite_differences():
    with jax.enable_x64(True):
        network = feature_decoder(size=6, channels=1, width=2, dtype="float64")
        h = np.random.default_rng(0).normal(size=(2, 3))
        params, state = jax.jit(network.init)(jax.random.key(0), jnp.asarray(h))
        params = filled(params)
        target = jnp.asarray(np.random.default_rng(1).random((2, 6, 6, 1)))

        @jax.jit
        def loss(h):
            return jnp.mean((network.apply(params, state, h)[0] - target) ** 2)

        found = jax.jit(jax.grad(loss))(jnp.asarray(h))
        np.testing.assert_allclose(
            found, numerical_gradient(lambda x: float(loss(jnp.asarray(x))), h), atol=1e-7
        )


@pytest.mark.long
def test_the_gradient_of_the_velocity_is_that_of_finite_differences_and_it_starts_at_zero():
    with jax.enable_x64(True):
        network = velocity_net(channels=1, width=2, dtype="float64")
        rng = np.random.default_rng(0)
        x, h = jnp.asarray(rng.normal(size=(2, 9, 9, 1))), rng.normal(size=(2, 3))
        given = {"time": jnp.array([0.1, 0.7], jnp.float64), "condition": jnp.asarray(h)}
        params, state = jax.jit(network.init)(jax.random.key(0), x, **given)

        @jax.jit
        def loss(h, params):
            velocity, _ = network.apply(params, state, x, time=given["time"], condition=h)
            return jnp.sum(velocity**2)

        assert loss(h, params) == 0
        params = filled(params)
        found = jax.jit(jax.grad(loss))(h, params)
        np.testing.assert_allclose(
            found, numerical_gradient(lambda h: float(loss(h, params)), h), rtol=1e-5, atol=1e-6
        )


@pytest.mark.long
def test_features_of_a_patch_reach_its_place_and_other_images_nothing():
    network = velocity_net(channels=1, width=4)
    x, h = jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 4, 4, 3))
    given = {"time": jnp.full(2, 0.5), "condition": h}
    params, state = jax.jit(network.init)(jax.random.key(0), x, **given)
    params = filled(params)
    # The mean of the patches stays, so that only where they lie differs.
    moved = h.at[0, 0, 0].set(1.0).at[0, 3, 3].set(-1.0)
    apply = jax.jit(lambda condition: network.apply(params, state, x, **{**given, "condition": condition})[0])
    change = np.abs(apply(moved) - apply(h))
    assert not np.any(change[1])
    corner, other = float(change[0, :2, :2].mean()), float(change[0, :2, -2:].mean())
    assert corner > 1.5 * other


@pytest.mark.parametrize(
    ("size", "side", "expected"), [(32, 4, 4), (32, 5, 4), (28, 7, 7), (48, 6, 6), (30, 6, 8), (9, 9, 9)]
)
def test_maps_are_brought_to_a_side_of_the_image(size, side, expected):
    assert side_near(size, side) == expected


def test_resampled_maps_keep_constants_and_maps_of_the_right_side():
    maps = jnp.arange(2.0 * 9).reshape(2, 3, 3, 1)
    assert resample(maps, 3) is maps
    np.testing.assert_allclose(resample(jnp.full((1, 3, 3, 2), 0.3), 8), 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "given", "said"),
    [
        (feature_decoder, {"size": 0, "channels": 1}, "size=0"),
        (feature_decoder, {"size": 8, "channels": 1, "width": 0}, "width=0"),
        (velocity_net, {"channels": 0}, "channels=0"),
        (velocity_net, {"channels": 1, "dtype": "int8"}, "dtype="),
    ],
)
def test_refusals_name_the_option(build, given, said):
    with pytest.raises(ValueError, match=said):
        build(**given)
