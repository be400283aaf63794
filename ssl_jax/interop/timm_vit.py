"""Vision transformers in timm's names, which Meta's checkpoints of DINO, iBOT, MAE and MoCo v3 share."""

from typing import Any

import numpy as np

from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.models.build import build
from ssl_jax.models.torch_names_vit import vit_from_torch

BLOCK = ("norm1", "attn.qkv", "attn.proj", "ls1", "norm2", "mlp.fc1", "mlp.fc2", "ls2")
NAMES = Names(
    pairs=(
        *(
            (name, name)
            for name in (
                "cls_token",
                "reg_token",
                "pos_embed",
                "patch_embed.proj",
                "norm",
                "fc_norm",
                "norm_pre",
            )
        ),
        *((f"blocks.{{i}}.{part}", f"blocks.{{i}}.{part}") for part in BLOCK),
    ),
    left_out=("head", "head_dist"),
)


def convert(weights: Weights) -> Converted:
    """Build the ViT of a file in timm's names."""
    arrays = translate(weights.arrays, NAMES).arrays
    kernel = arrays["patch_embed.proj.weight"]
    network = build(**options(arrays))
    side = network.config["image_size"]
    params, state = vit_from_torch(arrays, network)
    channels = kernel.shape[1]
    preprocessing = Preprocessing((side, side), crop_ratio=0.9, mean=(0.5,) * channels, std=(0.5,) * channels)
    return Converted(network, params, state, preprocessing)


def options(arrays: Arrays) -> dict[str, Any]:
    """List the options of the ViT whose arrays, in our names, these are."""
    width, _, patch, _ = arrays["patch_embed.proj.weight"].shape
    class_token = "cls_token" in arrays
    registers = arrays["reg_token"].shape[1] if "reg_token" in arrays else 0
    positions = arrays["pos_embed"].shape[1]
    grid = int(np.sqrt(positions))
    return {
        "name": "vit_base",
        "width": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in arrays if name.startswith("blocks.")),
        "heads": width // 64,
        "patch": patch,
        "image_size": grid * patch,
        "class_token": class_token,
        "registers": registers,
        "mlp_ratio": arrays["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in arrays,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in arrays else None,
    }


FAMILY = Family(
    "timm ViT", NAMES, ("patch_embed.proj.weight", "blocks.{i}.attn.qkv.weight", "pos_embed"), convert
)
