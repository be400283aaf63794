"""Image towers of CLIP: transformers' own and open names of OpenAI's code, through the path that users take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from ssl_jax.interop import clip, load_pretrained
from ssl_jax.interop.preprocessing import CLIP_MEAN, CLIP_STD
from tests.interop.parity import assert_parity, difference, draw_images, randomize

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def openai_arrays(*, width=16, depth=2, patch=4, side=2, prefix="visual.", seed=0):
    """Arrays of an image tower by the names of OpenAI's code, with a projection to 8."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(0, 0.2, shape).astype(np.float32)

    arrays = {
        "class_embedding": draw(width),
        "positional_embedding": draw(side * side + 1, width),
        "conv1.weight": draw(width, 3, patch, patch),
        "proj": draw(width, 8),
    }
    for norm in ("ln_pre", "ln_post"):
        arrays |= {f"{norm}.weight": 1 + draw(width), f"{norm}.bias": draw(width)}
    for i in range(depth):
        block = f"transformer.resblocks.{i}"
        arrays |= {
            f"{block}.attn.in_proj_weight": draw(3 * width, width),
            f"{block}.attn.in_proj_bias": draw(3 * width),
        }
        arrays |= {
            f"{block}.attn.out_proj.weight": draw(width, width),
            f"{block}.attn.out_proj.bias": draw(width),
        }
        arrays |= {
            f"{block}.mlp.c_fc.weight": draw(4 * width, width),
            f"{block}.mlp.c_fc.bias": draw(4 * width),
        }
        arrays |= {
            f"{block}.mlp.c_proj.weight": draw(width, 4 * width),
            f"{block}.mlp.c_proj.bias": draw(width),
        }
        for norm in ("ln_1", "ln_2"):
            arrays |= {f"{block}.{norm}.weight": 1 + draw(width), f"{block}.{norm}.bias": draw(width)}
    return {prefix + name: array for name, array in arrays.items()}


def normalized(x, weight, bias, epsilon):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt(x.var(-1, keepdims=True) + epsilon) * weight + bias


def numpy_clip(arrays, images, *, heads, prefix="visual."):
    """The forward pass of CLIP's image tower, one image at a time, without its projection."""
    w = {name.removeprefix(prefix): array.astype(np.float64) for name, array in arrays.items()}
    width, _, patch, _ = w["conv1.weight"].shape
    features = []
    for image in images.astype(np.float64):
        rows, columns = image.shape[0] // patch, image.shape[1] // patch
        x = [w["class_embedding"]]
        for r in range(rows):
            for c in range(columns):
                box = image[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
                x.append(np.einsum("hwc,ochw->o", box, w["conv1.weight"]))
        x = np.stack(x) + w["positional_embedding"]
        x = normalized(x, w["ln_pre.weight"], w["ln_pre.bias"], 1e-5)
        for i in range(sum(name.endswith("ln_1.bias") for name in w)):
            b = {name.split(f"resblocks.{i}.")[1]: a for name, a in w.items() if f"resblocks.{i}." in name}
            y = normalized(x, b["ln_1.weight"], b["ln_1.bias"], 1e-5)
            q, k, v = np.split(y @ b["attn.in_proj_weight"].T + b["attn.in_proj_bias"], 3, axis=1)
            mixed = []
            for part in np.split(np.arange(width), heads):
                scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(len(part)))
                mixed.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
            x = x + np.concatenate(mixed, 1) @ b["attn.out_proj.weight"].T + b["attn.out_proj.bias"]
            y = (
                normalized(x, b["ln_2.weight"], b["ln_2.bias"], 1e-5) @ b["mlp.c_fc.weight"].T
                + b["mlp.c_fc.bias"]
            )
            x = x + y / (1 + np.exp(-1.702 * y)) @ b["mlp.c_proj.weight"].T + b["mlp.c_proj.bias"]
        features.append(normalized(x[0], w["ln_post.weight"], w["ln_post.bias"], 1e-5))
    return np.stack(features)


