"""Vision transformers in timm's names, which Meta's checkpoints of DINO, MAE and MoCo v3 share."""

import re
from typing import Any

from ssl_jax.core.check import require
from ssl_jax.interop.family import Converted, Family, Weights, timm_architecture
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.vit_options import (
    activation,
    convert_vit,
    patch_positions,
    preprocessing_for,
    square_side,
    table_kind,
)

TOP = (
    *("cls_token", "reg_token", "pos_embed", "patch_embed.proj", "norm", "fc_norm", "norm_pre"),
    *(f"attn_pool.{part}" for part in ("latent", "q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2")),
)
BLOCK = (
    *("norm1", "attn.qkv", "attn.q_norm", "attn.k_norm", "attn.proj", "ls1"),
    *("norm2", "mlp.fc1", "mlp.fc2", "ls2"),
)
PAIRS = (
    *((name, name) for name in TOP),
    *((f"blocks.{{i}}.{part}", f"blocks.{{i}}.{part}") for part in BLOCK),
)
NAMES = Names(
    PAIRS,
    packed=((("blocks.{i}.mlp.fc1_g", "blocks.{i}.mlp.fc1_x"), "blocks.{i}.mlp.fc1"),),
    left_out=("head",),
)
MARKS = ("patch_embed.proj.weight", "blocks.{i}.attn.qkv.weight")
HEADS = {
    "test_vit": 2,
    "test_vit2": 2,
    "test_vit3": 3,
    "vit_base_patch16_gap_224": 16,
    "vit_giant_patch16_radio_v3": 24,
}
"""Attention heads of architectures of timm that have others than their width makes one guess."""
TANH = re.compile(
    r"vit_((base_patch32|giantopt_patch16|so400m_patch16)_siglip|large_patch16_siglip_(gap_)?512)"
)
"""Architectures of timm whose GELU is the one by tanh."""
ROTARY = "does not rotate positions: of those DINOv3's form alone is built"
POOLS = {"token": "cls", "avg": "mean", "map": "map", "": None}
LAYER_SCALE = "blocks.0.ls1.gamma"
TIMM_ONLY = (
    *("fc_norm.weight", "norm_pre.weight", "attn_pool.latent", "reg_token"),
    *(LAYER_SCALE, "blocks.0.attn.q_norm.weight"),
)
"""What models of timm may have and Meta's of DINO, MAE and MoCo v3 do not."""
DINO_HAS = ("cls_token", "pos_embed", "blocks.0.attn.qkv.bias")
"""What models of timm may lack and Meta's of DINO do not."""


def convert(weights: Weights) -> Converted:
    """Build the ViT of a file in timm's names.

    A file of timm says its architecture in ``config.json``. One that says nothing about itself is told by its positions: MAE's
    and MoCo v3's tables are fixed ones, I-JEPA's is MAE's without a class token; a learned table beside a class token, without
    classifier and without parts that only timm has, is read as DINO's; all others as timm's.
    """
    arrays = translate(weights.arrays, NAMES).arrays
    described = any(name in weights.metadata for name in ("config", "pretrained_cfg"))
    said = (
        said_by_timm(weights)
        if described
        else said_by_positions(arrays, classifier="head.weight" in weights.arrays)
    )
    family = said.pop("family")
    size = said.pop("image_size", None)
    network, params, state = convert_vit(arrays, weights, said, image_size=size)
    return Converted(network, params, state, preprocessing_for(weights, network, family=family))


def said_by_timm(weights: Weights) -> dict[str, Any]:
    """List what the metadata of a model of timm says that its shapes do not.

    Raises:
      ValueError: an architecture with the same names and another arithmetic.
    """
    config = weights.metadata.get("config", {})
    pretrained = weights.metadata.get("pretrained_cfg", config.get("pretrained_cfg", {}))
    architecture, arguments = timm_architecture(weights)
    rotary = architecture.startswith("vit_pe_")
    require(not rotary, "architecture", architecture, f"one that {ROTARY}")
    pool = arguments.get("global_pool", config.get("global_pool"))
    require(
        "_rpn_" not in architecture, "architecture", architecture, "one with normalisation before each branch"
    )
    prefix_pooled = arguments.get("pool_include_prefix", architecture == "test_vit3")
    require(not prefix_pooled, "pool_include_prefix", prefix_pooled, "False: pooling is over patches")
    require(pool is None or pool in POOLS, "global_pool", pool, "token, avg or map")
    gates = _text(arguments.get("act_layer", "silu")) == "silu"
    require(
        gates or not _is_gated(weights.arrays),
        "act_layer",
        arguments.get("act_layer"),
        "'silu' for gated units",
    )
    own = {"act_layer": "gelu_tanh" if TANH.match(architecture) else None} | dict(arguments)
    return {
        "family": "augreg",
        "heads": arguments.get("num_heads", config.get("num_heads", HEADS.get(architecture))),
        "pool": POOLS.get(pool),
        "mlp": "quick_gelu" if "quickgelu" in architecture else activation(_text(own["act_layer"])),
        "norm_epsilon": 1e-5 if "_clip_" in architecture else None,
        "position_resize": "bicubic_antialias",
        "image_size": square_side(arguments.get("img_size", pretrained.get("input_size"))),
    }


def said_by_positions(arrays: Arrays, *, classifier: bool = False) -> dict[str, Any]:
    """List what the positions of a file say that says nothing about itself; see :func:`convert`.

    MoCo v3's ViT-S has 12 heads at the width of 384, where all others have 6. A normalisation before the blocks is that of
    timm's CLIPs, whose ε is 1e-5; images of its models with LayerScale and a class token are normalised as DINOv2's, which they
    mostly are.

    Args:
      arrays: by our names.
      classifier: whether the file has one.
    """
    kind = "none" if "pos_embed" not in arrays else table_kind(patch_positions(arrays))
    if kind == "sincos":
        return {"family": "mae" if "cls_token" in arrays else "ijepa", "position_resize": "bicubic"}
    if kind == "sincos_swapped":
        heads = 12 if arrays["patch_embed.proj.weight"].shape[0] == 384 else None
        return {"family": "moco", "position_resize": "bicubic", "heads": heads}
    if "norm_pre.weight" in arrays:
        attended = "attn_pool.latent" in arrays
        require(
            not attended,
            "attn_pool",
            "beside norm_pre",
            "either of them: both are the Perception Encoder's, whose positions rotate",
        )
        return {"family": "clip", "position_resize": "bicubic_antialias", "norm_epsilon": 1e-5}
    lacks = any(name not in arrays for name in DINO_HAS)
    if classifier or lacks or any(name in arrays for name in TIMM_ONLY):
        dinov2 = LAYER_SCALE in arrays and "cls_token" in arrays and "fc_norm.weight" not in arrays
        return {"family": "dinov2" if dinov2 else "augreg", "position_resize": "bicubic_antialias"}
    return {"family": "dino", "position_resize": "bicubic_offset"}


def _is_gated(arrays: Arrays) -> bool:
    first, last = (arrays.get(f"blocks.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    return first is None or (last is not None and first.shape[0] == 2 * last.shape[1])


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


FAMILIES = (Family("timm ViT", NAMES, MARKS, convert),)
