"""ViTs whose attention knows positions, rotary (DINOv3) or relative (BEiT), as models of timm and transformers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.interop import beit, dinov3
from ssl_jax.interop.names import Names, translate_back
from ssl_jax.interop.write_files import Encoder, TorchModel, refuse_options
from ssl_jax.models.torch_names_vit import vit_to_torch

SIZES = ("width", "depth", "heads", "patch", "image_size", "registers", "mlp_ratio", "qkv_bias")
ALIGNED = 8
"""timm's gated DINOv3 has a multiple of this many hidden units."""


def rotary_timm(encoder: Encoder) -> TorchModel:
    """Express a ViT with rotary positions as one of timm's DINOv3.

    Args:
      encoder: with LayerScale, a class token, and keys without bias.

    Raises:
      ValueError: timm has no such model; names the option.
    """
    config, gated = encoder.network.config, encoder.network.config["mlp"] == "swiglu"
    known = {
        **dict.fromkeys((*SIZES, "rope_base", "position_resize")),
        "pool": ("cls", "mean"),
        "position": ("rope",),
        "mlp": ("gelu", "swiglu"),
        "norm_epsilon": (dinov3.EPSILON,),
        "key_bias": None if not config["qkv_bias"] else (False,),
    }
    refuse_options(encoder, {**known, "layer_scale": None}, library="timm")
    _require_scaled(encoder, "timm")
    arrays = _plain_arrays(encoder)
    hidden = arrays["blocks.0.mlp.fc2.weight"].shape[1]
    if gated:
        require(
            hidden % ALIGNED == 0, "mlp_ratio", config["mlp_ratio"], f"that of a multiple of {ALIGNED} units"
        )
    names = _gated_only(dinov3.TIMM, gated)
    options = {
        "img_size": config["image_size"],
        "patch_size": config["patch"],
        "in_chans": encoder.channels,
        "embed_dim": config["width"],
        "depth": config["depth"],
        "num_heads": config["heads"],
        "mlp_ratio": hidden / config["width"],
        "qkv_bias": config["qkv_bias"],
        "num_reg_tokens": config["registers"],
        "rope_temperature": config["rope_base"],
        "global_pool": {"cls": "token", "mean": "avg"}[config["pool"]],
    }
    name = f"vit_small_{'plus_' if gated else ''}patch16_dinov3_qkvb"
    return TorchModel(name, options, _without_keys(translate_back(arrays, names).arrays, "attn.k_bias"))


def rotary_transformers(encoder: Encoder) -> TorchModel:
    """Express a ViT with rotary positions as a DINOv3ViTModel; LayerScale that it does not have is 1 there.

    Args:
      encoder: with a class token.

    Raises:
      ValueError: transformers has no such model; names the option.
    """
    config, gated = encoder.network.config, encoder.network.config["mlp"] == "swiglu"
    free = (*SIZES, "rope_base", "position_resize", "norm_epsilon", "key_bias", "layer_scale")
    known = {
        **dict.fromkeys(free),
        "pool": ("cls", "mean"),
        "position": ("rope",),
        "mlp": ("gelu", "swiglu"),
    }
    refuse_options(encoder, known, library="transformers")
    arrays = _plain_arrays(encoder)
    width = config["width"]
    arrays["mask_token"] = np.zeros((1, 1, width), np.float32)
    arrays.setdefault("reg_token", np.zeros((1, 0, width), np.float32))
    for block in range(config["depth"]):
        for scale in ("ls1", "ls2"):
            arrays.setdefault(f"blocks.{block}.{scale}.gamma", np.ones(width, np.float32))
    hidden, _ = arrays["blocks.0.mlp.fc2.weight"].T.shape
    written = translate_back(arrays, dinov3.transformers_names(dinov3.LAYERS[0], gated=gated)).arrays
    with_keys = config["qkv_bias"] and config["key_bias"]
    described = {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        **_sizes(encoder, hidden),
        "hidden_act": "silu" if gated else "gelu",
        "use_gated_mlp": gated,
        "num_register_tokens": config["registers"],
        "rope_theta": config["rope_base"],
        "query_bias": config["qkv_bias"],
        "key_bias": with_keys,
        "value_bias": config["qkv_bias"],
        "layerscale_value": 1.0,
    }
    arrays = written if with_keys else _without_keys(written, "k_proj.bias")
    return TorchModel("DINOv3ViTModel", described, arrays)


