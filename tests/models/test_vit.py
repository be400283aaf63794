"""Vision transformer: timm's numbers, and what each option promises."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ssl_jax.core import trees
from ssl_jax.models.remat import KEEPS
from ssl_jax.models.torch_names_vit import vit_from_torch, vit_to_torch
from ssl_jax.models.transformer import drop_path, qkv_init
from ssl_jax.models.vit import BUILDERS, vit
from tests.golden_files import assert_close, golden
from tests.models.fill import random_variables

nano = functools.partial(vit, "vit_micro", width=16, depth=1, heads=2, patch=4, image_size=8)
GOLDEN = {
    "plain": {},
    "gap": {"class_token": False, "pool": "mean", "fc_norm": True},
    "registers": {"registers": 4, "layer_scale": 0.1},
    "swiglu": {"mlp": "swiglu", "layer_scale": 0.1},
    "qkv_nobias_prenorm": {"pre_norm": True, "qkv_bias": False},
}


def images(batch=3, side=8):
    return jnp.asarray(np.random.default_rng(batch).normal(size=(batch, side, side, 3)), jnp.float32)


def made(**options):
    network = nano(**options)
    return network, *random_variables(network, images())


def from_golden(case, dtype="float32"):
    network = vit(
        "vit_micro", width=32, depth=2, heads=4, patch=8, image_size=32, dtype=dtype, **GOLDEN[case]
    )
    prefix = f"{case}__w__"
    weights = {
        k.removeprefix(prefix): v for k, v in golden("vit_micro_forward").items() if k.startswith(prefix)
    }
    return network, weights, *vit_from_torch(weights, network)


@pytest.mark.parametrize("case", GOLDEN)
def test_forward_equals_timm(case):
    file = golden("vit_micro_forward")
    network, weights, params, state = from_golden(case)
    x = jnp.asarray(file["in__img32"].transpose(0, 2, 3, 1))
    tokens, _ = network.apply(params, state, x, output="tokens")
    features, _ = network.apply(params, state, x)
    assert_close(tokens, file[f"{case}__out__tokens"], tolerance=1e-5)
    # timm's "pooled" of the gap case is after fc_norm, as our features are.
    assert_close(features, file[f"{case}__out__pooled"], tolerance=1e-5)
    logits = features @ weights["head.weight"].T + weights["head.bias"]
    assert_close(logits, file[f"{case}__out__logits"], tolerance=1e-5)


def test_forward_equals_timm_in_float64():
    file = golden("vit_micro_forward")
    with jax.enable_x64(True):
        network, _, params, state = from_golden("plain", dtype="float64")
        params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
        x = file["in__img32"].transpose(0, 2, 3, 1).astype(np.float64)
        tokens, _ = network.apply(params, state, x, output="tokens")
        assert_close(tokens, file["plain__out__tokens"], tolerance=1e-8)


@pytest.mark.parametrize("case", GOLDEN)
def test_weights_survive_the_way_to_torch_and_back(case):
    network, weights, params, state = from_golden(case)
    back = vit_to_torch(params, state, network)
    assert back.keys() == {name for name in weights if not name.startswith("head")}
    np.testing.assert_array_equal(
        back["patch_embed.proj.weight"], weights["patch_embed.proj.weight"], strict=True
    )
    again, _ = vit_from_torch(back, network)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_torch_weights_that_do_not_fit_name_the_culprit():
    network, weights, _, _ = from_golden("plain")
    without = {k: v for k, v in weights.items() if k != "norm.bias"}
    with pytest.raises(ValueError, match=r"norm\.bias is missing from the state_dict"):
        vit_from_torch(without, network)
    with pytest.raises(ValueError, match=r"extra is not expected in the state_dict"):
        vit_from_torch({**weights, "extra": np.zeros(1)}, network)
    with pytest.raises(ValueError, match="position='sincos': allowed is 'learned'"):
        vit_from_torch(weights, vit(**{**network.config, "position": "sincos"}))
    with pytest.raises(ValueError, match=r"norm\.bias has the shape \(3,\)"):
        vit_from_torch({**weights, "norm.bias": np.zeros(3)}, network)


def test_every_size_has_the_published_number_of_parameters():
    counts = {"vit_tiny": 5_524_416, "vit_base": 85_798_656}
    for name, expected in counts.items():
        shapes, _ = jax.eval_shape(BUILDERS[name]().init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        # timm counts a position of the class token, which here is part of the token.
        assert trees.size(shapes) + shapes["cls_token"].size == expected


def test_config_survives_json_and_builds_the_same_network():
    network, params, state = made(pool="mean", layer_scale=0.1, registers=2)
    again = vit(**json.loads(json.dumps(dict(network.config))))
    out, _ = network.apply(params, state, images())
    np.testing.assert_array_equal(again.apply(params, state, images())[0], out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "width=16: allowed is a multiple of heads=3"),
        ({"image_size": 10}, "image_size=10: allowed is a multiple of patch=4"),
        ({"pool": "max"}, "pool='max' is not one of"),
        ({"class_token": False}, "pool='cls': allowed is 'mean'"),
        ({"position": "sincos2"}, "did you mean 'sincos'"),
        ({"mlp": "relu"}, "mlp='relu'"),
        ({"init": "xaver"}, "did you mean 'xavier'"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"dtype": "float16"}, "dtype='float16'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nano(**options)


def test_images_that_the_patch_does_not_divide_are_an_error():
    network, params, state = made()
    with pytest.raises(ValueError, match="multiples of patch=4"):
        network.apply(params, state, images(side=10))


def test_tokens_are_class_registers_patches_and_features_are_the_pooled_ones():
    for pool in ("cls", "mean"):
        network, params, state = made(registers=3, pool=pool)
        tokens, _ = network.apply(params, state, images(), output="tokens")
        features, _ = network.apply(params, state, images())
        assert tokens.shape == (3, 1 + 3 + 4, 16)
        expected = tokens[:, 0] if pool == "cls" else tokens[:, 4:].mean(axis=1)
        np.testing.assert_allclose(features, expected, atol=1e-6)


@pytest.mark.parametrize("position", ["learned", "sincos"])
def test_keeping_all_patches_in_order_equals_no_keep(position):
    network, params, state = made(position=position)
    everything = jnp.broadcast_to(jnp.arange(4), (3, 4))
    full, _ = network.apply(params, state, images(), output="tokens")
    kept, _ = network.apply(params, state, images(), output="tokens", keep=everything)
    np.testing.assert_allclose(kept, full, atol=1e-6)


def test_keeping_all_patches_in_another_order_permutes_the_tokens():
    network, params, state = made()
    order = jnp.array([[2, 0, 3, 1], [0, 1, 2, 3], [3, 2, 1, 0]])
    full, _ = network.apply(params, state, images(), output="tokens")
    kept, _ = network.apply(params, state, images(), output="tokens", keep=order)
    patches = jnp.take_along_axis(full[:, 1:], order[..., None], axis=1)
    np.testing.assert_allclose(kept, jnp.concatenate([full[:, :1], patches], axis=1), atol=1e-5)


def test_patches_that_are_not_kept_have_no_influence():
    network, params, state = made()
    keep = jnp.array([[3, 1]] * 3)  # the right half of the 2 x 2 patches

    def run(x):
        return network.apply(params, state, x, output="tokens", keep=keep)[0]

    x = images()
    np.testing.assert_array_equal(run(x.at[:, :, :4].set(jnp.nan)), run(x))
    gradient = jax.jit(jax.grad(lambda x: run(x)[..., 0].sum()))(x)
    assert not gradient[:, :, :4].any() and gradient[:, :, 4:].any()


@pytest.mark.parametrize("position", ["learned", "sincos"])
def test_other_image_sizes_run_with_an_interpolated_table(position):
    network, params, state = made(position=position)
    x = jnp.ones((3, 12, 16, 3))
    tokens, _ = network.apply(params, state, x, output="tokens")
    assert tokens.shape == (3, 1 + 12, 16)


def test_stochastic_depth_keeps_the_expectation():
    branch = jnp.broadcast_to(jnp.array([1.0, -2.0]), (20_000, 2))
    dropped = drop_path(jax.random.key(0), branch, rate=0.3)
    np.testing.assert_allclose(dropped.mean(axis=0), [1.0, -2.0], rtol=0.02)
    np.testing.assert_allclose(np.unique(dropped[:, 0]), [0.0, 1 / 0.7], rtol=1e-6)


def test_stochastic_depth_is_off_in_evaluation_and_draws_a_mask_per_example_in_training():
    network, params, state = made(drop_path=0.5, depth=2)
    plain, *_ = made(depth=2)
    x = jnp.broadcast_to(images(1), (16, 8, 8, 3))
    np.testing.assert_array_equal(network.apply(params, state, x)[0], plain.apply(params, state, x)[0])
    draw = jax.jit(lambda key: network.apply(params, state, x, train=True, key=key)[0])
    trained = [draw(jax.random.key(k)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert (trained[0] != trained[2]).any()
    # The first block has rate 0; the two branches of the second give four outcomes.
    assert len(np.unique(np.asarray(trained[0]).round(4), axis=0)) == 4
    with pytest.raises(ValueError, match="key=None"):
        network.apply(params, state, x, train=True)


def test_layer_scale_of_zero_makes_the_blocks_the_identity():
    network, params, state = made(layer_scale=0.0)
    params = trees.map_with_path(lambda path, p: p * 0 if path.endswith("gamma") else p, params)
    shallow, *_ = made(depth=0)
    x = images()
    out, _ = network.apply(params, state, x, output="tokens")
    outside = {name: p for name, p in params.items() if not name.startswith("blocks")}
    np.testing.assert_array_equal(shallow.apply(outside, state, x, output="tokens")[0], out)


def test_frozen_patch_projection_is_state_and_works_as_the_same_parameters_would():
    network, params, state = made(freeze_patch=True)
    assert "patch_embed" not in params
    kernel = state["frozen"]["patch_embed"]["kernel"]
    assert kernel.shape == (48, 16)
    out, new_state = network.apply(params, state, images(), train=True)
    jax.tree.map(np.testing.assert_array_equal, new_state, state)
    plain, *_ = made()
    np.testing.assert_array_equal(plain.apply({**params, **state["frozen"]}, {}, images())[0], out)
    again, _ = vit_from_torch(vit_to_torch(params, state, network), network)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_init_draws_xavier_kernels_a_small_class_token_and_neutral_norms():
    params, state = nano(freeze_patch=True, layer_scale=1e-5).init(jax.random.key(0), images())
    kernel = state["frozen"]["patch_embed"]["kernel"]
    assert 0.98 * (6 / 64) ** 0.5 < jnp.abs(kernel).max() <= (6 / 64) ** 0.5
    assert 0 < jnp.abs(params["cls_token"]).max() < 0.1
    assert (params["norm"]["scale"] == 1).all() and not params["blocks_0"]["mlp"]["fc1"]["bias"].any()
    np.testing.assert_allclose(params["blocks_0"]["ls2"]["gamma"], 1e-5)


@pytest.mark.parametrize(("init", "bound"), [("xavier", 6 / 64), ("xavier_split", 6 / 32)])
def test_xavier_bounds_of_query_key_value(init, bound):
    kernel = qkv_init(init)(jax.random.key(0), (16, 48))
    assert 0.98 * bound**0.5 < jnp.abs(kernel).max() <= bound**0.5


def test_normal_init_has_standard_deviation_one_fiftieth():
    assert abs(float(qkv_init("trunc_normal")(jax.random.key(0), (16, 48)).std()) - 0.02) < 1e-3


def test_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        network, params, state = made(mlp="swiglu", registers=1, dtype="float64", pool="mean")
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
        loss = jax.jit(lambda p: jnp.sum(network.apply(p, state, images(1).astype(jnp.float64))[0] ** 3))
        check_grads(loss, (params,), order=1, modes=["rev"], rtol=1e-5)


@pytest.mark.parametrize("keeps", KEEPS)
def test_remat_gives_the_same_gradients(keeps):
    network, params, state = made(drop_path=0.3)
    again, *_ = made(drop_path=0.3, remat=True, remat_keeps=keeps)

    def gradient(net):
        def loss(p):
            return (net.apply(p, state, images(), train=True, key=jax.random.key(5))[0] ** 2).sum()

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), gradient(again), gradient(network))


def test_bfloat16_computes_close_to_float32_and_returns_float32_from_float32_parameters():
    network, params, state = made(layer_scale=1.0, registers=1)
    low, low_params, _ = made(layer_scale=1.0, registers=1, dtype="bfloat16")
    assert {p.dtype.name for p in jax.tree.leaves(low_params)} == {"float32"}
    out = jax.jit(lambda p: low.apply(p, state, images())[0])(params)
    expected, _ = network.apply(params, state, images())
    assert out.dtype == jnp.float32
    assert 0 < float(jnp.abs(out - expected).max()) < 0.2


def test_jit_equals_eager_and_a_batch_equals_its_examples():
    network, params, state = made(position="sincos")
    x = images()
    eager, _ = network.apply(params, state, x)
    jitted = jax.jit(lambda x: network.apply(params, state, x)[0])(x)
    np.testing.assert_allclose(jitted, eager, atol=1e-5)
    single = jnp.concatenate([network.apply(params, state, jnp.stack([one] * 3))[0][:1] for one in x])
    np.testing.assert_allclose(single, eager, atol=1e-5)


def test_eight_devices_give_the_gradient_of_one():
    network, params, state = made(drop_path=0.5)
    x, keep = images(8), jnp.broadcast_to(jnp.array([0, 3, 2]), (8, 3))

    def loss(p, x, keep):
        out, _ = network.apply(p, state, x, train=True, key=jax.random.key(3), keep=keep)
        return (out**2).mean()

    gradient = jax.jit(jax.value_and_grad(loss))
    alone = gradient(params, x, keep)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    spread = gradient(jax.device_put(params, whole), jax.device_put(x, split), jax.device_put(keep, split))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), spread, alone)


@pytest.mark.parametrize("options", [{}, {"registers": 2, "depth": 2, "remat": True}, {"dtype": "bfloat16"}])
def test_attention_is_that_of_the_last_block(options):
    """From the tokens that enter the last block, in numpy."""
    network, params, state = made(**{"depth": 1, **options})
    found, _ = network.apply(params, state, images(), output="attention")
    length = 4 + 1 + options.get("registers", 0)
    assert found.shape == (3, 2, length, length)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-5)
    if options:
        return
    block = jax.tree.map(np.asarray, params["blocks_0"])
    patches = np.asarray(images()).reshape(3, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 4, 48)
    x = patches @ params["patch_embed"]["kernel"] + params["patch_embed"]["bias"] + params["pos_embed"]
    x = np.concatenate([np.broadcast_to(params["cls_token"], (3, 1, 16)), x], axis=1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * block["norm1"]["scale"] + block["norm1"]["bias"]
    query, key, _ = np.split(x @ block["attn"]["qkv"]["kernel"] + block["attn"]["qkv"]["bias"], 3, axis=-1)
    query, key = (part.reshape(3, 5, 2, 8).transpose(0, 2, 1, 3) for part in (query, key))
    scores = np.exp(query @ key.swapaxes(-1, -2) / np.sqrt(8))
    np.testing.assert_allclose(found, scores / scores.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_layers_are_the_tokens_after_every_block_and_normalise_to_the_last():
    network = vit("vit_micro", width=16, depth=2, heads=2, patch=4, image_size=8, registers=1)
    params, state = random_variables(network, images())
    layers, _ = network.apply(params, state, images(), output="layers")
    assert {name: layer.shape for name, layer in layers.items()} == {
        "blocks_0": (3, 6, 16),
        "blocks_1": (3, 6, 16),
    }
    tokens, _ = network.apply(params, state, images(), output="tokens")
    last = layers["blocks_1"]
    normal = (last - last.mean(-1, keepdims=True)) / jnp.sqrt(last.var(-1, keepdims=True) + 1e-6)
    expected = normal * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    same = network.init(jax.random.key(0), images(), output="layers")
    assert jax.tree.structure(same) == jax.tree.structure(network.init(jax.random.key(0), images()))
