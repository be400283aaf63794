"""Image towers of SigLIP and SigLIP 2 in transformers' names; OpenCLIP's files hold timm's own."""

from typing import Any

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.core.types import Params, State
from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.names import Names, translate, translate_back
from ssl_jax.interop.preprocessing import preprocessing_of
from ssl_jax.interop.towers import require_tower, vision_config
from ssl_jax.interop.vit_options import activation, convert_vit
from ssl_jax.models.network import Network
from ssl_jax.models.torch_names_vit import vit_to_torch

LAYER = "encoder.layers.{i}."
NAMES = Names(
    pairs=(
        ("embeddings.patch_embedding", "patch_embed.proj"),
        ("embeddings.position_embedding.weight", "pos_embed"),
        ("post_layernorm", "norm"),
        (LAYER + "self_attn.out_proj", "blocks.{i}.attn.proj"),
        (LAYER + "layer_norm1", "blocks.{i}.norm1"),
        (LAYER + "layer_norm2", "blocks.{i}.norm2"),
        (LAYER + "mlp.fc1", "blocks.{i}.mlp.fc1"),
        (LAYER + "mlp.fc2", "blocks.{i}.mlp.fc2"),
        ("head.probe", "attn_pool.latent"),
        ("head.attention.in_proj_weight", "attn_pool.qkv.weight"),
        ("head.attention.in_proj_bias", "attn_pool.qkv.bias"),
        ("head.attention.out_proj", "attn_pool.proj"),
        ("head.layernorm", "attn_pool.norm"),
        ("head.mlp.fc1", "attn_pool.mlp.fc1"),
        ("head.mlp.fc2", "attn_pool.mlp.fc2"),
    ),
    packed=((tuple(LAYER + f"self_attn.{part}_proj" for part in "qkv"), "blocks.{i}.attn.qkv"),),
    left_out=("embeddings.position_ids", "classifier"),
)


def convert(weights: Weights) -> Converted:
    """Build the ViT of a transformers ``SiglipVisionModel``, or of the image tower of a ``SiglipModel``.

    Features are those of the attention pooling, transformers' ``pooler_output``; without such a head the mean of the tokens.

    Raises:
      ValueError: the tower of a SigLIP 2 for any shape of picture (NaFlex), whose patches are cut otherwise.
    """
    arrays = translate(weights.arrays, NAMES).arrays
    shape = arrays["patch_embed.proj.weight"].shape
    allowed = (
        "a convolution's [width, channels, side, side]; a SigLIP 2 'naflex' model cuts patches otherwise"
    )
    require(len(shape) == 4, "patch_embedding", shape, allowed)
    arrays["pos_embed"] = arrays["pos_embed"].reshape(1, -1, shape[0])
    for part in ("weight", "bias"):
        joint = arrays.pop(f"attn_pool.qkv.{part}", None)
        if joint is not None:
            arrays[f"attn_pool.q.{part}"], arrays[f"attn_pool.kv.{part}"] = np.split(joint, [shape[0]])
    config = weights.metadata.get("config", {})
    config = config.get("vision_config", config)
    said = {
        "pool": "map" if "attn_pool.latent" in arrays else "mean",
        "position_resize": "bicubic",
        "mlp": activation(config.get("hidden_act", "gelu_pytorch_tanh")),
        "norm_epsilon": config.get("layer_norm_eps", 1e-6),
        "heads": config.get("num_attention_heads"),
    }
    network, params, state = convert_vit(arrays, weights, said)
    size = (network.config["image_size"],) * 2
    preprocessing = preprocessing_of(weights.metadata, family="siglip", size=size, channels=shape[1])
    return Converted(network, params, state, preprocessing)


def to_transformers(
    network: Network, params: Params, state: State
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Write a ViT as a transformers ``SiglipVisionModel``: arrays by their names, and its ``config.json``.

    Raises:
      ValueError: an option that a ``SiglipVisionModel`` does not have.
    """
    require_tower(
        network,
        "SiglipVisionModel",
        pool="map",
        class_token=False,
        registers=0,
        pre_norm=False,
        position="learned",
        mlp=("gelu_tanh", "gelu", "quick_gelu"),
        qkv_bias=True,
        layer_scale=None,
        fc_norm=False,
        qk_norm=False,
    )
    arrays = vit_to_torch(params, state, network)
    config = vision_config(
        network, arrays, model_type="siglip_vision_model", architecture="SiglipVisionModel"
    )
    arrays["pos_embed"] = arrays["pos_embed"][0]
    for part in ("weight", "bias"):
        rows = [arrays.pop(f"attn_pool.{name}.{part}") for name in ("q", "kv")]
        arrays[f"attn_pool.qkv.{part}"] = np.concatenate(rows)
    return translate_back(arrays, NAMES).arrays, config


FAMILIES = (
    Family(
        "transformers SiglipVision",
        NAMES,
        ("embeddings.patch_embedding.bias", "post_layernorm", LAYER + "self_attn.q_proj.weight"),
        convert,
    ),
)
