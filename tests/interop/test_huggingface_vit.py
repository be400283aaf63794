"""Random ViTs of transformers through the path that users take, and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.interop import load_pretrained
from ssl_jax.interop.huggingface_vit import to_transformers
from ssl_jax.interop.names import translate
from ssl_jax.models.build import build
from ssl_jax.models.positions import sincos_table
from tests.interop.parity import assert_parity, draw_images, randomize

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
MAE = {
    "mask_ratio": 0.0,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 128,
}


def model_of(kind, **options):
    """A random model of transformers; ``None`` as image size of its call means any."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    sizes = SIZES | ({} if kind.startswith("Dinov2") else {"intermediate_size": 128})
    model = getattr(transformers, kind.replace("Model", "").replace("ForPreTraining", "") + "Config")
    return getattr(transformers, kind)(model(**sizes, **options))


def fix_positions(model):
    """Give a ViTMAE the tables that published ones have: a row of zeros, then MAE's; a new one of transformers has zeros."""
    import torch

    for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        rows = np.concatenate([np.zeros((1, table.shape[-1])), sincos_table(4, 4, table.shape[-1])])
        table.data = torch.from_numpy(rows[None].astype(np.float32))


def outputs_of(model, images):
    """(features, tokens) of a model of transformers at any size."""
    kind = type(model).__name__
    options = {} if kind.startswith("Dinov2") else {"interpolate_pos_encoding": True}
    if kind == "ViTMAEForPreTraining":
        import torch

        model, count = model.vit, images.shape[-1] * images.shape[-2] // 64
        options["noise"] = torch.arange(float(count)).expand(len(images), count)
    tokens = model(images, **options).last_hidden_state
    return tokens.mean(1) if kind == "IJepaModel" else tokens[:, 0], tokens


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("kind", "options", "family"),
    [
        ("ViTModel", {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-3}, "ViT"),
        ("ViTMSNModel", {"qkv_bias": False}, "ViT"),
        ("IJepaModel", {}, "IJepa"),
        ("ViTMAEForPreTraining", MAE, "ViTMAE"),
        ("Dinov2Model", {"mlp_ratio": 2}, "Dinov2"),
        ("Dinov2WithRegistersModel", {"use_swiglu_ffn": True}, "Dinov2WithRegisters"),
    ],
)
def test_models_give_the_same_features_tokens_and_gradients(tmp_path, kind, options, family):
    model = randomize(model_of(kind, **options))
    if family == "ViTMAE":
        fix_positions(model)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))
    assert loaded.provenance["family"] == f"transformers {family}"
    for height, width in ((32, 32), (40, 24)):
        assert_parity(loaded, lambda x: outputs_of(model, x), draw_images(height, width))
    # What it writes has other names than what it holds.
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = load_pretrained(str(tmp_path))
    assert again.network.config == loaded.network.config
    same = jax.tree.map(np.array_equal, *[(one.params, one.heads) for one in (loaded, again)])
    assert all(jax.tree.leaves(same))
    assert set(loaded.heads) == ({"decoder"} if family == "ViTMAE" else set())


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_the_decoder_of_a_vit_mae_predicts_the_same_pixels(tmp_path):
    torch = pytest.importorskip("torch")
    from ssl_jax.models.decoders import mae_decoder

    model = randomize(model_of("ViTMAEForPreTraining", **MAE))
    fix_positions(model)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))
    assert loaded.network.config["position"] == "sincos"
    restore = np.random.default_rng(0).permuted(np.tile(np.arange(16), (2, 1)), axis=1)
    tokens = np.random.default_rng(1).standard_normal((2, 1 + 4, 64)).astype(np.float32)
    theirs = model.decoder(torch.from_numpy(tokens), torch.from_numpy(restore)).logits.detach().numpy()
    decoder = mae_decoder(patch=8, channels=3, grid=4, width=32, depth=2, heads=16)
    params, state = loaded.heads["decoder"]
    ours = decoder.apply(params, state, jnp.asarray(tokens), restore=jnp.asarray(restore))[0]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Dinov2Model", {"class_token": True, "layer_scale": 1e-5, "mask_token": True}),
        (
            "Dinov2Model",
            {"class_token": True, "position": "sincos", "norm_epsilon": 1e-12, "mlp": "quick_gelu"},
        ),
        (
            "Dinov2WithRegistersModel",
            {
                "class_token": True,
                "registers": 2,
                "position_resize": "bicubic_antialias",
                "mlp": "swiglu",
                "mlp_ratio": 2.75,
            },
        ),
        ("IJepaModel", {"class_token": False, "pool": "mean", "qkv_bias": False, "mlp_ratio": 2.5}),
    ],
)
def test_an_export_loads_in_transformers_without_missing_arrays_and_comes_back(tmp_path, kind, options):
    transformers = pytest.importorskip("transformers")
    import safetensors.numpy

    network = build("vit_micro", width=64, depth=2, heads=2, patch=8, image_size=32, **options)
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)
    arrays, config = to_transformers(network, params, state)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(a) for name, a in arrays.items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, report = getattr(transformers, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    loaded = load_pretrained(str(tmp_path))
    assert_parity(loaded, lambda x: outputs_of(model.eval(), x), draw_images(40, 24))
    images = jnp.asarray(draw_images(40, 24))
    tokens, back = (
        one.apply(p, s, images, output="tokens")[0]
        for one, p, s in ((network, params, state), (loaded.network, loaded.params, loaded.state))
    )
    np.testing.assert_allclose(back, tokens, rtol=0, atol=1e-5 * float(jnp.abs(tokens).max()))
    again, _ = to_transformers(loaded.network, loaded.params, loaded.state)
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"position": "relative"}, "position='relative'"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"pre_norm": True}, "pre_norm=True"),
        ({"fc_norm": True}, "fc_norm=True"),
        ({"registers": 1}, "position_resize='bicubic'"),
        ({"position_resize": "bicubic_offset"}, "position_resize='bicubic_offset'"),
        ({"mlp_ratio": 2.5}, "mlp_ratio=2.5"),
        ({"class_token": False, "pool": "mean", "registers": 2, "position_resize": "bicubic"}, "registers=2"),
        ({"class_token": False, "pool": "mean", "layer_scale": 1.0}, "layer_scale=1.0"),
    ],
)
def test_an_option_that_transformers_does_not_have_is_refused_by_name(options, named):
    network = build("vit_micro", width=16, depth=1, heads=2, patch=8, image_size=16, **options)
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(ValueError, match="transformers") as error:
        to_transformers(network, params, state)
    assert named in str(error.value)


def test_an_activation_that_we_do_not_have_is_refused(tmp_path):
    import safetensors.numpy

    network = build("vit_micro", width=16, depth=1, heads=2, patch=8, image_size=16)
    arrays, config = to_transformers(network, *network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(a) for name, a in arrays.items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ValueError, match="activation of the file='relu'"):
        load_pretrained(str(tmp_path))


def test_names_of_transformers_4_and_5_are_the_same_arrays():
    from ssl_jax.interop import huggingface_vit as names

    old = {
        f"encoder.layer.0.attention.attention.{part}.weight": np.full((2, 2), k)
        for k, part in enumerate(("query", "key", "value"))
    }
    new = {f"layers.0.attention.{part}_proj.weight": np.full((2, 2), k) for k, part in enumerate("qkv")}
    ours = [translate(old, names.OLD_VIT_NAMES), translate(new, names.NEW_VIT_NAMES)]
    assert all(not found.unknown for found in ours)
    np.testing.assert_array_equal(*[found.arrays["blocks.0.attn.qkv.weight"] for found in ours])
    assert ours[0].arrays["blocks.0.attn.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
