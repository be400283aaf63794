"""Options of :func:`ssl_jax.models.vit.vit` from the arrays of a checkpoint: what shapes say, and what they do not."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Params, State
from ssl_jax.interop.family import Weights
from ssl_jax.interop.names import Arrays
from ssl_jax.interop.preprocessing import Preprocessing, preprocessing_of
from ssl_jax.models.build import build
from ssl_jax.models.network import Network
from ssl_jax.models.positions import sincos_table
from ssl_jax.models.torch_names_vit import vit_from_torch

HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
"""Attention heads of published models by their width, where a head is not 64 wide: So400m, H, g, bigG."""
PUBLISHED = frozenset({192, 384, 768, 1024, 1536, *HEADS})
"""Widths of published models, whose heads are known."""
BUILDERS = {192: "vit_tiny", 384: "vit_small", 768: "vit_base", 1024: "vit_large", 1280: "vit_huge"}
PATCHES = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")
"""Names of the patch embedding's kernel, ``[width, channels, patch, patch]``."""
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "swiglu",
}
"""Names of activations in transformers and timm, and ours."""
_log = logging.getLogger(__name__)


def guess_heads(width: int, *, swiglu: bool = False) -> int:
    """Guess the attention heads of a published ViT from its width, as no shape says them.

    A head is 64 wide, except that widths 1152, 1280, 1408 and 1664 have 16 heads, and 1536 has 24 with SwiGLU (DINOv2's giant)
    and 16 without (SigLIP 2's).

    >>> guess_heads(384), guess_heads(1280), guess_heads(1536, swiglu=True)
    (6, 16, 24)
    """
    if width == 1536 and not swiglu:
        return 16
    return HEADS.get(width, max(width // 64, 1))


def read_options(arrays: Arrays, said: Mapping[str, Any], *, image_size: int | None = None) -> dict[str, Any]:
    """List the options of the ViT whose arrays these are.

    Args:
      arrays: by our torch-style names, as in ``models.torch_names_vit``.
      said: options that the shapes do not say: ``heads``, ``pool``, ``mlp`` (activation), ``norm_epsilon``,
        ``position_resize``; those that are missing are guessed.
      image_size: side in pixels for which the file says it was made, to tell grids apart; ``None``: it says nothing.

    Returns:
      Options of ``models.build``, the builder's name among them.

    Raises:
      ValueError: blocks are missing, or positions that fit no square grid.
    """
    require("patch_embed.proj.weight" in arrays, "arrays", sorted(arrays)[:3], "those of a ViT: patch_embed")
    require_axes(arrays)
    width, _, patch, other = arrays["patch_embed.proj.weight"].shape
    require(patch == other, "patch_embed.proj.weight", (patch, other), "a square patch")
    swiglu, hidden = _mlp_of(arrays)
    class_token = "cls_token" in arrays
    registers = arrays["reg_token"].shape[1] if "reg_token" in arrays else 0
    pre_norm, patch_bias = "norm_pre.weight" in arrays, "patch_embed.proj.bias" in arrays
    pool = "map" if "attn_pool.latent" in arrays else "cls" if class_token else "mean"
    options: dict[str, Any] = {
        "name": BUILDERS.get(width, "vit_base" if width >= 192 else "vit_micro"),
        "width": width,
        "depth": count_blocks(arrays),
        "heads": guess_heads(width, swiglu=swiglu),
        "patch": patch,
        "pool": "mean" if "fc_norm.weight" in arrays else pool,
        "class_token": class_token,
        "registers": registers,
        "mlp": "gelu",
        "mlp_ratio": ratio_of(hidden, width),
        "qkv_bias": "blocks.0.attn.qkv.bias" in arrays,
        "qk_norm": "blocks.0.attn.q_norm.weight" in arrays,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in arrays else None,
        "pre_norm": pre_norm,
        "patch_bias": None if patch_bias != pre_norm else patch_bias,
        "fc_norm": "fc_norm.weight" in arrays,
        "mask_token": "mask_token" in arrays,
        **_positions_of(arrays, image_size, prefix=(0, int(class_token), class_token + registers)),
        **{name: value for name, value in said.items() if value is not None},
    }
    if swiglu:
        options["mlp"] = "swiglu"
    require(
        swiglu or options["mlp"] != "swiglu",
        "mlp",
        "swiglu",
        "another one: the hidden units of the file are not gated",
    )
    require(
        isinstance(options["heads"], int) and options["heads"] >= 1 and width % options["heads"] == 0,
        "heads",
        options["heads"],
        f"a divisor of {width}",
    )
    if said.get("heads") is None and width not in PUBLISHED:
        _log.warning(
            "nothing in the file says how many attention heads its %d features have: %d are assumed; "
            "load_pretrained(name, heads=...) says another number",
            width,
            options["heads"],
        )
    return options


def convert_vit(
    arrays: Arrays, weights: Weights, said: Mapping[str, Any], *, image_size: int | None = None
) -> tuple[Network, Params, State]:
    """Build the ViT whose arrays these are, with its weights.

    Args:
      arrays: by our torch-style names.
      weights: whose ``metadata["architecture"]`` is what the caller says, which counts more than ``said``.
      said: see :func:`read_options`.
      image_size: see :func:`read_options`.
    """
    by_caller = weights.metadata.get("architecture", {})
    network = build(**read_options(arrays, {**said, **by_caller}, image_size=image_size))
    return network, *vit_from_torch(arrays, network)


def preprocessing_for(
    weights: Weights, network: Network, *, family: str, side: int | None = None
) -> Preprocessing:
    """Read what a file says of its preprocessing, else take that of its family.

    Sides that are no multiples of the patch are rounded down: timm's SigLIP of 384 pixels with patches of 14 takes 378 of them.

    Args:
      weights: the file.
      network: its ViT.
      family: key of ``ssl_jax.interop.preprocessing.FAMILY_DEFAULTS``.
      side: of the input in pixels, where the file says none; ``None``: that of the network's positions.
    """
    channels = weights.arrays[next(name for name in PATCHES if name in weights.arrays)].shape[1]
    side = network.config["image_size"] if side is None else side
    found = preprocessing_of(weights.metadata, family=family, size=(side, side), channels=channels)
    patch = network.config["patch"]
    height, width = (max(length // patch, 1) * patch for length in found.size)
    return found if found.size == (height, width) else found.with_size((height, width))


def count_blocks(arrays: Arrays, prefix: str = "blocks.") -> int:
    """Count the blocks, none of which may be missing.

    >>> count_blocks({"blocks.0.norm1.bias": np.zeros(2), "blocks.1.norm1.bias": np.zeros(2)})
    2
    """
    position = prefix.count(".")
    numbers = {int(name.split(".")[position]) for name in arrays if name.startswith(prefix)}
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    require(
        not missing and bool(numbers), prefix.rstrip("."), sorted(numbers), f"all blocks; missing: {missing}"
    )
    return len(numbers)


def ratio_of(hidden: int, width: int) -> float:
    """Compute the ``mlp_ratio`` for which ``int(width * mlp_ratio)`` is ``hidden``, rounding included.

    >>> ratio_of(6144, 1408), int(1408 * ratio_of(6144, 1408)), int(1152 * ratio_of(4304, 1152))
    (4.363636363636363, 6144, 4304)
    """
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def table_kind(patches: np.ndarray, *, tolerance: float = 4e-3) -> str:
    """Tell whether a position table ``[patches, width]`` of a square grid is a fixed one.

    Args:
      patches: the table.
      tolerance: greatest difference; a file in bfloat16 differs by 2e-3 from the table.

    Returns:
      ``"sincos"``: MAE's, which I-JEPA has too; ``"sincos_swapped"``: MoCo v3's, with halves swapped; ``"learned"``.

    >>> table_kind(np.roll(sincos_table(3, 3, 8), 4, axis=1)), table_kind(np.zeros((9, 8)))
    ('sincos_swapped', 'learned')
    """
    side, width = math.isqrt(len(patches)), patches.shape[1]
    if side * side != len(patches) or width % 4:
        return "learned"
    table = sincos_table(side, side, width)
    for kind, known in (("sincos", table), ("sincos_swapped", np.roll(table, width // 2, axis=1))):
        if np.allclose(patches, known, rtol=0, atol=tolerance):
            return kind
    return "learned"


AXES = {
    "patch_embed.proj.weight": "[width, channels, patch, patch]",
    "pos_embed": "[1, tokens, width]",
    "reg_token": "[1, registers, width]",
    "blocks.0.mlp.fc1.weight": "[hidden, width]",
    "blocks.0.mlp.fc2.weight": "[width, hidden]",
}
"""Axes of the arrays from which options are read."""


def require_axes(arrays: Arrays) -> None:
    """Raise a ValueError unless the arrays from which options are read have the right number of axes."""
    for name, axes in AXES.items():
        if name in arrays:
            right = arrays[name].ndim == axes.count(",") + 1
            require(right, name, arrays[name].shape, f"the shape {axes}")


def patch_positions(arrays: Arrays) -> np.ndarray:
    """Cut the rows of class and register tokens off a position table: ``[patches, width]``.

    Args:
      arrays: by our names, with ``pos_embed``.
    """
    require_axes(arrays)
    class_token = "cls_token" in arrays
    registers = arrays["reg_token"].shape[1] if "reg_token" in arrays else 0
    extra = _extra_rows(arrays, None, (0, int(class_token), class_token + registers))
    return arrays["pos_embed"][0, extra:]


def square_side(size: Any) -> int | None:
    """Read a size in pixels, ``224`` or ``[224, 224]``, of a config; ``None`` where there is none.

    Raises:
      ValueError: height and width differ.

    >>> square_side([224, 224]), square_side(None)
    (224, None)
    """
    if size is None or isinstance(size, int):
        return size
    height, width = list(size)[-2:]
    require(
        height == width, "image_size", tuple(size), "a square: position tables of other shapes are not read"
    )
    return int(height)


def activation(name: str | None) -> str | None:
    """Translate the name of an activation in a config of timm or transformers to an ``mlp`` of ours.

    Raises:
      ValueError: one that our ViT does not have.

    >>> activation("gelu_pytorch_tanh"), activation(None)
    ('gelu_tanh', None)
    """
    return None if name is None else ACTIVATIONS[choice("activation of the file", name, ACTIVATIONS)]


def _mlp_of(arrays: Arrays) -> tuple[bool, int]:
    """Tell whether the MLP is gated (twice as many units enter the second layer as leave the first), and its hidden units."""
    names = ("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight")
    missing = [name for name in names if name not in arrays]
    require(not missing, "arrays", sorted(arrays)[:3], f"those of a ViT: {' and '.join(missing)}")
    hidden, inner = arrays[names[0]].shape[0], arrays[names[1]].shape[1]
    return hidden == 2 * inner, hidden


def _extra_rows(arrays: Arrays, image_size: int | None, prefix: tuple[int, ...]) -> int:
    """Count the rows of a position table in front of those of a square grid."""
    rows, patch = arrays["pos_embed"].shape[1], arrays["patch_embed.proj.weight"].shape[-1]
    fits = [extra for extra in prefix if rows > extra and math.isqrt(rows - extra) ** 2 == rows - extra]
    require(
        bool(fits),
        "pos_embed",
        (1, rows, "..."),
        f"a square grid of patches and {sorted(set(prefix))} more rows",
    )
    said = [extra for extra in fits if image_size == math.isqrt(rows - extra) * patch]
    return (said or fits)[0]


def _positions_of(arrays: Arrays, image_size: int | None, prefix: tuple[int, ...]) -> dict[str, Any]:
    patch = arrays["patch_embed.proj.weight"].shape[-1]
    if "pos_embed" not in arrays:
        side = image_size or 14 * patch
        return {"position": "none", "image_size": side // patch * patch}
    extra = _extra_rows(arrays, image_size, prefix)
    patches = arrays["pos_embed"][0, extra:]
    # A rounded table is a learned one, to keep the numbers of the file.
    position = "sincos" if table_kind(patches, tolerance=1e-5) == "sincos" else "learned"
    return {"position": position, "image_size": math.isqrt(len(patches)) * patch}
