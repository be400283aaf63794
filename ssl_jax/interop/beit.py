"""BEiT: Microsoft's checkpoints (v1, v2), in the names of timm's models, and transformers' Beit and Data2VecVision.

Keys have no bias, and positions are relative: one table for all blocks as pre-training leaves them, or one a block after
fine-tuning. Images of another size than a file's get its tables interpolated bilinearly, as in transformers (MiDaS 3.1); timm
and BEiT's own fine-tuning use a spline instead, see :func:`ssl_jax.models.positions.resize_relative_table`.

Features are the mean of the patch tokens, normalised before or after as the file has it. Of transformers' models without mean
pooling they are the class token, as its pooler takes it.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from ssl_jax.core.check import require
from ssl_jax.interop.family import Converted, Family, Weights, timm_architecture
from ssl_jax.interop.heads import Head, mlp_from_torch
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.preprocessing import preprocessing_of
from ssl_jax.interop.vit_options import activation, convert_vit, square_side

TABLE = "relative_position_bias_table"
SHARED = f"rel_pos_bias.{TABLE}"
OWN = f"blocks.{{i}}.attn.{TABLE}"
ANY_TABLE = re.compile(rf"blocks\.\d+\.attn\.{TABLE}|rel_pos_bias\.{TABLE}")
TOP = ("cls_token", "mask_token", "pos_embed", "patch_embed.proj", "norm", "fc_norm", SHARED)
BLOCK = ("norm1", "attn.qkv.weight", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", f"attn.{TABLE}")
MICROSOFT = Names(
    (
        *((name, name) for name in TOP),
        *((f"blocks.{{i}}.{part}", f"blocks.{{i}}.{part}") for part in BLOCK),
        ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"),
        ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma"),
    ),
    packed=((tuple(f"blocks.{{i}}.attn.{part}_bias" for part in "qkv"), "blocks.{i}.attn.qkv.bias"),),
    left_out=(
        *("lm_head", "head", "cls_pt_layers", "rel_pos_bias.relative_position_index"),
        "blocks.{i}.attn.relative_position_index",
    ),
)
OLD_BLOCK = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    f"attention.attention.relative_position_bias.{TABLE}": f"attn.{TABLE}",
}
NEW_BLOCK = {
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    f"relative_position_bias.{TABLE}": f"attn.{TABLE}",
}


def hub_names(prefix: str) -> Names:
    """Names of files of the hub."""
    attention = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
    index, shared = "attention.attention.relative_position_bias", "encoder.relative_position_bias"
    return _transformers(prefix, "encoder.layer.{i}.", OLD_BLOCK, attention, shared=shared, index=index)


def _new(prefix: str) -> Names:
    """Names in memory since transformers 5."""
    attention = tuple(f"attention.{part}_proj" for part in "qkv")
    index, shared = "relative_position_bias", "shared_position_bias"
    return _transformers(prefix, "layers.{i}.", NEW_BLOCK, attention, shared=shared, index=index)


def _transformers(
    prefix: str, layer: str, block: Mapping[str, str], attention: tuple[str, ...], *, shared: str, index: str
) -> Names:
    both = {
        "layernorm_before": "norm1",
        "lambda_1": "ls1.gamma",
        "layernorm_after": "norm2",
        "lambda_2": "ls2.gamma",
        **block,
    }
    top = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "pooler.layernorm": "fc_norm",
        f"{shared}.{TABLE}": SHARED,
    }
    layer = prefix + layer
    return Names(
        (
            ("layernorm", "norm"),
            *((prefix + theirs, ours) for theirs, ours in top.items()),
            *((layer + theirs, f"blocks.{{i}}.{ours}") for theirs, ours in both.items()),
        ),
        packed=((tuple(layer + part for part in attention), "blocks.{i}.attn.qkv"),),
        left_out=(
            *("lm_head", "classifier", f"{prefix}{shared}.relative_position_index"),
            f"{layer}{index}.relative_position_index",
        ),
    )


def convert_microsoft(weights: Weights) -> Converted:
    """Build the ViT of a file of Microsoft's or timm's."""
    config = weights.metadata.get("config", {})
    architecture, arguments = timm_architecture(weights)
    known = not architecture.startswith("eva02")
    require(
        known,
        "architecture",
        architecture,
        "BEiT's or EVA's: EVA-02 rotates positions or normalises after each branch",
    )
    units, inner = (
        weights.arrays[f"blocks.0.mlp.{name}.weight"].shape[axis] for name, axis in (("fc1", 0), ("fc2", 1))
    )
    require(
        units == inner,
        "blocks.0.mlp.fc1.weight",
        units,
        f"{inner} units: gates are EVA-02's, which rotates positions",
    )
    pool = arguments.get("global_pool", config.get("global_pool")) or "avg"
    require(pool in ("avg", "token"), "global_pool", pool, "avg or token")
    said = {
        "heads": arguments.get("num_heads"),
        "pool": "cls" if pool == "token" else "mean",
        "position_resize": "bicubic_antialias" if config else "bicubic",
    }
    return _convert(weights, translate(weights.arrays, MICROSOFT).arrays, said)


def convert_transformers(weights: Weights, *, names: Names) -> Converted:
    """Build the ViT of a BeitModel, a BeitForMaskedImageModeling or a BeitForImageClassification.

    Args:
      weights: the file.
      names: table of its names.

    Raises:
      ValueError: an activation that our ViT does not have.
    """
    config = weights.metadata.get("config", {})
    arrays = translate(weights.arrays, names).arrays
    masked = any(name.startswith("lm_head") for name in weights.arrays)
    said = {
        "heads": config.get("num_attention_heads"),
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
        "mlp": activation(config.get("hidden_act")),
        "pool": "mean" if masked or "fc_norm.weight" in arrays else "cls",
    }
    return _convert(weights, arrays, said, image_size=square_side(config.get("image_size")))


def _convert(
    weights: Weights, arrays: dict[str, Any], said: Mapping[str, Any], *, image_size: int | None = None
) -> Converted:
    """Build the ViT of arrays in our names; ``image_size`` where no positions say it."""
    _, channels, _, patch = arrays["patch_embed.proj.weight"].shape
    facts = {"key_bias": "blocks.0.attn.qkv.bias" not in arrays, **said, **positions_of(arrays)}
    side = (image_size or 14 * patch) // patch * patch
    network, params, state = convert_vit(arrays, weights, facts, image_size=side)
    side = network.config["image_size"]
    preprocessing = preprocessing_of(weights.metadata, family="beit", size=(side, side), channels=channels)
    return Converted(network, params, state, preprocessing, heads_of(weights.arrays))


def positions_of(arrays: Arrays) -> dict[str, Any]:
    """List the options that tables of relative positions say: their kind, and the size of image that they are for.

    Args:
      arrays: by our names.

    Raises:
      ValueError: tables and ``pos_embed`` together, or tables that differ in their rows or are of no square grid.
    """
    rows = {name: array.shape[0] for name, array in arrays.items() if ANY_TABLE.fullmatch(name)}
    if not rows:
        return {}
    both = [name for name in arrays if name == "pos_embed"]
    require(not both, "arrays", both, "none of them beside relative positions")
    own = [name for name in rows if name != SHARED]
    require(not own or SHARED not in rows, SHARED, rows.get(SHARED), "none beside tables of the blocks")
    count = next(iter(rows.values()))
    side = (math.isqrt(max(count - 3, 0)) + 1) // 2
    square = set(rows.values()) == {(2 * side - 1) ** 2 + 3}
    require(square, next(iter(rows)), sorted(set(rows.values())), "(2 n - 1)² + 3 rows, for a grid of n x n")
    patch = arrays["patch_embed.proj.weight"].shape[-1]
    return {"position": "relative", "relative_per_block": bool(own), "image_size": side * patch}


def heads_of(arrays: Arrays) -> Mapping[str, Head]:
    """Read ``lm_head``, which predicts the words of masked patches."""
    head = mlp_from_torch(arrays, "lm_head")
    return {} if head is None else {"head": head}


def _transformers_family(names: Names, prefix: str) -> Family:
    def convert(weights: Weights) -> Converted:
        return convert_transformers(weights, names=names)

    kernel, query = (f"{prefix}embeddings.patch_embeddings.projection.weight", names.packed[0][0][0])
    scale = next(theirs for theirs, ours in names.pairs if ours == "blocks.{i}.ls1.gamma")
    return Family("transformers Beit", names, (kernel, query, scale), convert)


MARKS = ("patch_embed.proj.weight", "cls_token", "blocks.{i}.attn.qkv.weight")
FAMILIES = (
    Family("BEiT", MICROSOFT, (*MARKS, "blocks.{i}.attn.q_bias"), convert_microsoft),
    Family("BEiT", MICROSOFT, (*MARKS, OWN), convert_microsoft),
    Family("BEiT", MICROSOFT, (*MARKS, SHARED), convert_microsoft),
    # The encoder lies below ``beit`` beside the normalisation of a BeitForMaskedImageModeling.
    *(_transformers_family(table(prefix), prefix) for prefix in ("", "beit.") for table in (hub_names, _new)),
)
