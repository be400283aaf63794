"""timm's own ViTs, random and small, through the path that users take."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax.interop import load_pretrained
from ssl_jax.interop.family import Weights
from ssl_jax.interop.names import translate
from ssl_jax.interop.timm_vit import NAMES, said_by_timm
from ssl_jax.interop.vit_options import count_blocks, read_options
from ssl_jax.models.build import build
from ssl_jax.models.torch_names_vit import vit_to_torch
from tests.interop.parity import assert_parity, draw_images, randomize

SIZES = {
    "img_size": 32,
    "patch_size": 8,
    "depth": 2,
    "embed_dim": 64,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "num_classes": 0,
}

CLASSIFIER = {"head.weight": np.zeros((2, 128), np.float32), "head.bias": np.zeros(2, np.float32)}


def outputs_of(model):
    """Function from images to (features, tokens)."""

    def outputs(images):
        tokens = model.forward_features(images)
        return model.forward_head(tokens, pre_logits=True), tokens

    return outputs


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("architecture", "options", "expected"),
    [
        ("vit_base_patch16_224", {"qk_norm": True, "in_chans": 1}, {"qk_norm": True, "pool": "cls"}),
        ("vit_medium_patch16_gap_240", {"qkv_bias": False}, {"pool": "mean", "qkv_bias": False}),
        ("vit_medium_patch16_reg1_gap_256", {}, {"registers": 1, "fc_norm": True, "class_token": False}),
        ("vit_small_patch14_dinov2", {}, {"layer_scale": 1e-5}),
        (
            "vit_giant_patch14_reg4_dinov2",
            {"embed_dim": 96, "mlp_ratio": 2.66667 * 2},
            {"mlp": "swiglu", "registers": 4},
        ),
        ("vit_base_patch16_clip_224", {}, {"pre_norm": True, "norm_epsilon": 1e-5, "mlp": "gelu"}),
        ("vit_base_patch16_clip_quickgelu_224", {}, {"mlp": "quick_gelu"}),
        ("vit_so400m_patch16_siglip_256", {}, {"pool": "map", "mlp": "gelu_tanh"}),
        ("vit_base_patch16_siglip_gap_224", {}, {"pool": "mean", "fc_norm": False, "mlp": "gelu"}),
    ],
)
def test_models_give_the_same_features_tokens_and_gradients(tmp_path, architecture, options, expected):
    timm = pytest.importorskip("timm")
    from timm.models import save_for_hf

    model = randomize(timm.create_model(architecture, dynamic_img_size=True, **{**SIZES, **options}))
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    loaded = load_pretrained(str(tmp_path))
    found = loaded.network.config
    assert {name: found[name] for name in expected} == expected
    assert (found["heads"], found["image_size"]) == (2, 32)
    channels = options.get("in_chans", 3)
    assert len(loaded.preprocessing.mean) == channels
    # The second size interpolates positions.
    for size in ((32, 32), (40, 24)) if architecture == "vit_base_patch16_224" else ((40, 24),):
        assert_parity(loaded, outputs_of(model), draw_images(*size, channels=channels))


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_gates_in_two_layers_are_packed_and_gates_of_another_activation_refused(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    gated = {"mlp_layer": timm.layers.SwiGLU, "act_layer": "silu", "no_embed_class": True, "reg_tokens": 2}
    model = randomize(timm.create_model("vit_base_patch16_224", dynamic_img_size=True, **SIZES, **gated))
    name = str(tmp_path / "vit.safetensors")
    save_file(model.state_dict(), name)
    loaded = load_pretrained(name, heads=2)
    assert loaded.network.config["mlp"] == "swiglu"
    assert_parity(loaded, outputs_of(model), draw_images(40, 24))
    weights = Weights(
        {name: value.numpy() for name, value in model.state_dict().items()},
        {"config": {"architecture": "vit_base_patch16_224", "model_args": {"act_layer": "gelu"}}},
        {},
    )
    with pytest.raises(ValueError, match="act_layer='gelu'"):
        said_by_timm(weights)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_all_architectures_of_timm_are_built_with_their_own_options():
    """What the name of an architecture and its shapes give is what timm builds: 140 architectures and more."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models.vision_transformer import Block, VisionTransformer

    activations = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "swiglu"}
    compared = 0
    for name in timm.list_models(["vit_*", "deit*", "test_vit*"]):
        with torch.device("meta"):
            try:
                model = timm.create_model(name, depth=1, num_classes=0, weight_init="skip")
            except TypeError:  # Another class of models.
                continue
        if type(model) is not VisionTransformer or type(model.blocks[0]) is not Block:
            continue
        block = model.blocks[0]
        arrays = {
            key: np.broadcast_to(np.float32(0), value.shape) for key, value in model.state_dict().items()
        }
        ours = translate(arrays, NAMES)
        if ours.unknown or "patch_embed.proj.weight" not in arrays:
            continue  # Other stems and blocks, which load_pretrained refuses.
        if type(block.norm1).__name__ != "LayerNorm" or model.pool_include_prefix:
            continue
        pooled = {"architecture": name, "global_pool": model.global_pool}
        config = {"config": pooled, "pretrained_cfg": model.pretrained_cfg}
        said = said_by_timm(Weights(arrays, config, {}))
        size, _ = said.pop("image_size"), said.pop("family")
        options = read_options(ours.arrays, said, image_size=size)
        expected = {
            "heads": block.attn.num_heads,
            "mlp": activations[type(block.mlp.act).__name__],
            "norm_epsilon": block.norm1.eps,
            "pool": {"token": "cls", "avg": "mean", "map": "map"}[model.global_pool],
            # Its convolution leaves out what is no whole patch: 6 pixels of 384 with patches of 14.
            "image_size": model.patch_embed.grid_size[0] * model.patch_embed.patch_size[0],
            "registers": model.num_reg_tokens,
            "fc_norm": not isinstance(model.fc_norm, torch.nn.Identity),
        }
        found = {"norm_epsilon": 1e-6, **options}
        assert {key: found[key] for key in expected} == expected, name
        compared += 1
    assert compared > 130


