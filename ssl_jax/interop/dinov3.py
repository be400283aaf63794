"""DINOv3's vision transformers: Meta's checkpoints, transformers' DINOv3ViT and timm's, all with rotary positions.

Features are the class token after the last normalisation, as the authors evaluate; of files in timm's names they are the mean
of the patch tokens, as in timm. The authors train with ``rope_rescale=2``; here coordinates are not moved in training unless
asked for, ``load_pretrained(name, rope_rescale=2.0)``.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.names import Names, translate
from ssl_jax.interop.preprocessing import preprocessing_of
from ssl_jax.interop.vit_options import convert_vit, square_side

BASE = 100.0
EPSILON = 1e-5
PERIODS, BIAS_MASK = "rope_embed.periods", re.compile(r"blocks\.\d+\.attn\.qkv\.bias_mask")
ROUNDING = 2.0**-8
"""Relative error of a number that is stored in bfloat16, as the periods of released files are."""
HEADS = {4096: 32}
"""Attention heads by width where a head is not 64 wide: the 7B model."""
TOP = ("cls_token", "reg_token", "mask_token", "patch_embed.proj", "norm")
BLOCK = ("norm1", "attn.qkv.weight", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
SHARED = (*((name, name) for name in TOP), *((f"blocks.{{i}}.{p}", f"blocks.{{i}}.{p}") for p in BLOCK))
META = Names(
    (
        *(pair for pair in SHARED if pair[0] != "reg_token"),
        ("storage_tokens", "reg_token"),
        ("blocks.{i}.attn.qkv.bias", "blocks.{i}.attn.qkv.bias"),
        ("blocks.{i}.ls1", "blocks.{i}.ls1"),
        ("blocks.{i}.ls2", "blocks.{i}.ls2"),
        ("blocks.{i}.mlp.w3", "blocks.{i}.mlp.fc2"),
    ),
    packed=((("blocks.{i}.mlp.w1", "blocks.{i}.mlp.w2"), "blocks.{i}.mlp.fc1"),),
    left_out=(
        *("rope_embed", "blocks.{i}.attn.qkv.bias_mask", "local_cls_norm"),
        *("head", "dino_head", "ibot_head"),
    ),
)
TIMM = Names(
    (*SHARED, ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"), ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma")),
    packed=(
        (tuple(f"blocks.{{i}}.attn.{part}_bias" for part in "qkv"), "blocks.{i}.attn.qkv.bias"),
        (("blocks.{i}.mlp.fc1_g", "blocks.{i}.mlp.fc1_x"), "blocks.{i}.mlp.fc1"),
    ),
    left_out=("head",),
)


def transformers_names(layer: str, *, gated: bool) -> Names:
    """List the names of a DINOv3ViTModel.

    Args:
      layer: how names of blocks begin, one of :data:`LAYERS`.
      gated: whether its MLPs are.
    """
    block = {
        "norm1": "norm1",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "norm2": "norm2",
        "mlp.down_proj": "mlp.fc2",
        "layer_scale2.lambda1": "ls2.gamma",
    } | ({} if gated else {"mlp.up_proj": "mlp.fc1"})
    top = {
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "reg_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.patch_embeddings": "patch_embed.proj",
        "norm": "norm",
    }
    qkv = (tuple(f"{layer}attention.{part}_proj" for part in "qkv"), "blocks.{i}.attn.qkv")
    gates = ((f"{layer}mlp.gate_proj", f"{layer}mlp.up_proj"), "blocks.{i}.mlp.fc1")
    return Names(
        (*top.items(), *((layer + theirs, f"blocks.{{i}}.{ours}") for theirs, ours in block.items())),
        packed=(qkv, gates) if gated else (qkv,),
        left_out=("rope_embeddings", "classifier"),
    )


LAYERS = ("layer.{i}.", "model.layer.{i}.")
"""Where blocks lie: in files of the hub, and in memory since transformers 5."""


def rope_base(periods: np.ndarray) -> float:
    """Find the base of which ``periods [width of a head / 4]`` are the powers ``base^(4k / width)``.

    Args:
      periods: as files have them, rounded to bfloat16 perhaps.

    Returns:
      100 where that fits as well as the rounding lets it, else the base that does.

    Raises:
      ValueError: they are no powers of one base.

    >>> rope_base(100.0 ** (np.arange(16) / 16)), round(rope_base(50.0 ** (np.arange(6) / 6)), 3)
    (100.0, 50.0)
    """
    exponents = np.arange(periods.size) / periods.size
    known = periods.ndim == 1 and bool(np.isfinite(periods).all()) and bool((periods > 0).all())
    base = float(np.exp(np.log(periods[1:]).sum() / max(exponents.sum(), 1e-9))) if known else np.nan
    for candidate in (BASE, base):
        if known and np.allclose(periods, candidate**exponents, rtol=ROUNDING, atol=0):
            return candidate
    few = np.round(periods.ravel()[:4].astype(float), 3).tolist()
    raise ValueError(f"{PERIODS}={few}...: allowed are base^(k / {periods.size}), k = 0, 1, ..., of one base")


def convert_meta(weights: Weights) -> Converted:
    """Build the ViT of one of Meta's files; ``rope_embed.periods`` says how wide a head is."""
    given = weights.arrays
    arrays = translate(given, META).arrays
    masks = [name for name in given if BIAS_MASK.fullmatch(name)]
    said: dict[str, Any] = {"key_bias": not masks}
    if PERIODS in given:
        said["rope_base"] = rope_base(given[PERIODS])
        said["heads"] = arrays["norm.weight"].size // (4 * given[PERIODS].size)
    for name in masks:
        _require_mask(name, given[name])
    return _convert(weights, arrays, said)


