"""Training checkpoints as Meta's repositories write them, random and small, through the path that users take.

The encoders are timm's, whose arithmetic they share, at the size of the images with positions interpolated by torch as each
repository does it; heads are built of torch's own layers.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import presets
from ssl_jax.interop import load_pretrained
from ssl_jax.interop.family import Weights
from ssl_jax.interop.meta_vit import refuse_data2vec
from ssl_jax.interop.timm_vit import said_by_positions
from ssl_jax.models.decoders import jepa_predictor, mae_decoder
from ssl_jax.models.heads import dino_head, mlp
from ssl_jax.models.positions import sincos_table
from tests.interop.parity import assert_parity, draw_images, randomize

long = pytest.mark.long
GRID, WIDTH, PATCH = 4, 64, 8
INTERPOLATIONS = {
    "offset": lambda s, t: {"scale_factor": tuple((n + 0.1) / s for n in t)},
    "plain": lambda s, t: {"size": t},
    "antialias": lambda s, t: {"size": t, "antialias": True},
}


def encoder_of(size=(32, 32), **options):
    """timm's ViT of two blocks for images of a size, with positions for patches alone."""
    timm = pytest.importorskip("timm")
    sizes = {"img_size": size, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": 1}
    base = {"num_classes": 0, "mlp_ratio": 2.0, "no_embed_class": True}
    return timm.models.vision_transformer.VisionTransformer(**{**sizes, **base, **options}).eval()


def arrays_of(model, **changes):
    """Its arrays in the names that Meta's files have: a row of positions for the class token too."""
    import torch

    arrays = {name: value.clone() for name, value in model.state_dict().items()}
    if "cls_token" in arrays:
        row = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(5)) * 0.1
        arrays["pos_embed"] = torch.cat([row, arrays["pos_embed"]], dim=1)
    return {**arrays, **changes}


def theirs_at(arrays, size, interpolation, **options):
    """Function from images of a size to (features, tokens) of the encoder with these arrays."""
    import torch

    arrays = dict(arrays)
    if "cls_token" in arrays:
        arrays["cls_token"] = arrays["cls_token"] + arrays["pos_embed"][:, :1]
        arrays["pos_embed"] = arrays["pos_embed"][:, 1:]
    target = (size[0] // PATCH, size[1] // PATCH)
    if target != (GRID, GRID):
        grid = arrays["pos_embed"].reshape(1, GRID, GRID, WIDTH).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(
            grid, mode="bicubic", **INTERPOLATIONS[interpolation](GRID, target)
        )
        assert grid.shape[2:] == target
        arrays["pos_embed"] = grid.permute(0, 2, 3, 1).reshape(1, -1, WIDTH)
    model = encoder_of(size, **options)
    model.load_state_dict(arrays)

    def outputs(x):
        tokens = model.forward_features(x)
        return tokens[:, 0] if "cls_token" in arrays else tokens.mean(1), tokens

    return outputs


def check(loaded, arrays, interpolation, *, sizes=((32, 32), (40, 24)), **options):
    for size in sizes:
        assert_parity(loaded, theirs_at(arrays, size, interpolation, **options), draw_images(*size))


def save(tmp_path, content, name="checkpoint.pth"):
    import torch

    torch.save(content, tmp_path / name)
    return str(tmp_path / name)


def prefixed(arrays, prefix):
    return {f"{prefix}{name}": value for name, value in arrays.items()}


def ibot_names(arrays):
    import torch

    renamed = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): a for name, a in arrays.items()
    }
    return {**renamed, "masked_embed": torch.full((1, WIDTH), 2.0)}