@pytest.mark.parametrize("prefix", ["visual.", ""])
def test_the_names_of_openai_give_the_features_of_a_plain_forward_pass(tmp_path, prefix):
    arrays = openai_arrays(prefix=prefix)
    beside = {
        "transformer.resblocks.0.ln_1.weight": np.ones(4, np.float32),
        "token_embedding.weight": np.ones((3, 4), np.float32),
        "positional_embedding": np.ones((5, 4), np.float32),
        "logit_scale": np.ones((), np.float32),
    }
    save_file({**arrays, **(beside if prefix else {})}, tmp_path / "clip.safetensors")
    images = np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)
    loaded = load_pretrained(str(tmp_path / "clip.safetensors"), heads=2)
    features = loaded.network.apply(loaded.params, loaded.state, jnp.asarray(images))[0]
    assert difference(features, numpy_clip(arrays, images, heads=2, prefix=prefix)) < 1e-5
    kernel = loaded.heads["projector"][0]["dense_0"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays[f"{prefix}proj"])
    assert loaded.preprocessing.size == (8, 8)
    assert (loaded.preprocessing.mean, loaded.preprocessing.std) == (CLIP_MEAN, CLIP_STD)


def test_the_gelu_of_a_model_of_openclip_is_stated_by_its_user(tmp_path):
    save_file(openai_arrays(), tmp_path / "clip.safetensors")
    name = str(tmp_path / "clip.safetensors")
    assert load_pretrained(name, heads=2).network.config["mlp"] == "quick_gelu"
    assert load_pretrained(name, heads=2, mlp="gelu").network.config["mlp"] == "gelu"


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_transformers_clip(tmp_path, act):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        **SIZES, image_size=32, patch_size=8, projection_dim=16, hidden_act=act
    )
    model = randomize(transformers.CLIPVisionModelWithProjection(config))
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))
    assert loaded.network.config["mlp"] == act

    def forward(x):
        tower = model.vision_model
        output = tower(x, interpolate_pos_encoding=True)
        return output.pooler_output, tower.post_layernorm(output.last_hidden_state)

    assert_parity(loaded, forward, draw_images(32, 32))
    assert_parity(loaded, forward, draw_images(24, 48))
    kernel = model.visual_projection.weight.detach().numpy().T
    np.testing.assert_array_equal(loaded.heads["projector"][0]["dense_0"]["kernel"], kernel)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_the_tower_within_a_whole_clip_of_transformers(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    text = {**SIZES, "vocab_size": 50, "max_position_embeddings": 8}
    model = randomize(transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)))
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))

    def forward(x):
        output = model.vision_model(x)
        return output.pooler_output, model.vision_model.post_layernorm(output.last_hidden_state)

    assert_parity(loaded, forward, draw_images(32, 32))


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_back_to_transformers_bit_for_bit(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(**SIZES, image_size=32, patch_size=8)
    randomize(transformers.CLIPVisionModel(config)).save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))
    arrays, written = clip.to_transformers(loaded.network, loaded.params, loaded.state)
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig.from_dict(written)).eval()
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}, strict=True)

    def forward(x):
        output = model(x)
        return output.pooler_output, model.post_layernorm(output.last_hidden_state)

    assert_parity(loaded, forward, draw_images(32, 32))
    (tmp_path / "again").mkdir()
    model.save_pretrained(tmp_path / "again")
    again = load_pretrained(str(tmp_path / "again"))
    assert again.network.config == loaded.network.config
    flat = [np.asarray(a) for a in jax.tree.leaves(loaded.params)]
    for a, b in zip(flat, jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_clip_does_not_have_is_refused(tmp_path):
    save_file(openai_arrays(), tmp_path / "clip.safetensors")
    loaded = load_pretrained(str(tmp_path / "clip.safetensors"), heads=2)
    network = loaded.network._replace(config={**loaded.network.config, "registers": 4})
    with pytest.raises(ValueError, match="registers=4: allowed is 0, which is what a CLIPVisionModel has"):
        clip.to_transformers(network, loaded.params, loaded.state)