def _require_mask(name: str, mask: np.ndarray) -> None:
    """Refuse another mask than the one that hides the keys' bias; NaN, as before Meta's initialisation, stands for it."""
    expected = np.repeat([1.0, 0.0, 1.0], mask.size // 3)
    right = mask.shape == expected.shape and (np.isnan(mask).all() or np.array_equal(mask, expected))
    require(bool(right), name, mask.ravel()[:3].tolist(), "1 for queries and values, 0 for keys")


def convert_transformers(weights: Weights, *, layer: str, gated: bool) -> Converted:
    """Build the ViT of a DINOv3ViTModel.

    Args:
      weights: the file.
      layer: what the names of its blocks begin with.
      gated: whether its MLPs are.

    Raises:
      ValueError: an activation that our ViT does not have there.
    """
    config = weights.metadata.get("config", {})
    act, expected = config.get("hidden_act"), "silu" if gated else "gelu"
    require(
        act in (None, expected), "hidden_act", act, f"{expected!r} {'with' if gated else 'without'} gates"
    )
    said = {
        "heads": config.get("num_attention_heads"),
        "norm_epsilon": config.get("layer_norm_eps"),
        "rope_base": config.get("rope_theta"),
        "key_bias": f"{layer.format(i=0)}attention.k_proj.bias" in weights.arrays,
    }
    arrays = translate(weights.arrays, transformers_names(layer, gated=gated)).arrays
    return _convert(weights, arrays, said, image_size=square_side(config.get("image_size")))


def convert_timm(weights: Weights) -> Converted:
    """Build the ViT of a model of timm's class Eva, of which only DINOv3's form of rotary positions is understood."""
    config = weights.metadata.get("config", {})
    pretrained = weights.metadata.get("pretrained_cfg", config.get("pretrained_cfg", {}))
    architecture = str(config.get("architecture", pretrained.get("architecture", "")))
    known = not architecture or "dinov3" in architecture or "lingbot" in architecture
    require(known, "architecture", architecture, "one of DINOv3: the others' rotary positions differ")
    arguments = config.get("model_args", {})
    pool = arguments.get("global_pool", config.get("global_pool")) or "avg"
    pools = {"token": "cls", "avg": "mean"}
    require(pool in pools, "global_pool", pool, "token or avg")
    said = {
        "heads": arguments.get("num_heads"),
        "pool": pools[pool],
        "rope_base": arguments.get("rope_temperature"),
        "key_bias": "blocks.0.attn.q_bias" not in weights.arrays,
    }
    return _convert(weights, translate(weights.arrays, TIMM).arrays, said)


def _convert(
    weights: Weights, arrays: dict[str, np.ndarray], said: Mapping[str, Any], *, image_size: int | None = None
) -> Converted:
    width, channels, _, patch = arrays["patch_embed.proj.weight"].shape
    if "reg_token" in arrays and arrays["reg_token"].size == 0:
        del arrays["reg_token"]  # transformers' of a model without registers
    heads = HEADS.get(width, max(width // 64, 1))
    facts = {"norm_epsilon": EPSILON, "heads": heads} | {k: v for k, v in said.items() if v is not None}
    facts |= {"position": "rope", "key_bias": facts.get("key_bias") or "blocks.0.attn.qkv.bias" not in arrays}
    side = (image_size or 224) // patch * patch
    network, params, state = convert_vit(arrays, weights, facts, image_size=side)
    satellite = "sat493m" in str(weights.provenance.get("name", ""))
    preprocessing = preprocessing_of(
        weights.metadata,
        family="dinov3_satellite" if satellite else "dinov3",
        size=(side, side),
        channels=channels,
    )
    return Converted(network, params, state, preprocessing)


def _transformers_family(layer: str, *, gated: bool) -> Family:
    def convert(weights: Weights) -> Converted:
        return convert_transformers(weights, layer=layer, gated=gated)

    marks = ("embeddings.patch_embeddings.weight", f"{layer}attention.q_proj", f"{layer}mlp.down_proj")
    return Family("transformers DINOv3ViT", transformers_names(layer, gated=gated), marks, convert)


MARKS = ("patch_embed.proj.weight", "blocks.{i}.attn.qkv.weight", "cls_token")
FAMILIES = (
    Family("Meta DINOv3 ViT", META, (*MARKS, PERIODS), convert_meta),
    Family("Meta DINOv3 ViT", META, (*MARKS, "storage_tokens"), convert_meta),
    *(_transformers_family(layer, gated=gated) for layer in LAYERS for gated in (False, True)),
    Family("timm DINOv3 ViT", TIMM, (*MARKS, "blocks.{i}.gamma_1"), convert_timm),
)