def fixed_positions(kind):
    import torch

    table = sincos_table(GRID, GRID, WIDTH)
    table = np.roll(table, WIDTH // 2, axis=1) if kind == "moco" else table
    return torch.from_numpy(table.astype(np.float32))[None]


def sequential(widths, *, norm, activation, bias=True, last_norm=False):
    """Linear layers with BatchNorm and an activation between them, numbered as in the repositories."""
    from torch import nn

    layers = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        last = i == len(widths) - 2
        layers.append(nn.Linear(before, after, bias=bias))
        if norm and (not last or last_norm):
            layers.append(nn.BatchNorm1d(after, affine=not last))
        if not last:
            layers.append(activation())
    return nn.Sequential(*layers)


def weight_norm(width, count, *, gain=1.0):
    import torch

    layer = torch.nn.Linear(width, count, bias=False)
    # As torch.nn.utils.weight_norm stores it.
    return {"weight_g": torch.full((count, 1), gain), "weight_v": layer.weight.detach()}


def assert_same_outputs(network, variables, module, *, features=WIDTH):
    """Compare a head with its torch module, and its variables' shapes with those that ours is made with."""
    import torch

    x = np.random.default_rng(0).standard_normal((5, features)).astype(np.float32)
    theirs = module(torch.from_numpy(x)).detach().numpy()
    ours = network.apply(*variables, jnp.asarray(x))[0]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    assert_same_shapes(network.init(jax.random.key(0), jnp.asarray(x)), variables)


def assert_same_shapes(wanted, given):
    shapes = [jax.tree.map(lambda leaf: tuple(leaf.shape), tuple(both)) for both in (wanted, given)]
    assert shapes[0] == shapes[1]


def dino_module(layers, last):
    import torch

    def forward(x):
        x = torch.nn.functional.normalize(layers.eval()(x), dim=-1)
        direction = last["weight_v"] / last["weight_v"].norm(dim=1, keepdim=True)
        return x @ (last["weight_g"] * direction).T

    return forward


@long
def test_dino_with_its_head_and_both_of_its_networks(tmp_path):
    torch = pytest.importorskip("torch")
    models = [randomize(encoder_of(), seed=seed) for seed in (0, 1)]
    layers = randomize(sequential((WIDTH, 32, 32, 16), norm=False, activation=torch.nn.GELU))
    last = weight_norm(16, 24)
    head = prefixed(layers.state_dict(), "head.mlp.") | prefixed(last, "head.last_layer.")
    teacher, student = (arrays_of(model) for model in models)
    content = {
        "teacher": {**prefixed(teacher, "backbone."), **head},
        "student": prefixed({**prefixed(student, "backbone."), **head}, "module."),
        "epoch": 3,
        "dino_loss": {"center": torch.zeros(1, 24)},
    }
    name = save(tmp_path, content)
    loaded = load_pretrained(name)
    assert loaded.network.config["position_resize"] == "bicubic_offset"
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)
    check(loaded, teacher, "offset")
    check(load_pretrained(f"{name}#student"), student, "offset", sizes=((32, 32),))
    network = dino_head(24, hidden_dim=32, bottleneck=16)
    assert_same_outputs(network, loaded.heads["head"], dino_module(layers, last))
    check(load_pretrained(save(tmp_path, teacher, "backbone.pth")), teacher, "offset", sizes=((40, 24),))


@long
def test_the_head_fits_the_params_of_the_method(tmp_path):
    torch = pytest.importorskip("torch")
    from ssl_jax.methods.distillation import dino, ibot

    layers = randomize(sequential((WIDTH, 32, 32, 16), norm=True, activation=torch.nn.GELU))
    head = prefixed(layers.state_dict(), "head.mlp.") | prefixed(
        weight_norm(16, 24, gain=2.0), "head.last_layer."
    )
    loaded = load_pretrained(
        save(tmp_path, {"teacher": {**prefixed(arrays_of(encoder_of()), "backbone."), **head}})
    )
    sizes = {"prototypes": 24, "hidden_dim": 32, "bottleneck": 16}
    batch = {"views": tuple(jnp.zeros((2, 2, size, size, 3)) for size in (32, 16))}
    head_options = dino.DinoHead(**sizes, norm_last_layer=False)
    method = dino.build(loaded.network, head=head_options, head_batch_norm=True)
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    assert_same_shapes((params["head"], state["online"]["head"]), loaded.heads["head"])

    layers = sequential((WIDTH, 32, 32, 16), norm=False, activation=torch.nn.GELU)
    head = prefixed(layers.state_dict(), "head.mlp.") | prefixed(weight_norm(16, 24), "head.last_layer.")
    head |= prefixed(weight_norm(16, 24), "head.last_layer2.")
    arrays = arrays_of(randomize(encoder_of(init_values=1.0)))
    loaded = load_pretrained(
        save(tmp_path, {"teacher": {**prefixed(ibot_names(arrays), "backbone."), **head}})
    )
    np.testing.assert_array_equal(loaded.params["blocks_1"]["ls2"]["gamma"], arrays["blocks.1.ls2.gamma"])
    np.testing.assert_array_equal(loaded.params["mask_token"], np.full((1, 1, WIDTH), 2.0))
    method = ibot.build(loaded.network, head=ibot.PatchHead(**sizes, patches="prototypes"))
    params, _ = jax.eval_shape(method.init, jax.random.key(0), batch)
    for name in ("head", "patch_head"):
        assert_same_shapes((params[name],), loaded.heads[name][:1])


