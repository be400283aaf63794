"""Crops of several sizes as one sequence: what a pass for each size gives, in values, gradients, draws and operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.core.flops import matmul_flops
from ssl_jax.methods.parts.siamese import embed_each_size
from ssl_jax.models.build import build
from ssl_jax.models.packing import pack, pack_crops, unpack

rng = np.random.default_rng(0)
KEY = jax.random.key(3)
CROPS = tuple(jnp.asarray(rng.random((4, v, s, s, 3)), jnp.float32) for v, s in ((2, 12), (3, 8)))
SMALL = {"width": 16, "depth": 1, "heads": 2, "patch": 4, "image_size": 12, "drop_path_uniform": True}
FORMS = {
    "learned": {"drop_path": 0.5, "layer_scale": 0.3, "registers": 1},
    "rope": {
        "position": "rope",
        "rope_rescale": 2.0,
        "drop_path": 0.5,
        "drop_path_kind": "subset",
        "qk_norm": True,
    },
    "relative": {"position": "relative", "pool": "map", "drop_path": 0.5, "remat": True},
    "own tables": {"position": "relative", "relative_per_block": True, "pool": "mean", "fc_norm": True},
    "fixed": {
        "position": "sincos",
        "pool": "mean",
        "class_token": False,
        "freeze_patch": True,
        "pre_norm": True,
    },
}


def make(form):
    """A small ViT whose parameters are all drawn, tables of relative positions too."""
    network = build("vit_tiny", **SMALL, **FORMS[form])
    params, state = network.init(jax.random.key(0), CROPS[0][:, 0])
    keys = iter(jax.random.split(KEY, 100))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    return network, params, state


def test_packing_and_back():
    parts = [jnp.arange(12.0).reshape(4, 3, 1), -jnp.arange(4.0).reshape(2, 2, 1)]
    packed = pack(parts, 2)
    np.testing.assert_array_equal(packed[0, :, 0], [0, 1, 2, 3, 4, 5, 0, -1])
    for found, part in zip(unpack(packed, ((2, 3), (1, 2))), parts, strict=True):
        np.testing.assert_array_equal(found, part)


def form_cases():
    return [form if form == "learned" else pytest.param(form, marks=pytest.mark.long) for form in FORMS]


@pytest.mark.parametrize("form", form_cases())
def test_packed_crops_equal_a_pass_for_each_size_in_values_and_gradients(form):
    network, params, state = make(form)
    toward = [jnp.asarray(rng.normal(size=(4, crops.shape[1], 16)), jnp.float32) for crops in CROPS]

    def run(encoder):
        def loss(params):
            features, _ = embed_each_size(encoder, params, state, CROPS, KEY)
            return sum(jnp.sum(f * t) for f, t in zip(features, toward, strict=True)), features

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (_, features), gradients = run(network)
    (_, packed), packed_gradients = run(pack_crops(network))
    for found, wanted in zip(packed, features, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    found = trees.flatten(packed_gradients)
    for path, wanted in trees.flatten(gradients).items():
        np.testing.assert_allclose(found[path], wanted, atol=2e-4, err_msg=path)


def test_tokens_of_each_size_and_a_mask_of_the_first():
    network = build("vit_tiny", **SMALL, mask_token=True)
    params, state = network.init(jax.random.key(0), CROPS[0][:, 0])
    params = {**params, "mask_token": jnp.ones_like(params["mask_token"])}
    mask = jnp.asarray(rng.random((8, 9)) < 0.5)
    encode = jax.jit(
        lambda images, **options: network.apply(params, state, images, output="tokens", **options)[0]
    )
    tokens = encode(CROPS, mask=mask)
    for i, (crops, found) in enumerate(zip(CROPS, tokens, strict=True)):
        options = {} if i else {"mask": mask}
        wanted = encode(crops.reshape(-1, *crops.shape[2:]), **options)
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-5)


def test_a_crop_sees_nothing_of_another_and_no_operation_is_added():
    network = build("vit_tiny", **SMALL)
    params, state = network.init(jax.random.key(0), CROPS[0][:, 0])

    def encode(encoder, crops):
        return jnp.concatenate(embed_each_size(encoder, params, state, crops, KEY)[0], axis=1)

    packed = jax.jit(lambda crops: encode(pack_crops(network), crops))
    difference = packed((CROPS[0], CROPS[1].at[:, 2].set(0.5))) - packed(CROPS)
    assert np.flatnonzero(np.abs(difference).max(axis=(0, 2))).tolist() == [4]
    counts = [
        matmul_flops(jax.make_jaxpr(lambda crops, n=n: encode(n, crops))(CROPS))
        for n in (network, pack_crops(network))
    ]
    assert counts[0] == counts[1]


def test_only_vision_transformers_pack_and_only_what_fits():
    with pytest.raises(ValueError, match="encoder='resnet18'"):
        pack_crops(build("resnet18"))
    network, params, state = make("learned")
    with pytest.raises(ValueError, match="output='layers'"):
        network.apply(params, state, CROPS, output="layers")
    with pytest.raises(ValueError, match="keep"):
        network.apply(params, state, CROPS, keep=jnp.zeros((4, 1), jnp.int32))
    with pytest.raises(ValueError, match="key=None"):
        network.apply(params, state, CROPS, train=True)
