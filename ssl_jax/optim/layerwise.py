"""Layer-wise learning-rate decay for vision transformers and ConvNeXts."""

import re
from collections.abc import Sequence

from ssl_jax.core import check, trees
from ssl_jax.core.types import Array, PyTree

BLOCK = re.compile(r"(?:^|/)blocks_(\d+)(?:/|$)")
EMBEDDING = re.compile(r"(?:^|/)(?:patch_embed|cls_token|pos_embed|mask_token|registers|reg_token)(?:/|$)")
STEM = re.compile(r"(?:^|/)stem_\d+(?:/|$)")
STAGE = re.compile(r"(?:^|/)stages_(\d+)_(blocks|downsample)_(\d+)(?:/|$)")
GROUP = 3
"""Blocks of a ConvNeXt that make a layer."""
AFTER = re.compile(r"(?:^|/)(?:decoder|projector|predictor|head)(?:/|$)")


def layer_id(path: str, *, depth: int) -> int:
    """Return the layer of a parameter: 0 for embeddings, i + 1 for block i, ``depth + 1`` for everything after.

    Args:
      path: the parameter's path with slashes, in the names of ``models.vit``: ``blocks_0/attn/qkv/kernel``.
      depth: number of transformer blocks.

    Returns:
      An int in [0, depth + 1]. Whatever lies in a decoder, projector, predictor or head comes after the
      blocks, even where it has blocks of its own.

    >>> [layer_id(p, depth=12) for p in ("patch_embed/kernel", "blocks_0/norm1/scale", "norm/scale")]
    [0, 1, 13]
    """
    if AFTER.search(path):
        return depth + 1
    block = BLOCK.search(path)
    if block:
        return int(block.group(1)) + 1
    return 0 if EMBEDDING.search(path) else depth + 1


def convnext_layer_id(path: str, *, depths: Sequence[int]) -> int:
    """Return the layer of a parameter of a ConvNeXt: three blocks of a stage make one.

    Args:
      path: the parameter's path with slashes, in the names of ``models.convnext``: ``stages_2_blocks_5/conv_dw/kernel``.
      depths: blocks of each stage.

    Returns:
      0 for the stem; then the groups of blocks are counted through, stage by stage, and what halves the map before a stage
      belongs to its first one; one more than the last for everything after.

    >>> paths = ("stem_0/kernel", "stages_1_downsample_1/kernel", "stages_2_blocks_26/gamma", "norm/scale")
    >>> [convnext_layer_id(path, depths=(3, 3, 27, 3)) for path in paths]
    [0, 2, 11, 13]

    Reference: the 12 layers of facebookresearch/ConvNeXt's ``optim_factory.py``, there for depths 3, 3, 27, 3.
    """
    layers = [-(-depth // GROUP) for depth in depths]
    found = STAGE.search(path)
    if AFTER.search(path) or not (found or STEM.search(path)):
        return sum(layers) + 1
    if not found:
        return 0
    stage, block = int(found[1]), int(found[3]) if found[2] == "blocks" else 0
    return 1 + sum(layers[:stage]) + block // GROUP


def layer_scales(params: PyTree, *, decay: float | Array) -> PyTree:
    """Return the factor of the learning rate of each parameter: ``decay ** (depth + 1 − layer)``.

    Args:
      params: parameters of a vision transformer or a ConvNeXt, alone or with heads.
      decay: factor a layer, in (0, 1]; .65 to .75 when fine-tuning MAE, .9 in DINOv2's pre-training.

    Returns:
      Tree of scalars: 1 for heads and final norm, ``decay ** (depth + 1)`` for the embeddings.

    Raises:
      ValueError: parameters without transformer blocks or stages of a ConvNeXt.

    >>> import jax.numpy as jnp
    >>> x = jnp.zeros(1)
    >>> layer_scales({"blocks_0": {"w": x}, "cls_token": x, "head": x}, decay=0.5)
    {'blocks_0': {'w': 0.5}, 'cls_token': 0.25, 'head': 1.0}

    Reference: Clark et al., ELECTRA (2020); Bao et al., BEiT (2022); the table of MAE's ``util/lr_decay.py``.
    """
    paths = [path for path in trees.flatten(params) if not AFTER.search(path)]
    stages = [(int(m[1]), int(m[3])) for m in map(STAGE.search, paths) if m and m[2] == "blocks"]
    if stages:
        depths = [1 + max(b for s, b in stages if s == stage) for stage in range(1 + max(stages)[0])]
        last = convnext_layer_id("", depths=depths)
        return trees.map_with_path(
            lambda path, _: decay ** (last - convnext_layer_id(path, depths=depths)), params
        )
    blocks = [int(match.group(1)) for match in map(BLOCK.search, paths) if match]
    allowed = "None for an encoder without transformer blocks (blocks_0/...) or stages of a ConvNeXt (stages_0_blocks_0/...)"
    check.require(bool(blocks), "layer_decay", decay, allowed)
    depth = max(blocks) + 1
    return trees.map_with_path(lambda path, _: decay ** (depth + 1 - layer_id(path, depth=depth)), params)
