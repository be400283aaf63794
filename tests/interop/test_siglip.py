"""Image towers of SigLIP: transformers' own, timm's, and timm's within a file of OpenCLIP."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from ssl_jax.interop import load_pretrained, siglip
from tests.interop.parity import assert_parity, draw_images, randomize

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TIMM = "vit_base_patch16_siglip_224"


def arrays_of(*, width=16, depth=1, patch=4, side=2, seed=0):
    """Arrays of an image tower by the names of transformers."""
    rng = np.random.default_rng(seed)
    linears = {
        "head.attention.out_proj": (width, width),
        "head.mlp.fc1": (2 * width, width),
        "head.mlp.fc2": (width, 2 * width),
    }
    norms = ["post_layernorm", "head.layernorm"]
    for i in range(depth):
        layer = f"encoder.layers.{i}"
        linears |= {f"{layer}.self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
        linears |= {f"{layer}.mlp.fc1": (2 * width, width), f"{layer}.mlp.fc2": (width, 2 * width)}
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
    shapes = {f"{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    shapes |= {f"{name}.{leaf}": (width,) for name in norms for leaf in ("weight", "bias")}
    shapes |= {
        "embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "embeddings.patch_embedding.bias": (width,),
        "embeddings.position_embedding.weight": (side * side, width),
        "head.probe": (1, 1, width),
        "head.attention.in_proj_weight": (3 * width, width),
        "head.attention.in_proj_bias": (3 * width,),
    }
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_options_of_a_tower_follow_its_arrays(tmp_path):
    given = arrays_of()
    save_file(given, tmp_path / "siglip.safetensors")
    loaded = load_pretrained(str(tmp_path / "siglip.safetensors"))
    options = ("pool", "class_token", "mlp", "mlp_ratio", "norm_epsilon", "image_size", "patch", "heads")
    assert [loaded.network.config[name] for name in options] == [
        "map",
        False,
        "gelu_tanh",
        2.0,
        1e-6,
        8,
        4,
        1,
    ]
    written, config = siglip.to_transformers(loaded.network, loaded.params, loaded.state)
    assert config["hidden_act"] == "gelu_pytorch_tanh"
    assert written.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


def test_a_tower_without_its_head_pools_by_the_mean(tmp_path):
    arrays = {name: array for name, array in arrays_of().items() if not name.startswith("head.")}
    save_file(arrays, tmp_path / "siglip.safetensors")
    assert load_pretrained(str(tmp_path / "siglip.safetensors")).network.config["pool"] == "mean"


def test_naflex_is_refused(tmp_path):
    arrays = arrays_of() | {"embeddings.patch_embedding.weight": np.zeros((16, 48), np.float32)}
    save_file(arrays, tmp_path / "siglip.safetensors")
    with pytest.raises(ValueError, match=r"patch_embedding=.*naflex"):
        load_pretrained(str(tmp_path / "siglip.safetensors"))


def test_what_siglip_does_not_have_is_refused(tmp_path):
    save_file(arrays_of(), tmp_path / "siglip.safetensors")
    network, params, state = load_pretrained(str(tmp_path / "siglip.safetensors"))[:3]
    network = network._replace(config={**network.config, "mlp": "swiglu"})
    with pytest.raises(ValueError, match="mlp='swiglu': allowed is 'gelu_tanh' or 'gelu' or 'quick_gelu'"):
        siglip.to_transformers(network, params, state)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("whole", [False, True], ids=["tower", "whole"])
def test_transformers_siglip(tmp_path, whole):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {**SIZES, "image_size": 32, "patch_size": 8}
    if whole:
        text = {**SIZES, "vocab_size": 50, "max_position_embeddings": 8}
        config = transformers.SiglipConfig(text_config=text, vision_config=sizes)
        model = randomize(transformers.SiglipModel(config))
        tower = model.vision_model
    else:
        tower = model = randomize(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes)))
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))

    def forward(x):
        output = tower(x, interpolate_pos_encoding=True)
        return output.pooler_output, output.last_hidden_state

    assert_parity(loaded, forward, draw_images(32, 32))
    assert_parity(loaded, forward, draw_images(24, 48))


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_back_to_transformers_bit_for_bit(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.SiglipVisionConfig(**SIZES, image_size=32, patch_size=8)
    randomize(transformers.SiglipVisionModel(config)).save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))
    arrays, written = siglip.to_transformers(loaded.network, loaded.params, loaded.state)
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig.from_dict(written)).eval()
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}, strict=True)

    def forward(x):
        output = model(x)
        return output.pooler_output, output.last_hidden_state

    assert_parity(loaded, forward, draw_images(32, 32))
    (tmp_path / "again").mkdir()
    model.save_pretrained(tmp_path / "again")
    again = load_pretrained(str(tmp_path / "again"))
    assert again.network.config == loaded.network.config
    for a, b in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("prefix", ["", "visual.trunk."], ids=["timm", "openclip"])
def test_timm_siglip(tmp_path, prefix):
    pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    model = randomize(timm.create_model(TIMM, **sizes, num_classes=0, dynamic_img_size=True))
    arrays = {prefix + name: tensor.numpy() for name, tensor in model.state_dict().items()}
    if prefix:
        arrays |= {"text.ln_final.weight": np.ones(3, np.float32), "logit_scale": np.ones((), np.float32)}
    save_file(arrays, tmp_path / "siglip.safetensors")
    loaded = load_pretrained(str(tmp_path / "siglip.safetensors"))
    assert loaded.network.config["pool"] == "map"

    def forward(x):
        tokens = model.forward_features(x)
        return model.forward_head(tokens), tokens

    assert_parity(loaded, forward, draw_images(32, 32))
    assert_parity(loaded, forward, draw_images(24, 48))