@long
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_with_chunked_names_and_separate_heads(tmp_path, registers):
    torch = pytest.importorskip("torch")
    from timm.layers import SwiGLUPacked

    gated = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU} if registers else {}
    options = {"init_values": 1.0, "reg_tokens": registers, **gated}
    arrays = arrays_of(randomize(encoder_of(**options)))
    theirs = dict(arrays)
    if registers:
        theirs["register_tokens"] = theirs.pop("reg_token")
    names = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"} if registers else {}
    for old, new in names.items():
        theirs = {name.replace(old, new): value for name, value in theirs.items()}
    theirs = {name.replace("blocks.", "blocks.0."): value for name, value in theirs.items()}
    theirs["mask_token"] = torch.full((1, WIDTH), 3.0)
    heads, modules = {}, {}
    for name, count in (("dino_head", 24), ("ibot_head", 30)):
        layers = randomize(sequential((WIDTH, 32, 32, 16), norm=False, activation=torch.nn.GELU), seed=count)
        last = weight_norm(16, count, gain=1.5)
        modules[name] = dino_module(layers, last)
        heads |= prefixed(layers.state_dict(), f"{name}.mlp.") | prefixed(last, f"{name}.last_layer.")
    name = save(tmp_path, {"teacher": {**prefixed(theirs, "backbone."), **heads}})
    loaded = load_pretrained(name)
    assert loaded.provenance["family"] == "Meta DINOv2"
    assert (loaded.network.config["registers"], loaded.network.config["mask_token"]) == (registers, True)
    np.testing.assert_array_equal(loaded.params["mask_token"], 3.0)
    check(loaded, arrays, "antialias" if registers else "offset", **options)
    for ours, theirs_name, count in (("head", "dino_head", 24), ("patch_head", "ibot_head", 30)):
        network = dino_head(count, hidden_dim=32, bottleneck=16, norm_last_layer=False)
        assert_same_outputs(network, loaded.heads[ours], modules[theirs_name])


