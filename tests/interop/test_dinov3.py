"""DINOv3's vision transformers: golden numbers, and models of transformers and timm through the path that users take."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax.interop import load_pretrained
from ssl_jax.interop.dinov3 import rope_base
from tests.golden_files import assert_close, golden
from tests.interop.parity import assert_parity, draw_images, randomize

WIDTH, DEPTH, HEADS, PATCH = 48, 2, 3, 8


def golden_weights(case):
    prefix = f"{case}__w__"
    return {
        name.removeprefix(prefix): a for name, a in golden("dinov3_vit").items() if name.startswith(prefix)
    }


def save(folder, arrays, config=None):
    """A folder as the hub has them."""
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / "model.safetensors"
    )
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder if config is not None else folder / "model.safetensors")


def load_golden(tmp_path, case, **options):
    config = {"num_attention_heads": HEADS, "image_size": 32, "layer_norm_eps": 1e-5}
    return load_pretrained(save(tmp_path / "hub", golden_weights(case), config), **options)


@pytest.mark.parametrize(
    ("case", "weights", "image"),
    [
        pytest.param("mlp", "mlp", "img", marks=pytest.mark.long),
        ("mlp_masked", "mlp", "img"),
        pytest.param("mlp_wide", "mlp", "img_wide", marks=pytest.mark.long),
        pytest.param("gated_noregisters", "gated_noregisters", "img", marks=pytest.mark.long),
    ],
)
def test_tokens_and_gradient_equal_the_golden_numbers(tmp_path, case, weights, image):
    file = golden("dinov3_vit")
    loaded = load_golden(tmp_path, weights)
    mask = jnp.asarray(file["in__mask"]) if case == "mlp_masked" else None
    x = jnp.asarray(file[f"in__{image}"].transpose(0, 2, 3, 1), jnp.float32)

    @jax.jit
    def run(x):
        tokens = loaded.network.apply(loaded.params, loaded.state, x, output="tokens", mask=mask)[0]
        return (tokens * jnp.cos(jnp.arange(tokens.size)).reshape(tokens.shape)).sum(), tokens

    (_, tokens), gradient = jax.value_and_grad(run, has_aux=True)(x)
    assert_close(tokens, file[f"{case}__out__tokens"], tolerance=1e-5)
    assert_close(gradient, file[f"{case}__grad__{image}"].transpose(0, 2, 3, 1), tolerance=1e-5)
    config = loaded.network.config
    assert (config["position"], config["rope_base"], config["norm_epsilon"]) == ("rope", 100.0, 1e-5)
    assert config["key_bias"] == (weights == "gated_noregisters")
    assert (config["registers"], config["mask_token"]) == (0 if weights == "gated_noregisters" else 4, True)


def meta_file(case, *, bias_mask=True, periods=True):
    """The golden weights under Meta's names."""
    given = golden_weights(case)
    arrays = {
        "cls_token": given["embeddings.cls_token"],
        "mask_token": given["embeddings.mask_token"][0],
        "storage_tokens": given["embeddings.register_tokens"],
        "patch_embed.proj.weight": given["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": given["embeddings.patch_embeddings.bias"],
        "norm.weight": given["norm.weight"],
        "norm.bias": given["norm.bias"],
        "local_cls_norm.weight": given["norm.weight"] + 1,
        "local_cls_norm.bias": given["norm.bias"],
    }
    if periods:
        exact = 100.0 ** (np.arange(4) / 4)
        arrays["rope_embed.periods"] = exact.astype(jnp.bfloat16).astype(np.float32)
    rng = np.random.default_rng(0)
    for i in range(DEPTH):
        old, new = f"model.layer.{i}.", f"blocks.{i}."
        parts = [given[f"{old}attention.{part}_proj.weight"] for part in "qkv"]
        biases = [
            given.get(f"{old}attention.{part}_proj.bias", rng.normal(size=WIDTH).astype(np.float32))
            for part in "qkv"
        ]
        arrays |= {
            f"{new}attn.qkv.weight": np.concatenate(parts),
            f"{new}attn.qkv.bias": np.concatenate(biases),
            f"{new}ls1.gamma": given[f"{old}layer_scale1.lambda1"],
            f"{new}ls2.gamma": given[f"{old}layer_scale2.lambda1"],
        }
        if bias_mask:
            arrays[f"{new}attn.qkv.bias_mask"] = np.repeat(np.float32([1, 0, 1]), WIDTH)
        names = {"norm1": "norm1", "norm2": "norm2", "attention.o_proj": "attn.proj"}
        gated = f"{old}mlp.gate_proj.weight" in given
        names |= (
            {"mlp.gate_proj": "mlp.w1", "mlp.up_proj": "mlp.w2", "mlp.down_proj": "mlp.w3"}
            if gated
            else {"mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}
        )
        for theirs, ours in names.items():
            for leaf in ("weight", "bias"):
                arrays[f"{new}{ours}.{leaf}"] = given[f"{old}{theirs}.{leaf}"]
    return arrays


def prefixed(arrays, prefix):
    return {prefix + name: array for name, array in arrays.items()}


@pytest.mark.parametrize("prefix", ["", pytest.param("teacher.backbone.", marks=pytest.mark.long)])
def test_a_file_of_metas_gives_the_golden_tokens(tmp_path, prefix):
    """Also with a bias of keys behind the mask, periods in bfloat16 and a normalisation for local crops."""
    file = golden("dinov3_vit")
    loaded = load_pretrained(save(tmp_path / "meta", prefixed(meta_file("mlp"), prefix)))
    assert loaded.provenance["family"] == "Meta DINOv3 ViT"
    assert loaded.network.config["heads"] == HEADS
    assert loaded.network.config["key_bias"] is False
    x = jnp.asarray(file["in__img"].transpose(0, 2, 3, 1), jnp.float32)
    tokens, _ = jax.jit(lambda x: loaded.network.apply(loaded.params, {}, x, output="tokens"))(x)
    assert_close(tokens, file["mlp__out__tokens"], tolerance=1e-5)
    assert loaded.preprocessing.resize == "squash"
    assert loaded.preprocessing.size == (224, 224)


@pytest.mark.long
def test_a_gated_file_of_metas_without_registers_gives_the_golden_tokens(tmp_path):
    file = golden("dinov3_vit")
    arrays = meta_file("gated_noregisters", bias_mask=False)
    del arrays["storage_tokens"]
    loaded = load_pretrained(save(tmp_path / "meta", arrays))
    x = jnp.asarray(file["in__img"].transpose(0, 2, 3, 1), jnp.float32)
    tokens, _ = loaded.network.apply(loaded.params, {}, x, output="tokens")
    assert_close(tokens, file["gated_noregisters__out__tokens"], tolerance=1e-5)


def test_satellite_images_have_their_own_mean(tmp_path):
    path = save(tmp_path / "dinov3_vitl16_pretrain_sat493m", meta_file("mlp"))
    assert load_pretrained(path).preprocessing.mean == pytest.approx((0.430, 0.411, 0.296))


def test_periods_say_the_base():
    for base in (100.0, 30.0, 1000.0):
        exact = base ** (np.arange(16) / 16)
        rounded = exact.astype(jnp.bfloat16).astype(np.float32)
        assert rope_base(rounded) == pytest.approx(base, rel=0.01)
        assert rope_base(exact) == pytest.approx(base, rel=1e-9)
    with pytest.raises(ValueError, match=r"rope_embed.periods=.*of one base"):
        rope_base(0.5 * 40.0 ** (np.arange(16) / 15))
    with pytest.raises(ValueError, match=r"of one base"):
        rope_base(np.full(4, np.nan))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_embed.periods": np.float32([0.5, 2, 8, 32])}, "rope_embed.periods"),
        ({"blocks.1.attn.qkv.bias_mask": np.ones(3 * WIDTH, np.float32)}, "bias_mask"),
        ({"cls_norm.weight": np.ones(WIDTH, np.float32)}, "cls_norm.weight"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    path = save(tmp_path / "meta", meta_file("mlp") | change)
    with pytest.raises(ValueError, match=message):
        load_pretrained(path)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("old_names", [True, False])
def test_transformers(tmp_path, gated, old_names):
    transformers = pytest.importorskip("transformers")
    config = transformers.DINOv3ViTConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        patch_size=8,
        image_size=32,
        num_register_tokens=4,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
        rope_theta=50.0,
    )
    model = randomize(transformers.DINOv3ViTModel(config))
    model.save_pretrained(tmp_path / "hub")
    if not old_names:
        arrays = {name: a.numpy() for name, a in model.state_dict().items()}
        safetensors.numpy.save_file(arrays, tmp_path / "hub" / "model.safetensors")
    loaded = load_pretrained(str(tmp_path / "hub"))
    assert loaded.provenance["family"] == "transformers DINOv3ViT"

    def theirs(pixels):
        out = model(pixel_values=pixels)
        return out.pooler_output, out.last_hidden_state

    for size in ((32, 32), (24, 56)) if old_names else ((24, 56),):
        assert_parity(loaded, theirs, draw_images(*size))


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_small_patch16_dinov3", {}),
        ("vit_small_patch16_dinov3_qkvb", {"global_pool": "token"}),
        ("vit_small_plus_patch16_dinov3_qkvb", {"mlp_ratio": 2.0}),
    ],
)
def test_timm(tmp_path, name, options):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    model = randomize(
        timm.create_model(
            name,
            patch_size=8,
            depth=2,
            embed_dim=128,
            num_heads=2,
            num_classes=0,
            dynamic_img_size=True,
            **options,
        )
    )
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    pool = {"pool": "cls"} if options.get("global_pool") == "token" else {}
    loaded = load_pretrained(str(tmp_path / "vit.safetensors"), **pool)
    assert loaded.provenance["family"] == "timm DINOv3 ViT"

    def theirs(pixels):
        return model(pixels), model.forward_features(pixels)

    for size in ((32, 32), (24, 56)):
        assert_parity(loaded, theirs, draw_images(*size))
