"""BEiT of transformers, timm and Microsoft, random and small, through the path that users take."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax.interop import load_pretrained
from ssl_jax.models.torch_names_vit import vit_to_torch
from ssl_jax.models.vit import vit
from tests.interop.parity import assert_parity, draw_images, randomize
from tests.models.fill import random_variables

nano = functools.partial(
    vit,
    "vit_micro",
    width=32,
    depth=2,
    heads=2,
    patch=8,
    image_size=24,
    pool="mean",
    position="relative",
    layer_scale=0.1,
    key_bias=False,
)


def microsoft_file(network, params, *, heads=True):
    """Our ViT under Microsoft's names."""
    arrays = vit_to_torch(params, {}, network)
    for i in range(2):
        block = f"blocks.{i}."
        query, _, value = np.split(arrays.pop(f"{block}attn.qkv.bias"), 3)
        arrays |= {f"{block}attn.q_bias": query, f"{block}attn.v_bias": value}
        for k in (1, 2):
            arrays[f"{block}gamma_{k}"] = arrays.pop(f"{block}ls{k}.gamma")
        if network.config["relative_per_block"]:
            arrays[f"{block}attn.relative_position_index"] = np.zeros((10, 10), np.int64)
    if not network.config["relative_per_block"]:
        arrays["rel_pos_bias.relative_position_index"] = np.zeros((10, 10), np.int64)
    if heads:
        rng = np.random.default_rng(0)
        arrays |= {
            "lm_head.weight": rng.normal(size=(5, 32)).astype(np.float32),
            "lm_head.bias": rng.normal(size=5).astype(np.float32),
        }
    return arrays


def save(tmp_path, arrays):
    path = tmp_path / "beit.safetensors"
    safetensors.numpy.save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    return str(path)


@pytest.mark.parametrize("prefix", ["", pytest.param("model.", marks=pytest.mark.long)])
def test_a_pretrained_file_of_microsofts_is_read_whole(tmp_path, prefix):
    network = nano(mask_token=True)
    params, _ = random_variables(network, jnp.zeros((1, 24, 24, 3)))
    arrays = microsoft_file(network, params)
    path = save(tmp_path, {prefix + name: array for name, array in arrays.items()})
    loaded = load_pretrained(path, heads=2)
    assert loaded.provenance["family"] == "BEiT"
    expected = {**network.config, "layer_scale": 1e-5, "name": "vit_micro"}
    assert dict(loaded.network.config) == expected
    found = loaded.params
    for name in ("relative_bias", "mask_token", "cls_token"):
        np.testing.assert_array_equal(found[name], params[name])
    qkv = found["blocks_1"]["attn"]["qkv"]
    kernel, bias = qkv["kernel"], qkv["bias"]
    np.testing.assert_array_equal(kernel, params["blocks_1"]["attn"]["qkv"]["kernel"])
    assert not bias[32:64].any() and bias[:32].any() and bias[64:].any()
    head, _ = loaded.heads["head"]
    np.testing.assert_array_equal(head["dense_0"]["kernel"], arrays["lm_head.weight"].T)
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert loaded.preprocessing.size == (24, 24)


