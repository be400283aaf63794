"""Networks that make images, or judge them: shapes, the places of a map, singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models.generator import channelwise_dense, depth_to_space, generator
from ssl_jax.models.perceptron import mirror, mlp, tie_params
from ssl_jax.models.spectral import discriminator, spectral_step


def applied(network, inputs, **options):
    """Shape of the outputs for a new network."""
    params, state = jax.eval_shape(network.init, jax.random.key(0), inputs)
    return jax.eval_shape(lambda p, s: network.apply(p, s, inputs, **options)[0], params, state).shape


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 4, 6), (2, 7, 7, 6), (2, 14, 14, 6)])
def test_codes_and_maps_of_fitting_sides_become_images(shape):
    network = generator(size=28, channels=3, width=2)
    assert applied(network, jnp.ones(shape), train=True) == (2, 28, 28, 3)


def test_a_map_of_another_side_is_refused():
    with pytest.raises(ValueError, match=r"map=\(2, 5, 5, 6\): allowed is half of 28"):
        applied(generator(size=28, channels=1, width=2), jnp.ones((2, 5, 5, 6)))


def test_doubling_undoes_windows():
    image = jnp.arange(2 * 6 * 4 * 3.0).reshape(2, 6, 4, 3)
    windows = image.reshape(2, 3, 2, 2, 2, 3).swapaxes(2, 3).reshape(2, 3, 2, 12)
    np.testing.assert_array_equal(depth_to_space(windows), image)


def test_channelwise_dense_joins_places_within_channels_before_it_mixes_them():
    network = channelwise_dense(channels=3)
    x = jax.random.normal(jax.random.key(1), (2, 2, 2, 3))
    params, state = network.init(jax.random.key(0), x)
    kernel, mix = np.asarray(params["kernel"]), jax.tree.map(np.asarray, params["mix"])
    flat = np.asarray(x).reshape(2, 4, 3)
    joined = np.stack([np.maximum(flat[..., c] @ kernel[c], 0) for c in range(3)], axis=-1)
    expected = (joined @ mix["kernel"][0, 0] + mix["bias"]).reshape(x.shape)
    np.testing.assert_allclose(network.apply(params, state, x)[0], expected, atol=1e-5)
    assert kernel.std() == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("shape", [(6, 4), (3, 3, 2, 5)])
def test_power_iteration_finds_the_largest_singular_value_of_numpy_and_its_gradient(shape):
    kernel = jax.random.normal(jax.random.key(0), shape)
    left, sizes, right = np.linalg.svd(np.asarray(kernel).reshape(-1, shape[-1]), full_matrices=False)
    u = jnp.full((shape[-1],), shape[-1] ** -0.5)
    for _ in range(200):
        sigma, u = spectral_step(kernel, u)
    np.testing.assert_allclose(sigma, sizes[0], rtol=1e-5)
    np.testing.assert_allclose(np.abs(u @ right[0]), 1.0, rtol=1e-5)
    gradient = jax.grad(lambda k: spectral_step(k, u)[0])(kernel)
    np.testing.assert_allclose(gradient.reshape(-1, shape[-1]), np.outer(left[:, 0], right[0]), atol=1e-3)


def test_the_discriminators_layers_get_spectral_norm_one_by_training_steps_alone():
    network, images, code = discriminator(width=2, hidden_dim=4), jnp.ones((2, 8, 8, 1)), jnp.ones((2, 3))
    params, state = network.init(jax.random.key(0), images, code=code)
    step = jax.jit(lambda s: network.apply(params, s, images, code=code, train=True)[1])
    trained = state
    for _ in range(100):
        trained = step(trained)
    for name, kept in trained["batch_stats"].items():
        kernel = np.asarray(params[name]["kernel"]).reshape(-1, kept["u"].shape[0])
        sigma, _ = spectral_step(jnp.asarray(kernel), kept["u"])
        np.testing.assert_allclose(sigma, np.linalg.norm(kernel, 2), rtol=1e-4)
    assert set(trained["batch_stats"]) == {"code", "conv_0", "joint", "score"}
    scores, same = network.apply(params, trained, images, code=code)
    assert same is trained
    assert scores.shape == (2,)
    # A dense layer is the last: scores are 1-Lipschitz in what it sees, whatever the scale of the weights.
    tenfold = jax.tree.map(lambda x: 10.0 * x if x.ndim > 1 else x, params)
    np.testing.assert_allclose(network.apply(tenfold, trained, images, code=code)[0], scores, rtol=1e-4)


def test_perceptron_is_its_layers_in_a_row_and_the_mirror_goes_back():
    network = mlp(widths=(5, 3), activation="tanh")
    images = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
    params, state = network.init(jax.random.key(0), images)
    features, _ = network.apply(params, state, images)
    first, _ = network.apply(params, state, images, layer=0)
    np.testing.assert_allclose(network.apply(params, state, first, layer=1)[0], features, atol=1e-6)
    layers, _ = network.apply(params, state, images, output="layers")
    assert {name: x.shape for name, x in layers.items()} == {"dense_0": (2, 1, 5), "dense_1": (2, 1, 3)}
    np.testing.assert_allclose(layers["dense_1"][:, 0], features, atol=1e-6)
    decoder = mirror(network, 16)
    back, _ = decoder.init(jax.random.key(2), features)
    hidden = jnp.tanh(features @ back["dense_1"]["kernel"] + back["dense_1"]["bias"])
    expected = hidden @ back["dense_0"]["kernel"] + back["dense_0"]["bias"]
    np.testing.assert_allclose(decoder.apply(back, {}, features)[0], expected, atol=1e-5)
    one, _ = decoder.apply(back, {}, features, layer=1)
    np.testing.assert_allclose(jnp.tanh(one), hidden, atol=1e-6)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (tie_params(params, back), back)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, r"widths=\(\)"),
        ({"activation": "elu"}, "activation='elu'"),
        ({"dtype": "half"}, "dtype"),
    ],
)
def test_perceptrons_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("mlp", **options)
