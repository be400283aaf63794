"""What encoders of others need of the vision transformer: attention pooling, QK norm, keys without bias, tables of blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.models.positions import relative_index, relative_rows
from ssl_jax.models.torch_names_vit import vit_from_torch, vit_to_torch
from ssl_jax.models.transformer import Attention, Positions, hidden_units
from ssl_jax.models.vit import vit
from tests.models.fill import random_variables

nano = functools.partial(vit, "vit_micro", width=16, depth=2, heads=2, patch=4, image_size=12)
CASES = {
    "map": {"pool": "map", "class_token": False, "mlp": "gelu_tanh", "mlp_ratio": 3.0},
    "clip": {"pre_norm": True, "fc_norm": True, "mlp": "quick_gelu", "norm_epsilon": 1e-5},
    "clip with bias": {"pre_norm": True, "patch_bias": True},
    "dinov3": {"position": "rope", "key_bias": False, "registers": 4, "layer_scale": 0.1, "mlp": "swiglu"},
    "qk norm": {"position": "none", "qk_norm": True},
    "beit": {"position": "relative", "key_bias": False, "mask_token": True, "layer_scale": 0.1},
    "fine-tuned beit": {"position": "relative", "relative_per_block": True, "pool": "mean", "fc_norm": True},
}


def images(seed=0, count=2, shape=(12, 12)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, *shape, 3)), jnp.float32)


def made(**options):
    network = nano(**options)
    return network, *random_variables(network, images())


def same(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_weights_survive_the_way_to_torch_and_back(case):
    network, params, state = made(**CASES[case])
    there = vit_to_torch(params, state, network)
    back, _ = vit_from_torch(there, network)
    if not network.config["key_bias"]:
        for name in ("blocks_0", "blocks_1"):
            bias = back[name]["attn"]["qkv"]["bias"]
            assert not bias[16:32].any() and bias[:16].any() and bias[32:].any()
        return
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.long
def test_torch_names_of_new_arrays_are_those_of_timm():
    def names(case):
        network, params, state = made(**CASES[case])
        return {name: array.shape for name, array in vit_to_torch(params, state, network).items()}

    pool = {name: shape for name, shape in names("map").items() if name.startswith("attn_pool")}
    assert pool == {
        "attn_pool.latent": (1, 1, 16),
        "attn_pool.q.weight": (16, 16),
        "attn_pool.q.bias": (16,),
        "attn_pool.kv.weight": (32, 16),
        "attn_pool.kv.bias": (32,),
        "attn_pool.proj.weight": (16, 16),
        "attn_pool.proj.bias": (16,),
        "attn_pool.norm.weight": (16,),
        "attn_pool.norm.bias": (16,),
        "attn_pool.mlp.fc1.weight": (48, 16),
        "attn_pool.mlp.fc1.bias": (48,),
        "attn_pool.mlp.fc2.weight": (16, 48),
        "attn_pool.mlp.fc2.bias": (16,),
    }
    assert names("qk norm")["blocks.1.attn.k_norm.weight"] == (8,)
    assert names("beit")["rel_pos_bias.relative_position_bias_table"] == (28, 2)
    assert names("fine-tuned beit")["blocks.1.attn.relative_position_bias_table"] == (28, 2)
    assert not {"pos_embed"} & (names("dinov3").keys() | names("beit").keys() | names("qk norm").keys())


@pytest.mark.long
def test_attention_pooling_is_one_query_over_the_patches():
    """In numpy, from the tokens after the final norm."""
    network, params, state = made(**CASES["map"])
    tokens, _ = network.apply(params, state, images(), output="tokens")
    features, _ = network.apply(params, state, images())
    pool = jax.tree.map(np.asarray, params["attn_pool"])

    def linear(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    query = linear(pool["latent"][0, 0], pool["q"]).reshape(2, 8)
    key, value = np.split(linear(np.asarray(tokens), pool["kv"]), 2, axis=-1)
    key, value = key.reshape(2, 9, 2, 8), value.reshape(2, 9, 2, 8)
    scores = np.exp(np.einsum("hd,bkhd->bhk", query, key) / 8**0.5)
    weights = scores / scores.sum(-1, keepdims=True)
    y = linear(np.einsum("bhk,bkhd->bhd", weights, value).reshape(2, 16), pool["proj"])
    normal = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    hidden = linear(normal * pool["norm"]["scale"] + pool["norm"]["bias"], pool["mlp"]["fc1"])
    hidden = 0.5 * hidden * (1 + np.tanh((2 / np.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    same(features, y + linear(hidden, pool["mlp"]["fc2"]))


@pytest.mark.long
def test_attention_pooling_leaves_out_prefix_tokens_and_absent_patches():
    network, params, state = made(pool="map", registers=2)
    keep = jnp.array([[4, 0, 7, 2], [1, 2, 3, 5]])
    expected, _ = network.apply(params, state, images(), keep=keep[:, :3])
    present = jnp.arange(4)[None] < jnp.array([[3], [3]])
    found, _ = network.apply(params, state, images(), keep=keep, present=present)
    same(found, expected)
    shallow, params, state = made(pool="map", registers=2, depth=0)
    moved = {**params, "cls_token": params["cls_token"] + 1, "reg_token": params["reg_token"] - 1}
    one, _ = shallow.apply(params, state, images())
    other, _ = shallow.apply(moved, state, images())
    np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_keys_without_bias_have_no_gradient_and_do_not_read_it():
    network, params, state = made(key_bias=False, position="rope", depth=1)
    run = jax.jit(lambda p: (network.apply(p, state, images())[0] ** 3).sum())
    gradient = jax.grad(run)(params)["blocks_0"]["attn"]["qkv"]["bias"]
    assert not gradient[16:32].any() and gradient[:16].all() and gradient[32:].all()
    bias = params["blocks_0"]["attn"]["qkv"]["bias"]
    other = trees.map_with_path(
        lambda path, p: bias.at[16:32].add(9.0) if path == "blocks_0/attn/qkv/bias" else p, params
    )
    assert run(other) == run(params)
    zero = trees.map_with_path(
        lambda path, p: bias.at[16:32].set(0.0) if path == "blocks_0/attn/qkv/bias" else p, params
    )
    plain, *_ = made(position="rope", depth=1)
    same(network.apply(params, state, images())[0], plain.apply(zero, state, images())[0])


@pytest.mark.long
def test_keys_without_bias_start_as_those_with_one():
    with_bias, _ = nano().init(jax.random.key(0), images())
    without, _ = nano(key_bias=False).init(jax.random.key(0), images())
    jax.tree.map(np.testing.assert_array_equal, without, with_bias)


@pytest.mark.long
def test_queries_and_keys_are_normalised_for_each_head():
    attention = Attention(heads=2, qkv_bias=True, scheme="xavier", dtype="float32", qk_norm=True)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 16)), jnp.float32)
    variables = attention.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda p: p + 0.3, variables)
    found = attention.apply(variables, x, weights=True)
    layer = jax.tree.map(np.asarray, variables["params"])
    query, key, _ = np.split(np.asarray(x) @ layer["qkv"]["kernel"] + layer["qkv"]["bias"], 3, axis=-1)

    def normalise(y, norm):
        y = y.reshape(2, 5, 2, 8)
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        return y * norm["scale"] + norm["bias"]

    scores = np.einsum("bqhd,bkhd->bhqk", normalise(query, layer["q_norm"]), normalise(key, layer["k_norm"]))
    expected = np.exp(scores / 8**0.5)
    same(found, expected / expected.sum(-1, keepdims=True))


@pytest.mark.long
@pytest.mark.parametrize("keep", [None, [[4, 0, 7], [1, 2, 3]]])
def test_equal_tables_in_all_blocks_are_one_shared_table(keep):
    shared, params, state = made(position="relative", registers=1)
    own, *_ = made(position="relative", registers=1, relative_per_block=True)
    table = params["relative_bias"]
    tables = {name: block for name, block in params.items() if name != "relative_bias"}
    for name in ("blocks_0", "blocks_1"):
        tables[name] = {**params[name], "attn": {**params[name]["attn"], "relative_bias": table}}
    keep = None if keep is None else jnp.array(keep)
    expected, _ = shared.apply(params, state, images(), keep=keep)
    found, _ = own.apply(tables, state, images(), keep=keep)
    same(found, expected)
    changed = {**tables, "blocks_1": params["blocks_1"] | {"attn": tables["blocks_0"]["attn"]}}
    changed["blocks_1"]["attn"] = {**tables["blocks_1"]["attn"], "relative_bias": table + 1.0 * (table > 0)}
    assert np.abs(own.apply(changed, state, images(), keep=keep)[0] - expected).max() > 1e-3


@pytest.mark.long
def test_every_block_with_its_own_table_has_one_from_the_start():
    params, _ = nano(position="relative", relative_per_block=True).init(jax.random.key(0), images())
    assert "relative_bias" not in params
    tables = [params[name]["attn"]["relative_bias"] for name in ("blocks_0", "blocks_1")]
    assert all(table.shape == (relative_rows(3, 3), 2) and not table.any() for table in tables)


@pytest.mark.long
@pytest.mark.parametrize("own", [False, True])
def test_relative_positions_on_another_grid(own):
    """Of a table that is linear in the distance: the bias is the stretched distance."""
    network, params, state = made(position="relative", relative_per_block=own, depth=1)
    down, right = (axis.ravel() - 2.0 for axis in np.indices((5, 5)))
    table = jnp.asarray(np.stack([np.r_[down, 0, 0, 0], np.r_[0.5 * right, 0, 0, 0]], axis=1), jnp.float32)

    def with_table(value):
        name = "blocks_0/attn/relative_bias" if own else "relative_bias"
        return trees.map_with_path(lambda path, p: value if path == name else p, params)

    x = images(shape=(8, 20))
    plain, _ = network.apply(with_table(table * 0), state, x, output="attention")
    found, _ = network.apply(with_table(table), state, x, output="attention")
    row, column = (axis.ravel() for axis in np.indices((2, 5)))
    bias = np.zeros((2, 11, 11))
    bias[0, 1:, 1:] = np.clip((row[:, None] - row) * 5 / 3, -2, 2)
    bias[1, 1:, 1:] = 0.5 * np.clip((column[:, None] - column) * 5 / 9, -2, 2)
    expected = np.asarray(plain) * np.exp(bias)
    same(found, expected / expected.sum(-1, keepdims=True))


def test_a_block_reads_its_own_table():
    attention = Attention(
        heads=2, qkv_bias=True, scheme="xavier", dtype="float32", relative_grids=((2, 2), (2, 2))
    )
    x = jnp.zeros((1, 5, 16))
    index = jnp.asarray(relative_index(2, 2, 1))[None]
    variables = attention.init(jax.random.key(0), x, positions=Positions(relative=index))
    table = jnp.asarray(np.random.default_rng(0).normal(size=(12, 2)), jnp.float32)
    variables = {"params": {**variables["params"], "relative_bias": table}}
    found = attention.apply(variables, x, weights=True, positions=Positions(relative=index))
    expected = np.exp(np.asarray(table)[relative_index(2, 2, 1)].transpose(2, 0, 1))
    same(found[0], expected / expected.sum(-1, keepdims=True))


@pytest.mark.long
@pytest.mark.parametrize("patch", [8, 14, 16, 32])
@pytest.mark.parametrize("position", ["learned", "sincos", "relative", "rope", "none"])
def test_every_patch_size_takes_images_that_are_not_square(position, patch):
    network = vit(
        "vit_micro", width=16, depth=1, heads=2, patch=patch, image_size=2 * patch, position=position
    )
    x = images(shape=(patch, 3 * patch))
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    output = functools.partial(network.apply, output="tokens")
    assert jax.eval_shape(output, *shapes, x)[0].shape == (2, 4, 16)


def test_hidden_units_of_every_published_ratio_are_whole():
    for width, hidden in ((1152, 4304), (1408, 6144), (1536, 8192), (384, 3072), (48, 128)):
        assert hidden_units(width, hidden / width) == hidden


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "map", "mlp": "swiglu"}, r"mlp='swiglu'.*pool='map'"),
        ({"relative_per_block": True}, r"relative_per_block=True: allowed is False unless"),
        ({"position_resize": "cubic"}, r"position_resize='cubic'"),
        ({"key_bias": False, "qkv_bias": False}, r"key_bias=False: allowed is True with qkv_bias=False"),
        ({"norm_epsilon": 0.0}, r"norm_epsilon=0.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nano(**options)
