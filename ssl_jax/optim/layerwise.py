"""Layer-wise learning-rate decay for vision transformers."""

import re

from ssl_jax.core import check, trees
from ssl_jax.core.types import Array, PyTree

BLOCK = re.compile(r"(?:^|/)blocks_(\d+)(?:/|$)")
EMBEDDING = re.compile(r"(?:^|/)(?:patch_embed|cls_token|pos_embed|mask_token|registers|reg_token)(?:/|$)")
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


def layer_scales(params: PyTree, *, decay: float | Array) -> PyTree:
    """Return the factor of the learning rate of each parameter: ``decay ** (depth + 1 − layer)``.

    Args:
      params: parameters of a vision transformer, alone or with heads.
      decay: factor a layer, in (0, 1]; .65 to .75 when fine-tuning MAE, .9 in DINOv2's pre-training.

    Returns:
      Tree of scalars: 1 for heads and final norm, ``decay ** (depth + 1)`` for the embeddings.

    Raises:
      ValueError: parameters without transformer blocks.

    >>> import jax.numpy as jnp
    >>> x = jnp.zeros(1)
    >>> layer_scales({"blocks_0": {"w": x}, "cls_token": x, "head": x}, decay=0.5)
    {'blocks_0': {'w': 0.5}, 'cls_token': 0.25, 'head': 1.0}

    Reference: Clark et al., ELECTRA (2020); Bao et al., BEiT (2022); the table of MAE's ``util/lr_decay.py``.
    """
    paths = [path for path in trees.flatten(params) if not AFTER.search(path)]
    blocks = [int(match.group(1)) for match in map(BLOCK.search, paths) if match]
    check.require(
        bool(blocks), "layer_decay", decay, "None for an encoder without transformer blocks (blocks_0/...)"
    )
    depth = max(blocks) + 1
    return trees.map_with_path(lambda path, _: decay ** (depth + 1 - layer_id(path, depth=depth)), params)