def save_vit(tmp_path, *, changes=None, **options):
    """A file in timm's names of a random network of ours."""
    network = build("vit_micro", width=128, depth=1, heads=2, patch=8, image_size=32, **options)
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    arrays = vit_to_torch(params, state, network) | (changes or {})
    name = str(tmp_path / "vit.safetensors")
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in arrays.items() if v is not None}, name
    )
    return name, network, params, state


def test_what_shapes_do_not_say_is_guessed_and_can_be_said(tmp_path):
    name, network, params, state = save_vit(tmp_path)
    loaded = load_pretrained(name)
    assert loaded.network.config["heads"] == 2
    same = jax.tree.map(np.array_equal, (params, state), (loaded.params, loaded.state))
    assert all(jax.tree.leaves(same))
    assert loaded.network.config["depth"] == network.config["depth"]
    said = {
        "heads": 8,
        "mlp": "gelu_tanh",
        "norm_epsilon": 1e-3,
        "pool": "mean",
        "position_resize": "bicubic",
    }
    config = load_pretrained(name, **said).network.config
    assert {option: config[option] for option in said} == said
    for wrong in (3, 0):
        with pytest.raises(ValueError, match=f"heads={wrong}: allowed is a divisor of 128"):
            load_pretrained(name, heads=wrong)
    with pytest.raises(ValueError, match="not gated"):
        load_pretrained(name, mlp="swiglu")