@long
@pytest.mark.filterwarnings("default")
def test_mae_alone_and_with_its_decoder(tmp_path):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    model = randomize(encoder_of())
    model.pos_embed.data = fixed_positions("mae")
    arrays = arrays_of(model)
    arrays["pos_embed"][:, 0] = 0
    loaded = load_pretrained(save(tmp_path, {"model": arrays}, "pretrain.pth"))
    assert (loaded.network.config["position"], loaded.heads) == ("sincos", {})
    check(loaded, arrays, "plain")

    width, blocks = (
        32,
        torch.nn.Sequential(*[timm.models.vision_transformer.Block(32, 16, qkv_bias=True) for _ in range(2)]),
    )
    parts = {
        "decoder_embed": torch.nn.Linear(WIDTH, width),
        "decoder_blocks": blocks,
        "decoder_norm": torch.nn.LayerNorm(width, eps=1e-6),
        "decoder_pred": torch.nn.Linear(width, 3 * PATCH**2),
    }
    decoder = randomize(torch.nn.ModuleDict(parts))
    table = torch.from_numpy(
        np.concatenate([np.zeros((1, width)), sincos_table(GRID, GRID, width)])[None]
    ).float()
    extra = {"mask_token": torch.randn(1, 1, width), "decoder_pos_embed": table}
    loaded = load_pretrained(save(tmp_path, {"model": {**arrays, **decoder.state_dict(), **extra}}))
    check(loaded, arrays, "plain", sizes=((32, 32),))
    tokens, restore = torch.randn(2, 1 + 4, WIDTH), torch.stack([torch.randperm(16) for _ in range(2)])
    x = decoder["decoder_embed"](tokens)
    everything = torch.cat([x[:, 1:], extra["mask_token"].expand(2, 12, width)], dim=1)
    x = torch.cat(
        [x[:, :1], torch.stack([rows[order] for rows, order in zip(everything, restore, strict=True)])], dim=1
    )
    x = decoder["decoder_pred"](decoder["decoder_norm"](blocks(x + table)))[:, 1:].detach().numpy()
    network = mae_decoder(patch=PATCH, channels=3, grid=GRID, width=width, depth=2, heads=16)
    ours = network.apply(*loaded.heads["decoder"], tokens.numpy(), restore=restore.numpy())[0]
    np.testing.assert_allclose(ours, x, rtol=0, atol=1e-5 * np.abs(x).max())
    assert_same_shapes(network.init(jax.random.key(0), jnp.zeros((2, 5, WIDTH))), loaded.heads["decoder"])


@long
def test_moco_v3_with_projector_and_predictor(tmp_path):
    torch = pytest.importorskip("torch")
    from ssl_jax.methods.contrastive import moco_v3

    model = randomize(encoder_of())
    model.pos_embed.data = fixed_positions("moco")
    arrays = arrays_of(model)
    arrays["pos_embed"][:, 0] = 0
    relu = torch.nn.ReLU
    projector = randomize(
        sequential((WIDTH, 48, 48, 16), norm=True, activation=relu, bias=False, last_norm=True)
    )
    predictor = randomize(
        sequential((16, 48, 16), norm=True, activation=relu, bias=False, last_norm=True), seed=1
    )
    base = {**arrays, **prefixed(projector.state_dict(), "head.")}
    momentum = {name: value + 1 if value.is_floating_point() else value for name, value in base.items()}
    content = {
        **prefixed(base, "module.base_encoder."),
        **prefixed(momentum, "module.momentum_encoder."),
        **prefixed(predictor.state_dict(), "module.predictor."),
    }
    loaded = load_pretrained(save(tmp_path, {"epoch": 3, "arch": "vit_small", "state_dict": content}))
    assert loaded.provenance["family"] == "Meta MoCo v3 ViT"
    assert loaded.network.config["position"] == "learned"
    check(loaded, arrays, "plain")
    options = {"hidden_bias": False, "last_bias": False, "last_norm": "batch_no_affine"}
    assert_same_outputs(mlp((48, 48, 16), **options), loaded.heads["projector"], projector)
    assert_same_outputs(mlp((48, 16), **options), loaded.heads["predictor"], predictor, features=16)
    method = moco_v3.build(loaded.network, views=presets.byol(size=32), hidden_dim=48, projection=16)
    params, state = jax.eval_shape(method.init, jax.random.key(0), {"views": (jnp.zeros((2, 2, 32, 32, 3)),)})
    for name in ("projector", "predictor"):
        assert_same_shapes((params[name], state["online"][name]), loaded.heads[name])


