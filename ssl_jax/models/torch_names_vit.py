"""Weights of vision transformers to and from torch's names and layouts: timm, DINO, MoCo v3, MAE."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import check, trees
from ssl_jax.core.types import Params, State
from ssl_jax.models.network import Network
from ssl_jax.models.positions import sincos_table

StateDict = Mapping[str, np.ndarray]
LEAVES = {"kernel": "weight", "scale": "weight"}
IGNORED = re.compile(r"head|decoder_")
"""Classifiers and the decoder of MAE, which an encoder does not have."""
MASK_TOKEN = "mask_token"
"""MAE's decoder has one too; an encoder only where it was built with it."""
RELATIVE = "relative_position_bias_table"
DECODER = {"embed": "decoder_embed", "norm": "decoder_norm", "pred": "decoder_pred"}


def vit_from_torch(state_dict: StateDict, network: Network) -> tuple[Params, State]:
    """Read the variables of a ViT from a torch ``state_dict`` in timm's names.

    Linear weights are transposed, the patch convolution ``[d, c, p, p]`` becomes ``[p * p * c, d]``. Rows of
    the position table that belong to class and register tokens are added to these tokens, which is where the
    model adds them. For ``position="sincos"`` the stored table must be MAE's. Tables of relative positions are called
    ``rel_pos_bias.relative_position_bias_table`` (one for all blocks) or ``blocks.i.attn.relative_position_bias_table``,
    ``[rows, heads]``, the pooling by attention ``attn_pool``. Of ``attn.qkv.bias`` the keys' part is read as 0 for
    ``key_bias=False``. Classifier and MAE's decoder are left out.

    Args:
      state_dict: torch name to numpy array.
      network: the ViT that the weights are for, as built by ``models.build``.

    Returns:
      ``(params, state)``, float32.

    Raises:
      ValueError: a weight is missing, left over, or of another shape than the network's.
    """
    config = network.config
    given = {name: np.asarray(a, np.float32) for name, a in state_dict.items() if not IGNORED.match(name)}
    if not config.get(MASK_TOKEN):
        given.pop(MASK_TOKEN, None)
    elif MASK_TOKEN in given:
        given[MASK_TOKEN] = given[MASK_TOKEN].reshape(1, 1, -1)
    known = "patch_embed.proj.weight" in given
    check.require(known, "state_dict", sorted(given)[:3], "that of a ViT in timm's names")
    channels, side = given["patch_embed.proj.weight"].shape[1], config["image_size"]
    images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    given = _fold_positions(given, config)
    if not config.get("key_bias", True):
        given = {name: _without_key_bias(name, value) for name, value in given.items()}
    expected = {_torch_name(path): path for path in trees.flatten(variables)}
    for name in sorted(expected.keys() ^ given.keys()):
        problem = "missing from" if name in expected else "not expected in"
        shown = {
            key: config[key] for key in ("name", "width", "depth", "patch", "image_size") if key in config
        }
        raise ValueError(f"{name} is {problem} the state_dict for {shown}")

    def convert(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        value = given[_torch_name(path)]
        value = value if path.endswith("relative_bias") else _from_torch_layout(value)
        if value.shape != leaf.shape:
            raise ValueError(f"{_torch_name(path)} has the shape {value.shape}, the network {leaf.shape}")
        return jnp.asarray(value)

    params, state = trees.map_with_path(convert, variables)
    return params, state


def vit_to_torch(params: Params, state: State, network: Network) -> dict[str, np.ndarray]:
    """Write a ViT's variables as a torch ``state_dict`` in timm's names: the inverse of :func:`vit_from_torch`.

    ``pos_embed``, where positions are added to tokens, has a row of zeros for every class and register token. There is no
    classifier: load it with ``strict=False``.

    Args:
      params: params of a ViT.
      state: its state.
      network: the ViT.

    Returns:
      Torch name to float32 array.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models.vit import vit
    >>> network = vit("vit_nano", width=8, depth=1, heads=2, patch=4, image_size=8)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> weights = vit_to_torch(*variables, network)
    >>> weights["patch_embed.proj.weight"].shape, weights["pos_embed"].shape
    ((8, 3, 4, 4), (1, 5, 8))
    """
    config = network.config
    patch, grid = config["patch"], config["image_size"] // config["patch"]
    weights = {}
    for path, leaf in trees.flatten((params, state)).items():
        value = np.asarray(leaf, np.float32)
        if path.endswith("patch_embed/kernel"):
            value = value.reshape(patch, patch, -1, config["width"]).transpose(3, 2, 0, 1)
        kept = value.ndim != 2 or path.endswith("relative_bias")
        weights[_torch_name(path)] = np.ascontiguousarray(
            value if kept else value.T
        )  # safetensors writes memory
    if config["position"] == "sincos":
        weights["pos_embed"] = sincos_table(grid, grid, config["width"]).astype(np.float32)[None]
    if "pos_embed" in weights:
        prefix = np.zeros((1, config["class_token"] + config["registers"], config["width"]), np.float32)
        weights["pos_embed"] = np.concatenate([prefix, weights["pos_embed"]], axis=1)
    return weights


def mae_decoder_from_torch(state_dict: StateDict) -> tuple[Params, State]:
    """Read variables of :func:`ssl_jax.models.decoders.mae_decoder` from the ``state_dict`` of MAE's whole model.

    Args:
      state_dict: torch name to numpy array; all but the decoder's is left out, as is its fixed position
        table.

    Returns:
      ``(params, {})``, float32.
    """
    flat = {"mask_token": jnp.asarray(state_dict["mask_token"], jnp.float32)}
    prefixes = {torch: ours for ours, torch in DECODER.items()}
    for name, array in state_dict.items():
        first, *rest = name.split(".")
        if first == "decoder_blocks":
            parents = [f"blocks_{rest[0]}", *rest[1:-1]]
        elif first in prefixes:
            parents = [prefixes[first]]
        else:
            continue
        leaf = "bias" if rest[-1] == "bias" else ("kernel" if array.ndim == 2 else "scale")
        flat["/".join([*parents, leaf])] = jnp.asarray(_from_torch_layout(np.asarray(array, np.float32)))
    return trees.unflatten(flat), {}


def _fold_positions(given: dict[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """``pos_embed`` for the patches alone, other rows added to their tokens; left out if it is fixed."""
    if config["position"] not in ("learned", "sincos"):
        return given
    given, grid = dict(given), config["image_size"] // config["patch"]
    check.require("pos_embed" in given, "state_dict", sorted(given)[:3], "one with pos_embed")
    positions = given.pop("pos_embed")
    extra = positions.shape[1] - grid * grid if positions.ndim == 3 else -1
    prefix = config["class_token"] + config["registers"]
    allowed = f"[1, {grid * grid} patches + 0, 1 or {prefix} prefix tokens, {config['width']}]"
    known = extra in {0, int(config["class_token"]), prefix} and positions.shape[2] == config["width"]
    check.require(known, "pos_embed.shape", positions.shape, allowed)
    rows, patches = positions[:, :extra], positions[:, extra:]
    if config["class_token"] and extra:
        given["cls_token"] = given["cls_token"] + rows[:, :1]
    if config["registers"] and extra == prefix:
        given["reg_token"] = given["reg_token"] + rows[:, int(config["class_token"]) :]
    if config["position"] == "learned":
        return {**given, "pos_embed": patches}
    table = sincos_table(grid, grid, config["width"])
    same = patches[0].shape == table.shape and np.allclose(patches[0], table, atol=1e-4)
    check.require(same, "position", config["position"], "'learned', as pos_embed is not the table of MAE")
    return given


def _without_key_bias(name: str, value: np.ndarray) -> np.ndarray:
    if not name.endswith("attn.qkv.bias"):
        return value
    query, key, own = np.split(value, 3)
    return np.concatenate([query, np.zeros_like(key), own])


def _from_torch_layout(value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
    return value.T if value.ndim == 2 else value


def _torch_name(path: str) -> str:
    """Path in ``(params, state)`` to timm's name.

    >>> _torch_name("0/blocks_1/attn/qkv/kernel"), _torch_name("1/frozen/patch_embed/bias")
    ('blocks.1.attn.qkv.weight', 'patch_embed.proj.bias')
    >>> _torch_name("0/relative_bias")
    'rel_pos_bias.relative_position_bias_table'
    """
    *parents, leaf = (part for part in path.split("/")[1:] if part != "frozen")
    if leaf == "relative_bias":
        parents, leaf = parents or ["rel_pos_bias"], RELATIVE
    parents = [{"patch_embed": "patch_embed.proj"}.get(p, p.replace("blocks_", "blocks.")) for p in parents]
    return ".".join([*parents, LEAVES.get(leaf, leaf)])
