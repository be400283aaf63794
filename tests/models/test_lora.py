"""LoRA against plain NumPy, and what is trained of an adapted encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.models import build
from ssl_jax.models.build import merge_lora
from ssl_jax.models.lora import with_lora
from ssl_jax.models.network import Network
from tests.models.fill import random_variables

VIT = {"name": "vit_tiny", "width": 8, "depth": 2, "heads": 2, "patch": 4, "image_size": 8}
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)


def linear(rows, columns):
    """One linear layer, as a network."""

    def init(key, inputs):
        return {"fc1": {"kernel": jax.random.normal(key, (rows, columns)), "bias": jnp.ones(columns)}}, {}

    def apply(params, state, x, **options):
        return x @ params["fc1"]["kernel"] + params["fc1"]["bias"], state

    return Network(init, apply, columns, {"name": "linear"})


def test_output_is_that_of_the_formula():
    network, generator = with_lora(linear(5, 4), rank=2, alpha=6.0), np.random.default_rng(0)
    x, a, b = (generator.normal(size=shape) for shape in ((3, 5), (5, 2), (2, 4)))
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 5)))
    kernel = np.float64(state["base"]["fc1"]["kernel"])
    expected = x @ kernel + 6.0 / 2 * (x @ a) @ b + 1
    trained = {"lora": {"fc1": {"a": jnp.float32(a), "b": jnp.float32(b)}}}
    assert params["lora"]["fc1"]["a"].shape == (5, 2) and not params["lora"]["fc1"]["b"].any()
    np.testing.assert_allclose(
        network.apply(trained, state, jnp.float32(x))[0], expected, atol=1e-5 * np.abs(expected).max()
    )


def test_it_starts_as_the_encoder_and_draws_a_by_the_width():
    plain, network = build(**VIT), build(**VIT, lora_rank=4)
    params, state = jax.jit(network.init)(jax.random.key(3), IMAGES)
    base, _ = jax.jit(plain.init)(jax.random.key(3), IMAGES)
    assert all(
        np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (base, state["base"])), strict=True)
    )
    features = jax.jit(lambda *given: network.apply(*given)[0])(params, state, IMAGES)
    np.testing.assert_array_equal(features, jax.jit(lambda p: plain.apply(p, {}, IMAGES)[0])(base))
    wide = with_lora(linear(4096, 4), rank=16).init(jax.random.key(0), jnp.zeros((1, 4096)))[0]
    assert abs(float(jnp.std(wide["lora"]["fc1"]["a"])) * 64 - 1) < 0.02


def test_merged_network_is_the_same_and_plain():
    network = build(**VIT, lora_rank=2, lora_targets=("qkv", "fc1"), mask_token=True)
    params, state = random_variables(network, IMAGES)
    before = jax.jit(lambda *given: network.apply(*given)[0])(params, state, IMAGES)
    plain, merged, rest = merge_lora(network, params, state)
    assert plain.config == build(**VIT, mask_token=True).config and rest == {}
    needed, _ = jax.eval_shape(plain.init, jax.random.key(0), IMAGES)
    assert jax.tree.structure(merged) == jax.tree.structure(needed)
    np.testing.assert_allclose(
        jax.jit(lambda *given: plain.apply(*given)[0])(merged, rest, IMAGES),
        before,
        atol=1e-6 * np.abs(before).max(),
    )
    np.testing.assert_array_equal(merged["mask_token"], params["mask_token"])
    same = merge_lora(plain, merged, rest)
    assert same[0] is plain and same[1] is merged


def test_gradient_reaches_the_matrices_and_the_mask_token_only():
    network = build(**VIT, lora_rank=2, lora_targets=("proj",), mask_token=True)
    params, state = random_variables(network, IMAGES)
    mask = jnp.ones((2, 4), bool)

    def loss(params):
        return network.apply(params, state, IMAGES, mask=mask, train=True)[0].sum()

    found = trees.flatten(jax.jit(jax.grad(loss))(params))
    assert all(np.abs(gradient).max() > 0 for gradient in found.values())
    matrices = {f"lora/blocks_{i}/attn/proj/{part}" for i in range(2) for part in "ab"}
    assert set(found) == {"mask_token"} | matrices


def test_it_is_built_again_from_its_config():
    network = build(**VIT, lora_rank=2, lora_alpha=3.0)
    params, state = random_variables(network, IMAGES)
    again = build(**network.config)
    np.testing.assert_array_equal(
        network.apply(params, state, IMAGES)[0], again.apply(params, state, IMAGES)[0]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "resnet18", "width": 0.0625},
            "no linear kernel of resnet18 matches; it has convolutions only",
        ),
        (
            {**VIT, "lora_targets": ("query",)},
            r"lora_targets=\('query',\): no linear kernel .* are blocks_0/attn/",
        ),
    ],
)
def test_an_encoder_without_such_layers_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(build(**options, lora_rank=2).init, jax.random.key(0), IMAGES)


def test_rank_and_freezing_exclude_each_other():
    with pytest.raises(ValueError, match="lora_rank=2: allowed is 0"):
        build(**VIT, lora_rank=2, all_frozen=True)
    with pytest.raises(ValueError, match="lora_rank=-1"):
        build(**VIT, lora_rank=-1)


def test_a_frozen_encoder_ignores_training_and_gets_no_gradient():
    options = {"name": "convnet", "widths": (4,), "grid": 1}
    plain, network = build(**options), build(**options, all_frozen=True)
    params, state = random_variables(plain, IMAGES)
    state = jax.tree.map(lambda x: jnp.abs(x) + 0.5, state)

    def loss(params):
        features, after = network.apply(params, state, IMAGES, train=True, key=jax.random.key(0))
        return features.sum(), (features, after)

    gradient, (features, after) = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(features, plain.apply(params, state, IMAGES)[0], atol=1e-6)
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (after, state)), strict=True))
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
