"""ViTs of big_vision: ``.npz`` files as its code writes them, against a plain NumPy forward pass and timm's own loader."""

import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ssl_jax.interop import load_pretrained
from ssl_jax.interop.big_vision import sincos_table
from tests.interop.parity import assert_parity, difference, draw_images, randomize

WIDTH, HEADS, PATCH, SIDE = 24, 3, 4, 3


def draw_arrays(pool, *, old=False, depth=2, positions=True, seed=0):
    """Arrays of a ViT by big_vision's names, or by those of the older vision_transformer."""
    rng = np.random.default_rng(seed)
    attention, norm, mlp = (1, 2, 3) if old else (0, 1, 0)

    def draw(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    def mha(prefix):
        d = WIDTH // HEADS
        found = {f"{prefix}/{p}/kernel": draw(WIDTH, HEADS, d) for p in ("query", "key", "value")}
        found |= {f"{prefix}/{p}/bias": draw(HEADS, d) for p in ("query", "key", "value")}
        return {**found, f"{prefix}/out/kernel": draw(HEADS, d, WIDTH), f"{prefix}/out/bias": draw(WIDTH)}

    def layer_norm(name):
        return {f"{name}/scale": 1 + draw(WIDTH), f"{name}/bias": draw(WIDTH)}

    def dense(name, a, b):
        return {f"{name}/kernel": draw(a, b), f"{name}/bias": draw(b)}

    def two(name):
        return dense(f"{name}/Dense_0", WIDTH, 2 * WIDTH) | dense(f"{name}/Dense_1", 2 * WIDTH, WIDTH)

    arrays = {"embedding/kernel": draw(PATCH, PATCH, 3, WIDTH), "embedding/bias": draw(WIDTH)}
    if pool == "tok":
        arrays["cls"] = draw(1, 1, WIDTH)
    if old:
        arrays["Transformer/posembed_input/pos_embedding"] = draw(1, SIDE * SIDE + 1, WIDTH)
    elif positions:
        arrays["pos_embedding"] = draw(1, SIDE * SIDE, WIDTH)
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        arrays |= layer_norm(f"{block}/LayerNorm_0") | layer_norm(f"{block}/LayerNorm_{norm}")
        arrays |= mha(f"{block}/MultiHeadDotProductAttention_{attention}") | two(f"{block}/MlpBlock_{mlp}")
    arrays |= layer_norm("Transformer/encoder_norm") | dense("head", WIDTH, 5)
    if pool == "map":
        arrays |= {"MAPHead_0/probe": draw(1, 1, WIDTH), **layer_norm("MAPHead_0/LayerNorm_0")}
        arrays |= mha("MAPHead_0/MultiHeadDotProductAttention_0") | two("MAPHead_0/MlpBlock_0")
    return arrays


def stack(arrays):
    """Blocks along the first axis, as a scan over them stores them."""
    first = "Transformer/encoderblock_0/"
    inner = [name.removeprefix(first) for name in arrays if name.startswith(first)]
    kept = {name: array for name, array in arrays.items() if "encoderblock_" not in name}
    for name in inner:
        rows = [array for other, array in arrays.items() if other.endswith(name) and "encoderblock_" in other]
        kept[f"Transformer/encoderblock/{name}"] = np.stack(rows)
    return kept


def save(folder, arrays, prefix=""):
    path = folder / "vit.npz"
    np.savez(path, **{prefix + name: array for name, array in arrays.items()})
    return str(path)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def forward(arrays, images, pool, *, old=False, table=None):
    """The forward pass in float64 by loops over images, patches and heads: features and tokens after the last norm."""
    w = {name: array.astype(np.float64) for name, array in arrays.items()}
    attention, norm2, mlp = (1, 2, 3) if old else (0, 1, 0)

    def layer_norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w[f"{name}/scale"] + w[f"{name}/bias"]

    def dense(x, name):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    def two(x, name):
        return dense(gelu(dense(x, f"{name}/Dense_0")), f"{name}/Dense_1")

    def mha(queries, x, name):
        total = w[f"{name}/out/bias"]
        for h in range(HEADS):
            q, k, v = (
                source @ w[f"{name}/{part}/kernel"][:, h] + w[f"{name}/{part}/bias"][h]
                for source, part in ((queries, "query"), (x, "key"), (x, "value"))
            )
            scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
            total = total + scores / scores.sum(1, keepdims=True) @ v @ w[f"{name}/out/kernel"][h]
        return total

    features, tokens = [], []
    for image in images:
        rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
        boxes = [
            image[r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH]
            for r in range(rows)
            for c in range(columns)
        ]
        x = np.stack([np.tensordot(box, w["embedding/kernel"], 3) for box in boxes]) + w["embedding/bias"]
        if old:
            x = np.concatenate([w["cls"][0], x]) + w["Transformer/posembed_input/pos_embedding"][0]
        else:
            x = x + (w["pos_embedding"][0] if table is None else table)
            x = np.concatenate([w["cls"][0], x]) if pool == "tok" else x
        for i in range(sum(name.endswith("LayerNorm_0/bias") and "encoderblock_" in name for name in w)):
            block = f"Transformer/encoderblock_{i}"
            y = layer_norm(x, f"{block}/LayerNorm_0")
            x = x + mha(y, y, f"{block}/MultiHeadDotProductAttention_{attention}")
            x = x + two(layer_norm(x, f"{block}/LayerNorm_{norm2}"), f"{block}/MlpBlock_{mlp}")
        x = layer_norm(x, "Transformer/encoder_norm")
        tokens.append(x)
        if pool == "map":
            y = mha(w["MAPHead_0/probe"][0], x, "MAPHead_0/MultiHeadDotProductAttention_0")
            features.append((y + two(layer_norm(y, "MAPHead_0/LayerNorm_0"), "MAPHead_0/MlpBlock_0"))[0])
        else:
            features.append(x[0] if pool == "tok" else x.mean(0))
    return np.stack(features), np.stack(tokens)


@pytest.fixture
def images():
    return np.random.default_rng(3).standard_normal((2, SIDE * PATCH, SIDE * PATCH, 3)).astype(np.float32)


def outputs_of(loaded, images):
    return [
        loaded.network.apply(loaded.params, loaded.state, jnp.asarray(images), output=output)[0]
        for output in ("features", "tokens")
    ]


def check(loaded, images, expected, limit=1e-5):
    for ours, theirs in zip(outputs_of(loaded, images), expected, strict=True):
        assert difference(ours, theirs) < limit


@pytest.mark.parametrize(("pool", "prefix"), [("gap", "params/"), ("tok", ""), ("map", "params/img/")])
def test_a_vit_of_big_vision(tmp_path, images, pool, prefix):
    arrays = draw_arrays(pool)
    path = save(tmp_path, arrays, prefix)
    if prefix == "params/img/":
        beside = {
            "params/t": np.ones(1, np.float32),
            "params/txt/Embed_0/embedding": np.ones((3, 4), np.float32),
        }
        np.savez(path, **{prefix + name: array for name, array in arrays.items()}, **beside)
    check(load_pretrained(path), images, forward(arrays, images, pool))


def test_blocks_that_a_scan_has_stacked(tmp_path, images):
    arrays = draw_arrays("map", depth=3)
    stacked = stack(arrays)
    assert stacked["Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"].shape == (3, WIDTH, 2 * WIDTH)
    path = save(tmp_path, stacked, "params/")
    check(load_pretrained(path), images, forward(arrays, images, "map"))


def test_the_older_names_of_augreg(tmp_path, images):
    arrays = draw_arrays("tok", old=True)
    arrays |= {
        "pre_logits/kernel": np.ones((WIDTH, WIDTH), np.float32),
        "pre_logits/bias": np.ones(WIDTH, np.float32),
    }
    path = save(tmp_path, arrays, "opt/target/")
    check(load_pretrained(path), images, forward(arrays, images, "tok", old=True))


def test_bfloat16_comes_back_from_two_bytes_without_a_type(tmp_path, images):
    narrow = {name: array.astype(ml_dtypes.bfloat16) for name, array in draw_arrays("gap").items()}
    path = save(tmp_path, {name: array.view("V2") for name, array in narrow.items()}, "params/")
    wide = {name: array.astype(np.float32) for name, array in narrow.items()}
    check(load_pretrained(path), images, forward(wide, images, "gap"))


def test_positions_that_are_not_in_the_file_are_those_of_big_vision(tmp_path):
    arrays = draw_arrays("gap", positions=False, depth=1)
    loaded = load_pretrained(save(tmp_path, arrays, "params/"))
    side = 224 // PATCH
    assert loaded.network.config["image_size"] == 224
    table = np.zeros((side, side, WIDTH))
    for y in range(side):
        for x in range(side):
            for i in range(WIDTH // 4):
                omega = 10000 ** (-i / (WIDTH / 4 - 1))
                waves = (math.sin(x * omega), math.cos(x * omega), math.sin(y * omega), math.cos(y * omega))
                table[y, x, i :: WIDTH // 4] = waves
    np.testing.assert_allclose(sincos_table(side, side, WIDTH), table.reshape(-1, WIDTH), atol=1e-5)
    np.testing.assert_allclose(loaded.params["pos_embed"][0], table.reshape(-1, WIDTH), atol=1e-5)


def test_positions_on_another_grid_keep_their_corners(tmp_path):
    arrays = draw_arrays("gap")
    loaded = load_pretrained(save(tmp_path, arrays))
    images = np.random.default_rng(3).standard_normal((1, 2 * PATCH, 5 * PATCH, 3)).astype(np.float32)
    source = arrays["pos_embedding"].reshape(SIDE, SIDE, WIDTH).astype(np.float64)
    table = np.zeros((2, 5, WIDTH))
    for r in range(2):
        for c in range(5):
            y, x = r * (SIDE - 1) / (2 - 1), c * (SIDE - 1) / (5 - 1)
            for i in range(SIDE):
                for j in range(SIDE):
                    table[r, c] += max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * source[i, j]
    check(loaded, images, forward(arrays, images, "gap", table=table.reshape(-1, WIDTH)))


def test_arrays_that_do_not_belong_are_named(tmp_path):
    arrays = stack(draw_arrays("gap"))
    arrays["Transformer/encoderblock/Adapter_0/kernel"] = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ValueError, match="Adapter_0"):
        load_pretrained(save(tmp_path, arrays))


def test_naflex_is_refused(tmp_path):
    arrays = draw_arrays("gap") | {"embedding/kernel": np.zeros((48, WIDTH), np.float32)}
    with pytest.raises(ValueError, match=r"embedding/kernel=.*naflex"):
        load_pretrained(save(tmp_path, arrays))


def test_pickles_in_a_npz_are_not_loaded(tmp_path):
    path = tmp_path / "vit.npz"
    np.savez(path, **draw_arrays("gap"), extra=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="extra is a pickle"):
        load_pretrained(str(path))


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("pool", ["gap", "tok", "map", "old"])
def test_timm_reads_the_same_file_alike(tmp_path, pool):
    """timm's own loader of such files fills a model of timm; its GELU is set to the one that the file was trained with."""
    pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    arrays = draw_arrays("tok" if pool == "old" else pool, old=pool == "old")
    path = save(tmp_path, arrays, "" if pool == "old" else "params/")
    pools = {"gap": "avg", "tok": "token", "old": "token", "map": "map"}
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=SIDE * PATCH,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=2,
        num_heads=HEADS,
        mlp_ratio=2,
        num_classes=0,
        class_token=pool in ("tok", "old"),
        no_embed_class=pool == "tok",
        global_pool=pools[pool],
        fc_norm=False,
        act_layer="gelu_tanh",
        dynamic_img_size=True,
    )
    if pool == "map":
        import torch

        model.attn_pool.mlp = type(model.attn_pool.mlp)(
            WIDTH, 2 * WIDTH, act_layer=lambda: torch.nn.GELU(approximate="tanh")
        )
    randomize(model).load_pretrained(path)
    loaded = load_pretrained(path)

    def theirs(x):
        tokens = model.forward_features(x)
        return model.forward_head(tokens), tokens

    assert_parity(loaded, theirs, draw_images(SIDE * PATCH, SIDE * PATCH))