def relative_timm(encoder: Encoder) -> TorchModel:
    """Express a ViT with relative positions as one of timm's BEiT; biases of keys, without effect there, are left out.

    Args:
      encoder: with LayerScale and a class token.

    Raises:
      ValueError: timm has no such model; names the option.
    """
    _refuse_relative(encoder, "timm", norm_epsilon=(1e-6,), mlp=("gelu",), pool=("cls", "mean"))
    config, arrays = encoder.network.config, _plain_arrays(encoder)
    options = {
        "img_size": config["image_size"],
        "patch_size": config["patch"],
        "in_chans": encoder.channels,
        "embed_dim": config["width"],
        "depth": config["depth"],
        "num_heads": config["heads"],
        "mlp_ratio": config["mlp_ratio"],
        "qkv_bias": config["qkv_bias"],
        "use_rel_pos_bias": config["relative_per_block"],
        "use_shared_rel_pos_bias": not config["relative_per_block"],
        "use_fc_norm": config["fc_norm"],
        "global_pool": {"cls": "token", "mean": "avg"}[config["pool"]],
    }
    written = translate_back(arrays, beit.MICROSOFT).arrays
    return TorchModel("beit_base_patch16_224", options, _without_keys(written, "attn.k_bias"))


def relative_transformers(encoder: Encoder) -> TorchModel:
    """Express a ViT with relative positions as a BeitModel; biases of keys, without effect there, are left out.

    Args:
      encoder: with LayerScale, a class token, and biases of queries and values.

    Raises:
      ValueError: transformers has no such model; names the option.
    """
    pools = ("mean",) if encoder.network.config["fc_norm"] else ("cls", "mean")
    mlps = ("gelu", "gelu_tanh", "quick_gelu")
    _refuse_relative(encoder, "transformers", norm_epsilon=None, mlp=mlps, pool=pools, qkv_bias=(True,))
    config, arrays = encoder.network.config, _plain_arrays(encoder)
    act = {"gelu_tanh": "gelu_pytorch_tanh"}.get(config["mlp"], config["mlp"])
    described = {
        "architectures": ["BeitModel"],
        "model_type": "beit",
        **_sizes(encoder, arrays["blocks.0.mlp.fc1.weight"].shape[0]),
        "hidden_act": act,
        "use_relative_position_bias": config["relative_per_block"],
        "use_shared_relative_position_bias": not config["relative_per_block"],
        "use_mean_pooling": config["fc_norm"],
        "layer_scale_init_value": config["layer_scale"],
        "drop_path_rate": 0.0,
    }
    written = translate_back(arrays, beit.hub_names("")).arrays
    return TorchModel("BeitModel", described, _without_keys(written, "attention.key.bias"))


def _refuse_relative(encoder: Encoder, library: str, **known: tuple[Any, ...] | None) -> None:
    free = tuple(name for name in SIZES if name != "registers")
    several = dict.fromkeys(
        (*free, "relative_per_block", "position_resize", "key_bias", "fc_norm", "layer_scale")
    )
    refuse_options(encoder, {**several, "position": ("relative",), **known}, library=library)
    _require_scaled(encoder, library)


def _require_scaled(encoder: Encoder, library: str) -> None:
    scale = encoder.network.config["layer_scale"]
    require(bool(scale), "layer_scale", scale, f"a number above 0 with {library}, whose blocks all have one")


def _plain_arrays(encoder: Encoder) -> dict[str, np.ndarray]:
    arrays = vit_to_torch(encoder.params, encoder.state, encoder.network)
    arrays.pop("mask_token", None)
    return arrays


def _sizes(encoder: Encoder, hidden: int) -> dict[str, Any]:
    config = encoder.network.config
    return {
        "hidden_size": config["width"],
        "num_hidden_layers": config["depth"],
        "num_attention_heads": config["heads"],
        "intermediate_size": hidden,
        "layer_norm_eps": config["norm_epsilon"],
        "image_size": config["image_size"],
        "patch_size": config["patch"],
        "num_channels": encoder.channels,
    }


def _gated_only(names: Names, gated: bool) -> Names:
    """A table in which the first layer of the MLP has one name in their library: two modules with gates, one without."""
    fc1 = "blocks.{i}.mlp.fc1"
    if gated:
        return names._replace(pairs=tuple(pair for pair in names.pairs if pair[1] != fc1))
    return names._replace(packed=tuple(pair for pair in names.packed if pair[1] != fc1))


def _without_keys(arrays: Mapping[str, np.ndarray], ending: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if not name.endswith(ending)}