@long
def test_ijepa_target_encoder_and_predictor(tmp_path):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    options = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    models = [randomize(encoder_of(**options), seed=seed) for seed in (0, 1)]
    for model in models:
        model.pos_embed.data = fixed_positions("jepa")
    target, online = (arrays_of(model) for model in models)
    width, blocks = 32, [timm.models.vision_transformer.Block(32, 1, qkv_bias=True) for _ in range(2)]
    parts = {
        "predictor_embed": torch.nn.Linear(WIDTH, width),
        "predictor_blocks": torch.nn.Sequential(*blocks),
        "predictor_norm": torch.nn.LayerNorm(width, eps=1e-6),
        "predictor_proj": torch.nn.Linear(width, WIDTH),
    }
    predictor = randomize(torch.nn.ModuleDict(parts))
    table = torch.from_numpy(sincos_table(GRID, GRID, width).astype(np.float32))
    mask = torch.randn(1, 1, width)
    content = {
        "encoder": prefixed(online, "module."),
        "predictor": prefixed(
            {**predictor.state_dict(), "mask_token": mask, "predictor_pos_embed": table[None]}, "module."
        ),
        "target_encoder": prefixed(target, "module."),
        "opt": {},
        "epoch": 1,
    }
    name = save(tmp_path, content, "IN1K.pth.tar")
    loaded = load_pretrained(name)
    assert loaded.provenance["family"] == "Meta I-JEPA"
    assert loaded.provenance["part"] == "target_encoder"
    check(loaded, target, "plain", **options)
    check(load_pretrained(f"{name}#encoder"), online, "plain", sizes=((32, 32),), **options)

    tokens, context, targets = (
        torch.randn(2, 3, WIDTH),
        torch.tensor([[0, 5, 9], [1, 2, 3]]),
        torch.tensor([[7, 8], [14, 15]]),
    )
    seen = predictor["predictor_embed"](tokens) + table[context]
    x = predictor["predictor_blocks"](torch.cat([seen, mask + table[targets]], dim=1))
    x = predictor["predictor_proj"](predictor["predictor_norm"](x)[:, 3:]).detach().numpy()
    network = jepa_predictor(outputs=WIDTH, grid=GRID, width=width, depth=2, heads=1)
    places = {
        "context": context.numpy(),
        "present": np.ones((2, 3), bool),
        "targets": targets.numpy()[:, None],
        "counted": np.ones((2, 1, 2), bool),
    }
    ours = network.apply(*loaded.heads["predictor"], tokens.numpy(), **places)[0][:, 0]
    np.testing.assert_allclose(ours, x, rtol=0, atol=1e-5 * np.abs(x).max())
    assert_same_shapes(network.init(jax.random.key(0), tokens.numpy(), **places), loaded.heads["predictor"])


@long
def test_msn_target_encoder(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = arrays_of(randomize(encoder_of()))
    head = {
        "fc.fc1.weight": torch.zeros(8, WIDTH),
        "fc.bn1.weight": torch.zeros(8),
        "fc.fc3.weight": torch.zeros(4, 8),
    }
    content = {part: prefixed({**arrays, **head}, "module.") for part in ("encoder", "target_encoder")}
    loaded = load_pretrained(save(tmp_path, {**content, "prototypes": torch.zeros(4, 4)}))
    assert loaded.provenance["family"] == "Meta MSN"
    check(loaded, arrays, "plain", sizes=((40, 24),))


def test_data2vec_2_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="after each branch"):
        refuse_data2vec(Weights({}, {}, {}))


@pytest.mark.parametrize(
    ("kind", "width", "family", "heads", "resize"),
    [
        ("moco", 384, "moco", 12, "bicubic"),
        ("moco", 768, "moco", None, "bicubic"),
        ("mae", 384, "mae", None, "bicubic"),
        ("learned", 384, "dino", None, "bicubic_offset"),
    ],
)
@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_a_file_that_says_nothing_is_told_by_its_positions(kind, width, family, heads, resize, stored):
    table = np.zeros((4, width)) if kind == "learned" else sincos_table(2, 2, width)
    table = np.roll(table, width // 2, axis=1) if kind == "moco" else table
    arrays = {
        "cls_token": np.zeros((1, 1, width), np.float32),
        "pos_embed": np.concatenate([np.zeros((1, width)), table])[None].astype(stored).astype(np.float32),
        "patch_embed.proj.weight": np.zeros((width, 3, 8, 8), np.float32),
        "blocks.0.attn.qkv.bias": np.zeros(3 * width, np.float32),
    }
    said = said_by_positions(arrays)
    assert (said["family"], said.get("heads"), said["position_resize"]) == (family, heads, resize)
