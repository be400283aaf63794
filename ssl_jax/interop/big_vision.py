"""Vision transformers of google-research/big_vision and, older, vision_transformer: ``.npz`` files of Flax arrays."""

import re
from collections.abc import Iterator

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.preprocessing import preprocessing_of
from ssl_jax.interop.vit_options import convert_vit

BLOCK = "Transformer.encoderblock_{i}."
STACKED = "Transformer.encoderblock."
POOL = "MAPHead_0."
PARTS = ("query", "key", "value")
DEFAULT_SIZE = 224
"""Of images, where a file has no table of positions to say it."""


def _block_pairs(attention: int, second_norm: int, mlp: int) -> tuple[tuple[str, str], ...]:
    """Name the modules of a block by the numbers that Flax counted: 0, 1, 0 in big_vision, 1, 2, 3 in vision_transformer."""
    return (
        (f"{BLOCK}LayerNorm_0", "blocks.{i}.norm1"),
        (f"{BLOCK}MultiHeadDotProductAttention_{attention}.out", "blocks.{i}.attn.proj"),
        (f"{BLOCK}LayerNorm_{second_norm}", "blocks.{i}.norm2"),
        (f"{BLOCK}MlpBlock_{mlp}.Dense_0", "blocks.{i}.mlp.fc1"),
        (f"{BLOCK}MlpBlock_{mlp}.Dense_1", "blocks.{i}.mlp.fc2"),
    )


def _names(attention: int, second_norm: int, mlp: int) -> Names:
    joint = f"{BLOCK}MultiHeadDotProductAttention_{attention}."
    head = f"{POOL}MultiHeadDotProductAttention_0."
    return Names(
        pairs=(
            ("embedding", "patch_embed.proj"),
            ("pos_embedding", "pos_embed"),
            ("Transformer.posembed_input.pos_embedding", "pos_embed"),
            ("cls", "cls_token"),
            ("Transformer.encoder_norm", "norm"),
            *_block_pairs(attention, second_norm, mlp),
            (f"{POOL}probe", "attn_pool.latent"),
            (f"{head}query", "attn_pool.q"),
            (f"{head}out", "attn_pool.proj"),
            (f"{POOL}LayerNorm_0", "attn_pool.norm"),
            (f"{POOL}MlpBlock_0.Dense_0", "attn_pool.mlp.fc1"),
            (f"{POOL}MlpBlock_0.Dense_1", "attn_pool.mlp.fc2"),
        ),
        packed=(
            (tuple(joint + part for part in PARTS), "blocks.{i}.attn.qkv"),
            ((f"{head}key", f"{head}value"), "attn_pool.kv"),
        ),
        left_out=(
            "head",
            "pre_logits",
            STACKED.rstrip("."),
        ),  # convert() splits stacked blocks before it reads names
    )


BIG_VISION = _names(0, 1, 0)
AUGREG = _names(1, 2, 3)


def convert(weights: Weights, names: Names) -> Converted:
    """Build the ViT of a file of big_vision or vision_transformer.

    Its GELU is the approximation by tanh, Flax's default. Features are those of the attention pooling where the file has one
    (``MAPHead_0``), else the class token where it has one, else the mean of the tokens. A file without positions has the fixed
    table of big_vision, which is computed for images of 224 pixels and then a learned one.

    Raises:
      ValueError: patches that are cut otherwise (NaFlex).
    """
    kernel = weights.arrays["embedding.kernel"]
    allowed = "a convolution's [side, side, channels, width]; a 'naflex' model cuts patches otherwise"
    require(kernel.ndim == 4, "embedding/kernel", kernel.shape, allowed)
    flax = dict(_unstack(weights.arrays))
    query = next(array for name, array in flax.items() if name.endswith(".query.kernel"))
    arrays, unknown = translate({_leaf(name): _to_torch(name, array) for name, array in flax.items()}, names)
    require(not unknown, "names", unknown[:3], f"those of {BLOCK.format(i=0)}LayerNorm_0 and its neighbours")
    patch, channels, width = kernel.shape[1:]
    pool = "map" if "attn_pool.latent" in arrays else "cls" if "cls_token" in arrays else "mean"
    if "pos_embed" not in arrays:
        side = DEFAULT_SIZE // patch
        arrays["pos_embed"] = sincos_table(side, side, width)[None]
    said = {
        "pool": pool,
        "position_resize": "linear_corners",
        "mlp": "gelu_tanh",
        "norm_epsilon": 1e-6,
        "heads": query.shape[-2],
    }
    network, params, state = convert_vit(arrays, weights, said)
    family, size = ("augreg" if names is AUGREG else "big_vision"), (network.config["image_size"],) * 2
    preprocessing = preprocessing_of(weights.metadata, family=family, size=size, channels=channels)
    return Converted(network, params, state, preprocessing)


def sincos_table(height: int, width: int, features: int) -> np.ndarray:
    """Compute big_vision's fixed table of positions, ``[height · width, features]`` float32.

    With ``ω_i = 10000^(−i / (features/4 − 1))`` a row is ``[sin(x ω) | cos(x ω) | sin(y ω) | cos(y ω)]``; MAE divides by
    ``features/4``.

    >>> [round(float(x), 2) for x in sincos_table(1, 2, 8)[1]]
    [0.84, 0.0, 0.54, 1.0, 0.0, 0.0, 1.0, 1.0]

    Reference: google-research/big_vision ``models/vit.py``, ``posemb_sincos_2d``.
    """
    quarter = features // 4
    omega = 10000.0 ** (-np.arange(quarter) / (quarter - 1))
    row, column = (axis.reshape(-1, 1) * omega for axis in np.indices((height, width)))
    waves = (np.sin(column), np.cos(column), np.sin(row), np.cos(row))
    return np.concatenate(waves, axis=1).astype(np.float32)


def _unstack(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """Split blocks that are stacked along the first axis (made by a scan) into ``encoderblock_0``, ``encoderblock_1``, ..."""
    for name, array in arrays.items():
        if name.startswith(STACKED):
            for i, one in enumerate(array):
                yield name.replace(STACKED, BLOCK.format(i=i)), one
        else:
            yield name, array


def _leaf(name: str) -> str:
    """Name of the array in torch's layout."""
    return re.sub(r"\.(kernel|scale)$", ".weight", name)


def _to_torch(name: str, array: np.ndarray) -> np.ndarray:
    """Bring an array of Flax into torch's layout: kernels with outputs first, heads joined, a convolution's as OIHW."""
    module, leaf = name.split(".")[-2:] if "." in name else ("", name)
    if leaf == "kernel" and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if module in PARTS:  # [width, heads, d] and [heads, d]
        return array.reshape(array.shape[0], -1).T if leaf == "kernel" else array.reshape(-1)
    if leaf == "kernel":  # of "out": [heads, d, width]
        return array.reshape(-1, array.shape[-1]).T
    return array


def _family(name: str, names: Names, block: str, attention: int) -> Family:
    query = f"{block}MultiHeadDotProductAttention_{attention}.query.kernel"
    marks = ("embedding.kernel", "Transformer.encoder_norm.scale", query)
    return Family(name, names, marks, lambda weights: convert(weights, names))


FAMILIES = (
    _family("big_vision ViT", BIG_VISION, BLOCK, 0),
    _family("big_vision ViT with stacked blocks", BIG_VISION, STACKED, 0),
    _family("vision_transformer (augreg) ViT", AUGREG, BLOCK, 1),
)