@pytest.mark.parametrize(
    ("options", "resize", "mean"),
    [
        ({}, "bicubic_offset", 0.485),
        ({"changes": CLASSIFIER}, "bicubic_antialias", 0.5),
        ({"class_token": False, "pool": "mean"}, "bicubic_antialias", 0.5),
        ({"registers": 3}, "bicubic_antialias", 0.5),
        ({"qk_norm": True}, "bicubic_antialias", 0.5),
        ({"qkv_bias": False}, "bicubic_antialias", 0.5),
        ({"layer_scale": 1e-5, "registers": 3}, "bicubic_antialias", 0.485),
        ({"layer_scale": 1e-5, "fc_norm": True, "pool": "mean"}, "bicubic_antialias", 0.5),
        ({"position": "sincos"}, "bicubic", 0.485),
        ({"position": "sincos", "class_token": False, "pool": "mean"}, "bicubic", 0.485),
    ],
)
def test_a_file_without_config_is_told_by_what_is_in_it(tmp_path, options, resize, mean):
    loaded = load_pretrained(save_vit(tmp_path, **options)[0])
    assert (loaded.network.config["position_resize"], loaded.preprocessing.mean[0]) == (resize, mean)
    assert loaded.network.config["position"] == options.get("position", "learned")


def test_a_missing_block_and_a_table_that_is_no_square_are_named(tmp_path):
    name = save_vit(tmp_path, changes={"pos_embed": np.zeros((1, 15, 128), np.float32)})[0]
    with pytest.raises(
        ValueError, match=r"pos_embed=\(1, 15.*a square grid of patches and \[0, 1\] more rows"
    ):
        load_pretrained(name)
    with pytest.raises(ValueError, match=r"blocks=\[0, 2\].*missing: \[1\]"):
        count_blocks({"blocks.0.norm1.bias": np.zeros(1), "blocks.2.norm1.bias": np.zeros(1)})
    name = save_vit(tmp_path, changes={"patch_embed.proj.weight": np.zeros((128, 3, 8, 4), np.float32)})[0]
    with pytest.raises(ValueError, match="a square patch"):
        load_pretrained(name)


def test_the_size_that_a_file_states_tells_grids_apart():
    """Nine rows are a grid of 3 x 3, or one of 2 x 2 with five tokens in front."""
    arrays = {
        "cls_token": np.zeros((1, 1, 64)),
        "reg_token": np.zeros((1, 4, 64)),
        "pos_embed": np.zeros((1, 9, 64)),
        "patch_embed.proj.weight": np.zeros((64, 3, 8, 8)),
        "blocks.0.mlp.fc1.weight": np.zeros((128, 64)),
        "blocks.0.mlp.fc2.weight": np.zeros((64, 128)),
    }
    assert [read_options(arrays, {}, image_size=size)["image_size"] for size in (None, 24, 16)] == [
        24,
        24,
        16,
    ]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architecture": "vit_base_patch16_rpn_224"}, "architecture='vit_base_patch16_rpn_224'"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": {"act_layer": "relu"}}, "relu"),
        ({"model_args": {"global_pool": "max"}}, "global_pool='max'"),
        ({"model_args": {"pool_include_prefix": True}}, "pool_include_prefix=True"),
        ({"model_args": {"img_size": [32, 64]}}, r"image_size=\(32, 64\)"),
    ],
)
def test_what_timm_says_that_we_do_not_have_is_refused(config, named):
    with pytest.raises(ValueError, match=named):
        said_by_timm(Weights({}, {"config": config}, {}))


def test_a_number_of_heads_that_nothing_says_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(
        logging.getLogger("ssl_jax"), "propagate", True
    )  # launchers of other tests turn it off
    network = build("vit_micro", width=16, depth=1, heads=1, patch=4, image_size=8)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    safetensors.numpy.save_file(vit_to_torch(*variables, network), tmp_path / "vit.safetensors")
    assert load_pretrained(str(tmp_path / "vit.safetensors"), heads=2).network.config["heads"] == 2
    assert not caplog.records
    assert load_pretrained(str(tmp_path / "vit.safetensors")).network.config["heads"] == 1
    assert "16 features have: 1 are assumed" in caplog.text