def test_a_fine_tuned_file_has_a_table_for_each_block(tmp_path):
    network = nano(relative_per_block=True, fc_norm=True)
    params, _ = random_variables(network, jnp.zeros((1, 24, 24, 3)))
    loaded = load_pretrained(save(tmp_path, microsoft_file(network, params, heads=False)), heads=2)
    assert dict(loaded.network.config) == {**network.config, "layer_scale": 1e-5}
    for name in ("blocks_0", "blocks_1"):
        table = loaded.params[name]["attn"]["relative_bias"]
        np.testing.assert_array_equal(table, params[name]["attn"]["relative_bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed": np.zeros((1, 10, 32), np.float32)}, r"pos_embed.*beside relative positions"),
        ({"rel_pos_bias.relative_position_bias_table": np.zeros((40, 2), np.float32)}, r"40.*rows"),
        ({"blocks.0.attn.relative_position_bias_table": np.zeros((28, 2), np.float32)}, r"beside tables"),
        ({"extra.weight": np.zeros(3, np.float32)}, r"extra.weight"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    network = nano()
    params, _ = random_variables(network, jnp.zeros((1, 24, 24, 3)))
    path = save(tmp_path, microsoft_file(network, params) | change)
    with pytest.raises(ValueError, match=message):
        load_pretrained(path, heads=2)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("options", "pool"),
    [
        ({"use_rel_pos_bias": True}, {}),
        ({"use_shared_rel_pos_bias": True, "global_pool": "token"}, {"pool": "cls"}),
        ({"use_rel_pos_bias": True, "qkv_bias": False}, {}),
    ],
)
def test_timm(tmp_path, options, pool):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file
    from timm.models.beit import Beit

    assert timm
    model = randomize(
        Beit(
            img_size=32,
            patch_size=8,
            embed_dim=64,
            depth=2,
            num_heads=1,
            num_classes=0,
            init_values=0.1,
            use_abs_pos_emb=False,
            **{"qkv_bias": True, **options},
        )
    )
    save_file(model.state_dict(), tmp_path / "beit.safetensors")
    loaded = load_pretrained(str(tmp_path / "beit.safetensors"), **pool)
    assert loaded.provenance["family"] == "BEiT"
    assert_parity(loaded, lambda x: (model(x), model.forward_features(x)), draw_images(32, 32))


def beit_of_transformers(kind, **options):
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        patch_size=8,
        image_size=32,
        use_mask_token=True,
        **options,
    )
    return randomize(getattr(transformers, f"{kind}Model")(config, add_pooling_layer=True))


OPTIONS = {
    "own": {"use_relative_position_bias": True},
    "shared": {"use_shared_relative_position_bias": True, "use_mean_pooling": False},
    "absolute": {"use_absolute_position_embeddings": True},
    "none": {"use_mean_pooling": False, "layer_norm_eps": 1e-6},
}


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("case", "kind", "hub_names"),
    [
        ("own", "Beit", True),
        ("own", "Beit", False),
        ("shared", "Beit", True),
        ("shared", "Beit", False),
        ("absolute", "Beit", True),
        ("none", "Beit", True),
        ("shared", "Data2VecVision", True),
    ],
)
def test_transformers(tmp_path, case, kind, hub_names):
    pytest.importorskip("transformers")
    model = beit_of_transformers(kind, **OPTIONS[case])
    model.save_pretrained(tmp_path / "hub")
    if not hub_names:
        arrays = {name: a.numpy() for name, a in model.state_dict().items()}
        safetensors.numpy.save_file(arrays, tmp_path / "hub" / "model.safetensors")
    loaded = load_pretrained(str(tmp_path / "hub"))
    assert loaded.provenance["family"] == "transformers Beit"

    def theirs(pixels):
        out = model(pixels, interpolate_pos_encoding=True)
        return out.pooler_output, out.last_hidden_state

    for size in ((32, 32), (24, 56)) if hub_names else ((32, 32),):
        assert_parity(loaded, theirs, draw_images(*size))


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_masked_image_modeling_of_transformers_with_its_head(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = beit_of_transformers("Beit", **OPTIONS["shared"]).config
    config.update({"use_mean_pooling": True, "vocab_size": 7})
    model = randomize(transformers.BeitForMaskedImageModeling(config))
    model.save_pretrained(tmp_path / "hub")
    loaded = load_pretrained(str(tmp_path / "hub"))
    images = draw_images(32, 32)
    mask = np.arange(32).reshape(2, 16) % 3 == 0
    tokens, _ = loaded.network.apply(
        loaded.params, loaded.state, jnp.asarray(images), mask=jnp.asarray(mask), output="tokens"
    )
    head = jax.tree.map(np.asarray, loaded.heads["head"][0]["dense_0"])
    found = np.asarray(tokens[:, 1:]) @ head["kernel"] + head["bias"]
    with torch.no_grad():
        expected = model(
            torch.from_numpy(images.transpose(0, 3, 1, 2)), bool_masked_pos=torch.from_numpy(mask)
        ).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
