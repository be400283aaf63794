"""Encoders for other numbers of channels than they were trained with, and networks that start from given arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models import BUILDERS, build
from ssl_jax.models.channels import change_channels
from ssl_jax.models.network import with_variables
from tests.models.fill import random_variables

ENCODERS = {
    "vit": {"name": "vit_tiny", "width": 8, "depth": 1, "heads": 2, "patch": 4, "image_size": 8},
    "resnet": {"name": "resnet18", "stem": "small", "width": 0.0625},
    "convnet": {"name": "convnet", "widths": (4, 8), "grid": 1},
}
if any(name.startswith("convnext") for name in BUILDERS):
    ENCODERS["convnext"] = {"name": "convnext_tiny", "widths": (4, 8, 8, 8), "depths": (1, 1, 1, 1)}


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind != "vit")) for kind in ENCODERS]
)
def test_equal_channels_give_the_features_of_a_gray_image(kind, channels):
    side = 32 if kind == "convnext" else 8
    gray = jnp.asarray(np.random.default_rng(1).normal(size=(2, side, side, 1)), jnp.float32)
    network = build(**ENCODERS[kind])
    params, state = random_variables(network, jnp.repeat(gray, 3, -1))
    state = jax.tree.map(lambda x: jnp.abs(x) + 0.5, state)
    apply = jax.jit(lambda *inputs: network.apply(*inputs)[0])
    expected = apply(params, state, jnp.repeat(gray, 3, -1))
    changed = change_channels(network, params, state, channels=channels)
    features = apply(*changed, jnp.repeat(gray, channels, -1))
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    if channels == 3:
        assert all(
            np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (changed[0], params)), strict=True)
        )


def test_every_channel_counts_alike():
    network = build(**ENCODERS["vit"])
    params, state = random_variables(network, jnp.zeros((1, 8, 8, 3)))
    kernel = np.asarray(params["patch_embed"]["kernel"]).reshape(16, 3, 8)
    changed, _ = change_channels(network, params, state, channels=4)
    new = np.asarray(changed["patch_embed"]["kernel"]).reshape(16, 4, 8)
    np.testing.assert_allclose(new, np.repeat(kernel.mean(1, keepdims=True) * 3 / 4, 4, axis=1), atol=1e-7)


def test_other_arrays_are_no_matter_of_channels():
    network, other = build(**ENCODERS["vit"]), build(**{**ENCODERS["vit"], "width": 16})
    params, state = random_variables(other, jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(
        ValueError, match=r"channels=3: params/\S+ has the shape .* images of 3 channels need"
    ):
        change_channels(network, params, state, channels=3)


def test_init_gives_the_arrays_whatever_the_key():
    network, images = build(**ENCODERS["vit"], mask_token=True), jnp.zeros((1, 8, 8, 3))
    given = random_variables(build(**ENCODERS["vit"]), images)
    params, state = jax.jit(with_variables(network, *given).init)(jax.random.key(7), images)
    mask_token = params.pop("mask_token")
    assert mask_token.shape == (1, 1, 8) and state == {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(given[0]):
        np.testing.assert_array_equal(leaf, dict(jax.tree_util.tree_leaves_with_path(params))[path])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"registers": 2}, "they lack params/reg_token"),
        ({"depth": 0}, r"they have besides params/blocks_0/attn/\S+, params/\S+, params/\S+, \.\.\."),
        ({"width": 4}, r"they have another shape: params/\S+ \(8,\) instead of \(4,\)"),
    ],
)
def test_arrays_of_another_network_are_refused(options, message):
    images = jnp.zeros((1, 8, 8, 3))
    given = random_variables(build(**ENCODERS["vit"]), images)
    network = with_variables(build(**{**ENCODERS["vit"], **options}), *given)
    with pytest.raises(ValueError, match=f"the weights are not those of the encoder: {message}"):
        jax.eval_shape(network.init, jax.random.key(0), images)
