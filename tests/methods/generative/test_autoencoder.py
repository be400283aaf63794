"""The autoencoder, and what it shares with the denoising one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax.config import build
from tests.methods.case import config_of, loss_inputs, loss_of, method_of, start

PERCEPTRON = {"name": "mlp", "widths": (8,), "activation": "linear", "dtype": "float32"}


def mlp_of(name, *, encoder=None, **options):
    """A method on a perceptron instead of the config's encoder."""
    config = config_of(name)
    config["encoder"] = {**PERCEPTRON, **(encoder or {})}
    config["method"] |= options
    return build.method(config)


def gray_loss(case):
    """Weights 0, with which all outputs are 0, against pixels that are all −0.5."""
    params, state, batch = loss_inputs(case)
    gray = jnp.full(batch["views"][0].shape, -0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, {**batch, "views": (gray,)})[0]


def collapsed(case):
    """Output 0: the mean square of the pixels."""
    return gray_loss(case), 0.25


def test_loss_is_the_mean_square_error_of_the_decoder():
    method = mlp_of("autoencoder")
    params, state, batch = start(method)
    images = np.asarray(batch["views"][0][:, 0])
    x = images.reshape(len(images), -1)
    layers = [jax.tree.map(np.asarray, params[name]["dense_0"]) for name in ("encoder", "decoder")]
    for layer in layers:
        x = x @ layer["kernel"] + layer["bias"]
    expected = np.mean((x.reshape(images.shape) - images) ** 2)
    np.testing.assert_allclose(loss_of(method, params, state, batch)[0], expected, rtol=1e-5)
    reconstruction = jax.jit(method.reconstruct)(params, state, jnp.asarray(images), jax.random.key(0))
    np.testing.assert_allclose(reconstruction.predictions, x.reshape(images.shape), atol=1e-5)
    assert reconstruction.masked.all()


def test_cross_entropy_is_of_pixels_between_zero_and_one():
    method = mlp_of("autoencoder", loss="cross_entropy")
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    assert loss_of(method, zero, state, batch)[0] == pytest.approx(np.log(2), rel=1e-5)
    images = batch["views"][0][:, 0]
    predictions = jax.jit(method.reconstruct)(zero, state, images, jax.random.key(0)).predictions
    np.testing.assert_allclose(predictions, (0.5 - 0.286) / 0.353, rtol=1e-5)
    # Certain of every pixel, and right but for gray ones: what is left is their entropy.
    pixels = np.asarray(images) * 0.353 + 0.286
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6


def test_tied_linear_autoencoder_spans_the_subspace_of_the_principal_components():
    """Real images of 7 x 7 pixels, 3 units; at the optimum the error is that of PCA and the kernel's span its subspace."""
    method = mlp_of("autoencoder", encoder={"widths": (3,)}, tied=True)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    images = jax.image.resize(images, (len(images), 7, 7, 1), "linear")
    batch = {**batch, "views": (images[:, None],)}
    params, state = method.init(jax.random.key(0), batch)
    assert set(params["decoder"]["dense_0"]) == {"bias"}
    loss = lambda p: method.loss(p, state, batch, jax.random.key(0), jnp.int32(0))[0]  # noqa: E731
    solver = optax.lbfgs(memory_size=10)

    def step(carry, _):
        params, memory = carry
        value, gradient = optax.value_and_grad_from_state(loss)(params, state=memory)
        updates, memory = solver.update(gradient, memory, params, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(params, updates), memory), value

    (found, _), losses = jax.jit(lambda: jax.lax.scan(step, (params, solver.init(params)), length=150))()
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    _, sizes, axes = np.linalg.svd(x - x.mean(axis=0))
    np.testing.assert_allclose(losses[-1], np.sum(sizes[3:] ** 2) / x.size, rtol=1e-3)
    span, _ = np.linalg.qr(np.asarray(found["encoder"]["dense_0"]["kernel"], np.float64))
    cosines = np.linalg.svd(axes[:3] @ span, compute_uv=False)
    np.testing.assert_allclose(cosines, 1.0, atol=1e-3)


def test_tied_kernels_are_the_transposed_ones_with_one_gradient_for_both_uses():
    method, free = (mlp_of("autoencoder", tied=tied) for tied in (True, False))
    params, state, batch = start(method)
    kernel = params["encoder"]["dense_0"]["kernel"]
    bias = params["decoder"]["dense_0"]["bias"]
    untied = {**params, "decoder": {"dense_0": {"kernel": kernel.T, "bias": bias}}}

    def gradient(method, params):
        one = lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[0]  # noqa: E731
        return jax.value_and_grad(one)(params)

    value, found = gradient(method, params)
    expected_value, expected = gradient(free, untied)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    both = expected["encoder"]["dense_0"]["kernel"] + expected["decoder"]["dense_0"]["kernel"].T
    np.testing.assert_allclose(found["encoder"]["dense_0"]["kernel"], both, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"loss": "hinge"}, "loss='hinge'"), ({"tied": True}, "tied=True.*'convnet'")],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("autoencoder", **options)
