"""Heads that lie beside an encoder in a checkpoint, under the names and in the layout of our methods' params."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import trees
from ssl_jax.core.types import Params, State
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.vit_options import table_kind
from ssl_jax.models.torch_names_vit import mae_decoder_from_torch

Head = tuple[Params, State]
WEIGHT_NORM = ("weight_g", "weight_v")
MAE_DECODER = ("decoder_embed", "decoder_blocks", "decoder_norm", "decoder_pred", "decoder_pos_embed")
"""Names of MAE's decoder, beside ``mask_token``, which is of the decoder's width."""
JEPA_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
JEPA_PREDICTOR = Names(
    pairs=(
        ("predictor.predictor_embed", "decoder_embed"),
        ("predictor.mask_token", "mask_token"),
        *(
            (f"predictor.predictor_blocks.{{i}}.{part}", f"decoder_blocks.{{i}}.{part}")
            for part in JEPA_BLOCK
        ),
        ("predictor.predictor_norm", "decoder_norm"),
        ("predictor.predictor_proj", "decoder_pred"),
        ("predictor.predictor_pos_embed", "decoder_pos_embed"),
    )
)
"""I-JEPA's predictor in the names of MAE's decoder, which has the same parts."""


def mlp_from_torch(arrays: Arrays, prefix: str) -> Head | None:
    """Read an ``nn.Sequential`` of linear layers and BatchNorm as variables of :func:`ssl_jax.models.heads.mlp`.

    Args:
      arrays: a checkpoint's, ``<prefix>.<number>.weight`` and so on among them; numbers of activations have no arrays.
      prefix: name of the ``Sequential``, or of a single linear layer.

    Returns:
      ``(params, state)``: ``dense_i`` and, for the BatchNorm behind it, ``norm_i``; ``None`` where the file has no such head,
      or one with other layers.

    >>> layers = {"fc.0.weight": np.ones((3, 2)), "fc.1.running_mean": np.zeros(3), "fc.1.running_var": np.ones(3)}
    >>> params, state = mlp_from_torch(layers, "fc")
    >>> params["dense_0"]["kernel"].shape, sorted(state["batch_stats"]["norm_0"])
    ((2, 3), ['mean', 'var'])
    """
    below = {
        name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}.")
    }
    if set(below) <= {"weight", "bias"}:
        below = {f"0.{name}": array for name, array in below.items()}
    if not below or not all(name.split(".")[0].isdecimal() and name.count(".") == 1 for name in below):
        return None
    params: Params = {}
    statistics: State = {}
    dense = -1
    for number in sorted({int(name.split(".")[0]) for name in below}):
        layer = {
            name.split(".")[1]: np.asarray(a) for name, a in below.items() if name.startswith(f"{number}.")
        }
        layer.pop("num_batches_tracked", None)
        if "running_mean" in layer:
            statistics[f"norm_{dense}"] = {"mean": layer["running_mean"], "var": layer["running_var"]}
            affine = {"scale": layer.get("weight"), "bias": layer.get("bias")}
            given = {name: array for name, array in affine.items() if array is not None}
            params |= {f"norm_{dense}": given} if given else {}
        elif layer["weight"].ndim == 2:
            dense += 1
            bias = {"bias": layer["bias"]} if "bias" in layer else {}
            params[f"dense_{dense}"] = {"kernel": layer["weight"].T, **bias}
        else:
            return None
    return _float32((params, {"batch_stats": statistics} if statistics else {}))


def prototypes_from_torch(arrays: Arrays, prefix: str) -> Params | None:
    """Read a weight-normalised linear layer as params of DINO's prototypes.

    A gain of 1 everywhere is left out, as ``norm_last_layer`` fixes it. A plain linear layer, as later heads of Meta have it,
    is the same function with its rows' norms as gain.

    Args:
      arrays: a checkpoint's, with ``<prefix>.weight_g`` ``[k, 1]`` and ``<prefix>.weight_v`` ``[k, d]``, or
        ``<prefix>.weight`` ``[k, d]``.
      prefix: name of the layer.

    >>> params = prototypes_from_torch({"last.weight": np.array([[3.0, 4.0]])}, "last")
    >>> params["direction"].tolist(), params["gain"].tolist()
    ([[3.0], [4.0]], [5.0])
    """
    gain, direction = (arrays.get(f"{prefix}.{name}") for name in WEIGHT_NORM)
    if direction is None:
        direction = arrays.get(f"{prefix}.weight")
        gain = None if direction is None else np.linalg.norm(direction, axis=1)
    if direction is None or gain is None:
        return None
    gain = gain.reshape(-1)
    return _float32({"direction": direction.T} | ({} if np.all(gain == 1) else {"gain": gain}))


def dino_heads_from_torch(arrays: Arrays) -> Mapping[str, Head]:
    """Read the heads of DINO, iBOT and DINOv2 as variables of :func:`ssl_jax.models.heads.dino_head`.

    DINO and iBOT have ``head.mlp``, ``head.last_layer``, and iBOT ``head.last_layer2`` for patches; DINOv2 has ``dino_head``
    and, where patches have a head of their own, ``ibot_head``.

    Args:
      arrays: a checkpoint's.

    Returns:
      ``head``; ``patch_head`` where the patches' prototypes (``head.patches="prototypes"``) or MLP too (``"separate"``) differ.
    """
    name = (
        "dino_head"
        if "dino_head.last_layer.weight" in arrays or "dino_head.last_layer.weight_v" in arrays
        else "head"
    )
    head = _dino_head(arrays, name, "last_layer")
    if head is None:
        return {}
    patch_head = _dino_head(arrays, "ibot_head", "last_layer")
    own = prototypes_from_torch(arrays, f"{name}.last_layer2")
    if patch_head is None and own is not None and not _equal(own, head[0]["prototypes"]):
        patch_head = ({"prototypes": own}, {})
    return {"head": head} | ({} if patch_head is None else {"patch_head": patch_head})


def mae_decoder(arrays: Arrays) -> Mapping[str, Head]:
    """Read MAE's decoder as variables of :func:`ssl_jax.models.decoders.mae_decoder`.

    Args:
      arrays: a checkpoint's, the decoder in MAE's names.

    Returns:
      ``decoder``; nothing where there is none, or where its positions are not the fixed table, which is the only one of ours.
    """
    positions = arrays.get("decoder_pos_embed")
    fixed = positions is not None and table_kind(positions[0, 1:]) == "sincos"
    return {"decoder": mae_decoder_from_torch(arrays)} if fixed else {}


def jepa_predictor(arrays: Arrays) -> Mapping[str, Head]:
    """Read I-JEPA's predictor as variables of :func:`ssl_jax.models.decoders.jepa_predictor`.

    Args:
      arrays: a checkpoint's, with ``predictor.predictor_embed`` and so on.

    Returns:
      ``predictor``; nothing where there is none, or where its positions are not the fixed table.
    """
    given = translate(arrays, JEPA_PREDICTOR).arrays
    positions = given.get("decoder_pos_embed")
    if positions is None or table_kind(positions[0]) != "sincos":
        return {}
    params, state = mae_decoder_from_torch(given)
    return {"predictor": ({**params, "mask_token": params["mask_token"][None]}, state)}


def _dino_head(arrays: Arrays, prefix: str, last: str) -> Head | None:
    mlp, prototypes = (
        mlp_from_torch(arrays, f"{prefix}.mlp"),
        prototypes_from_torch(arrays, f"{prefix}.{last}"),
    )
    if mlp is None or prototypes is None:
        return None
    params, state = mlp
    return {"mlp": params, "prototypes": prototypes}, {
        name: {"mlp": values} for name, values in state.items()
    }


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def _equal(a: Params, b: Params) -> bool:
    flat, other = trees.flatten(a), trees.flatten(b)
    return flat.keys() == other.keys() and all(np.array_equal(flat[name], other[name]) for name in flat)
