"""Image towers of CLIP: transformers' CLIPVision, and the names of OpenAI's code, which OpenCLIP shares."""

from typing import Any

import numpy as np

from ssl_jax.core.types import Params, State
from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.names import Names, translate, translate_back
from ssl_jax.interop.preprocessing import preprocessing_of
from ssl_jax.interop.towers import linear_projector, require_tower, vision_config
from ssl_jax.interop.vit_options import activation, convert_vit
from ssl_jax.models.network import Network
from ssl_jax.models.torch_names_vit import vit_to_torch

PROJECTION = "projection"

LAYER = "encoder.layers.{i}."
TRANSFORMERS = Names(
    pairs=(
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.patch_embedding", "patch_embed.proj"),
        ("embeddings.position_embedding.weight", "pos_embed"),
        ("pre_layrnorm", "norm_pre"),
        ("post_layernorm", "norm"),
        (LAYER + "self_attn.out_proj", "blocks.{i}.attn.proj"),
        (LAYER + "layer_norm1", "blocks.{i}.norm1"),
        (LAYER + "layer_norm2", "blocks.{i}.norm2"),
        (LAYER + "mlp.fc1", "blocks.{i}.mlp.fc1"),
        (LAYER + "mlp.fc2", "blocks.{i}.mlp.fc2"),
        ("visual_projection.weight", PROJECTION),
    ),
    packed=((tuple(LAYER + f"self_attn.{part}_proj" for part in "qkv"), "blocks.{i}.attn.qkv"),),
    left_out=("embeddings.position_ids", "classifier"),
)

RESBLOCK = "transformer.resblocks.{i}."
OPENAI = Names(
    pairs=(
        ("class_embedding", "cls_token"),
        ("positional_embedding", "pos_embed"),
        ("conv1", "patch_embed.proj"),
        ("ln_pre", "norm_pre"),
        ("ln_post", "norm"),
        (RESBLOCK + "ln_1", "blocks.{i}.norm1"),
        (RESBLOCK + "attn.in_proj_weight", "blocks.{i}.attn.qkv.weight"),
        (RESBLOCK + "attn.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
        (RESBLOCK + "attn.out_proj", "blocks.{i}.attn.proj"),
        (RESBLOCK + "ls_1", "blocks.{i}.ls1"),
        (RESBLOCK + "ln_2", "blocks.{i}.norm2"),
        (RESBLOCK + "mlp.c_fc", "blocks.{i}.mlp.fc1"),
        (RESBLOCK + "mlp.c_proj", "blocks.{i}.mlp.fc2"),
        (RESBLOCK + "ls_2", "blocks.{i}.ls2"),
        ("proj", PROJECTION),
    )
)


def convert_transformers(weights: Weights) -> Converted:
    """Build the ViT of a transformers ``CLIPVisionModel``, or of the image tower of a ``CLIPModel``.

    Features are the class token after ``post_layernorm``, transformers' ``pooler_output``. Tokens are normalised by it too,
    which transformers' ``last_hidden_state`` is not.
    """
    config = weights.metadata.get("config", {})
    config = config.get("vision_config", config)
    said = {
        "mlp": activation(config.get("hidden_act", "quick_gelu")),
        "norm_epsilon": config.get("layer_norm_eps", 1e-5),
        "heads": config.get("num_attention_heads"),
    }
    arrays = translate(weights.arrays, TRANSFORMERS).arrays
    if PROJECTION in arrays:
        arrays[PROJECTION] = arrays[PROJECTION].T
    return _convert(weights, arrays, said)


def convert_openai(weights: Weights) -> Converted:
    """Build the ViT of an image tower in OpenAI's names.

    Its GELU is the one that ``open_clip_config.json`` names. A file alone does not say it: then it is OpenAI's
    ``"quick_gelu"``, and ``load_pretrained(name, mlp="gelu")`` is for OpenCLIP's own models, most of which have the exact one.
    """
    said: dict[str, Any] = {"mlp": "quick_gelu", "norm_epsilon": 1e-5}
    config = weights.metadata.get("open_clip", {}).get("model_cfg")
    if config is not None:
        vision = config.get("vision_cfg", {})
        said["mlp"] = "quick_gelu" if config.get("quick_gelu") else "gelu"
        said["heads"] = vision["width"] // vision.get("head_width", 64) if "width" in vision else None
    return _convert(weights, translate(weights.arrays, OPENAI).arrays, said)


def _convert(weights: Weights, arrays: dict[str, np.ndarray], said: dict[str, Any]) -> Converted:
    """Build the ViT; ``arrays`` may hold the projection, as a matrix ``[width, e]``."""
    projection = arrays.pop(PROJECTION, None)
    width = arrays["cls_token"].size
    arrays["cls_token"] = arrays["cls_token"].reshape(1, 1, width)
    arrays["pos_embed"] = arrays["pos_embed"].reshape(1, -1, width)
    tower = convert_vit(arrays, weights, {"position_resize": "bicubic", **said})
    heads = {} if projection is None else {"projector": linear_projector(projection)}
    side = tower[0].config["image_size"]
    channels = arrays["patch_embed.proj.weight"].shape[1]
    preprocessing = preprocessing_of(weights.metadata, family="clip", size=(side, side), channels=channels)
    return Converted(*tower, preprocessing, heads)


def to_transformers(
    network: Network, params: Params, state: State
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Write a ViT as a transformers ``CLIPVisionModel``: arrays by their names, and its ``config.json``.

    Raises:
      ValueError: an option that a ``CLIPVisionModel`` does not have.
    """
    require_tower(
        network,
        "CLIPVisionModel",
        pre_norm=True,
        class_token=True,
        registers=0,
        pool="cls",
        position="learned",
        mlp=("quick_gelu", "gelu", "gelu_tanh"),
        qkv_bias=True,
        layer_scale=None,
        fc_norm=False,
        qk_norm=False,
    )
    arrays = vit_to_torch(params, state, network)
    config = vision_config(network, arrays, model_type="clip_vision_model", architecture="CLIPVisionModel")
    arrays["cls_token"], arrays["pos_embed"] = arrays["cls_token"].reshape(-1), arrays["pos_embed"][0]
    return translate_back(arrays, TRANSFORMERS).arrays, config


FAMILIES = (
    Family(
        "transformers CLIPVision",
        TRANSFORMERS,
        ("embeddings.class_embedding", "pre_layrnorm", LAYER + "self_attn.q_proj.weight"),
        convert_transformers,
    ),
    Family(
        "CLIP in OpenAI's names",
        OPENAI,
        ("class_embedding", "conv1.weight", "ln_pre", RESBLOCK + "attn.in_proj_weight"),
        convert_openai,
    ),
)
