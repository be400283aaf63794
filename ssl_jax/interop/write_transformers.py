"""Encoders as models of transformers: ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_jax.core.check import require
from ssl_jax.interop import clip, convnext, huggingface_vit, resnet, siglip, snippets, write_positions
from ssl_jax.interop.names import translate_back
from ssl_jax.interop.weights import POOL_KEY
from ssl_jax.interop.write_files import (
    Encoder,
    Target,
    TorchModel,
    refuse_options,
    require_kind,
    settled,
    write_arrays,
    write_json,
)
from ssl_jax.models.build import build
from ssl_jax.models.torch_names import resnet_to_torch
from ssl_jax.models.torch_names_vit import vit_to_torch

LIBRARY = "transformers"
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
WITHOUT_POOLER = ("ViTModel", "IJepaModel")
"""Classes with a layer after the class token that an encoder does not have."""


def to_transformers(encoder: Encoder) -> TorchModel:
    """Express an encoder as a model of transformers.

    Args:
      encoder: a ViT, a ResNet or a ConvNeXt.

    Returns:
      The name of the class, its ``config.json`` and the arrays.

    Raises:
      ValueError: transformers has no such model; says why.
    """
    express: Mapping[str, Callable[[Encoder], TorchModel]] = {
        "vit": _vit,
        "convnext": _convnext,
        "resnet": _resnet,
    }
    kind = require_kind(encoder, express, library=LIBRARY)
    encoder.preprocessing.to_transformers()
    return express[kind](settled(encoder))


def _vit(encoder: Encoder) -> TorchModel:
    config = encoder.network.config
    by_attention = {
        "rope": write_positions.rotary_transformers,
        "relative": write_positions.relative_transformers,
    }
    if config["position"] in by_attention:
        return by_attention[config["position"]](encoder)
    if config["pre_norm"] or config["pool"] == "map":
        return _tower(encoder)
    plain = config["class_token"] and not config["registers"] and config["layer_scale"] is None
    if plain and config["mlp"] in ACTIVATIONS:
        return _plain_vit(encoder)
    # Positions are those of the size already.
    resize = "bicubic_antialias" if config["registers"] else "bicubic"
    network = build(**{**config, "position_resize": resize})
    arrays, described = huggingface_vit.to_transformers(network, encoder.params, encoder.state)
    return TorchModel(described["architectures"][0], described, arrays)


def _tower(encoder: Encoder) -> TorchModel:
    config, siglips = encoder.network.config, encoder.network.config["pool"] == "map"
    with_bias = not config["pre_norm"] if config["patch_bias"] is None else config["patch_bias"]
    has = "True in a SiglipVisionModel" if siglips else "None or False in a CLIPVisionModel"
    require(with_bias == siglips, "patch_bias", config["patch_bias"], has)
    express = siglip.to_transformers if siglips else clip.to_transformers
    arrays, described = express(encoder.network, encoder.params, encoder.state)
    return TorchModel(described["architectures"][0], described, arrays)


def _plain_vit(encoder: Encoder) -> TorchModel:
    config = encoder.network.config
    free = (
        "width",
        "depth",
        "heads",
        "patch",
        "image_size",
        "mlp_ratio",
        "qkv_bias",
        "key_bias",
        "norm_epsilon",
    )
    known: dict[str, Any] = {
        **dict.fromkeys((*free, "position_resize")),
        "pool": ("cls", "mean"),
        "position": ("learned", "sincos"),
        "mlp": tuple(ACTIVATIONS),
    }
    refuse_options(encoder, known, library=LIBRARY)
    arrays = vit_to_torch(encoder.params, encoder.state, encoder.network)
    arrays.pop("mask_token", None)
    described = {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": config["width"],
        "num_hidden_layers": config["depth"],
        "num_attention_heads": config["heads"],
        "intermediate_size": int(config["width"] * config["mlp_ratio"]),
        "hidden_act": ACTIVATIONS[config["mlp"]],
        "layer_norm_eps": config["norm_epsilon"],
        "image_size": config["image_size"],
        "patch_size": config["patch"],
        "num_channels": encoder.channels,
        "qkv_bias": config["qkv_bias"],
    }
    return TorchModel("ViTModel", described, translate_back(arrays, huggingface_vit.OLD_VIT_NAMES).arrays)


def _resnet(encoder: Encoder) -> TorchModel:
    known = {"stem": ("imagenet",), "width": None, "norm": ("batch",)}
    refuse_options(encoder, known, library=LIBRARY)
    arrays = resnet_to_torch(encoder.params, encoder.state)
    blocks = [f"layer{i + 1}" for i in range(4)]
    depths = [
        len({name.split(".")[1] for name in arrays if name.startswith(f"{block}.")}) for block in blocks
    ]
    bottleneck = "layer1.0.conv3.weight" in arrays
    stem = arrays["conv1.weight"].shape[0]
    described = {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": encoder.channels,
        "embedding_size": stem,
        "hidden_sizes": [stem * (4 if bottleneck else 1) * 2**i for i in range(4)],
        "depths": depths,
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
    }
    return TorchModel("ResNetModel", described, translate_back(arrays, resnet.NAMES_TRANSFORMERS).arrays)


def _convnext(encoder: Encoder) -> TorchModel:
    config = encoder.network.config
    free = ("depths", "widths", "stem_patch", "grn", "layer_scale", "norm_tokens")
    known = dict.fromkeys(free if config["norm_tokens"] else (*free, "last_norm_epsilon"))
    refuse_options(encoder, known, library=LIBRARY)
    arrays = convnext.to_transformers(encoder.network, encoder.params, encoder.state)
    name, model_type = ("ConvNextV2Model", "convnextv2") if config["grn"] else ("ConvNextModel", "convnext")
    if config["norm_tokens"]:
        name, model_type = "DINOv3ConvNextModel", "dinov3_convnext"
    described = {
        "architectures": [name],
        "model_type": model_type,
        "num_channels": encoder.channels,
        "patch_size": config["stem_patch"],
        "hidden_sizes": list(config["widths"]),
        "depths": list(config["depths"]),
        "hidden_act": "gelu",
        # Of the last normalisation; those of the blocks are 1e-6 whatever it says.
        "layer_norm_eps": config["last_norm_epsilon"] or config["norm_epsilon"],
        "layer_scale_init_value": config["layer_scale"] or 0.0,
        "image_size": encoder.preprocessing.size[0],
    }
    if not config["norm_tokens"]:
        described["num_stages"] = len(config["depths"])
    return TorchModel(name, described, arrays)


def pool_of(encoder: Encoder) -> tuple[str, int]:
    """Tell where the features are in the outputs of a model of transformers, and how many tokens are in front of the patches.

    Returns:
      ``"cls"``: the first token; ``"mean"``: the mean of the patches; ``"pooler"``: what the model has pooled by itself.
    """
    config = encoder.network.config
    pooled = config.get("pool", "map") == "map" or config["pre_norm"] or config["fc_norm"]
    if pooled:
        return "pooler", 0
    return config["pool"], config["class_token"] + config["registers"]


def features_of(encoder: Encoder) -> str:
    """Return the expression of the features by the ``outputs`` of a model of transformers."""
    pool, prefix = pool_of(encoder)
    patches = f"outputs.last_hidden_state[:, {prefix}:].mean(1)"
    return {
        "pooler": "outputs.pooler_output.flatten(1)",
        "cls": "outputs.last_hidden_state[:, 0]",
        "mean": patches,
    }[pool]


def loading(model: TorchModel) -> str:
    """Return the expression that loads a model from the current folder."""
    without = ", add_pooling_layer=False" if model.architecture in WITHOUT_POOLER else ""
    return f'transformers.{model.architecture}.from_pretrained("."{without})'


def build_transformers(model: TorchModel) -> Any:
    """Build the ``torch.nn.Module`` of a model of transformers, with its weights, in evaluation mode.

    Raises:
      ImportError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError("models of transformers need it: pip install 'ssl-jax[transformers]'") from error
    without = {"add_pooling_layer": False} if model.architecture in WITHOUT_POOLER else {}
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(model.arrays, Path(folder))
        write_json(model.options, Path(folder) / "config.json")
        loaded, report = getattr(transformers, model.architecture).from_pretrained(
            folder, output_loading_info=True, **without
        )
    wrong = [
        f"{kind} {sorted(report[kind])[:3]}" for kind in ("missing_keys", "unexpected_keys") if report[kind]
    ]
    require(not wrong, "arrays", wrong, f"exactly those of {model.architecture}")
    return loaded.eval()


def features_module(model: TorchModel, encoder: Encoder) -> Any:
    """Build a ``torch.nn.Module`` that gives the features alone.

    Args:
      model: from :func:`to_transformers`.
      encoder: of which it is.
    """
    loaded = build_transformers(model)
    import torch

    pool, prefix = pool_of(encoder)

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = loaded

        def forward(self, pixels: Any) -> Any:
            outputs = self.model(pixels)
            if pool == "pooler":
                return outputs.pooler_output.flatten(1)
            tokens = outputs.last_hidden_state
            return tokens[:, 0] if pool == "cls" else tokens[:, prefix:].mean(1)

    return Features()


def write_transformers(encoder: Encoder, folder: Path) -> str:
    """Write the three files, and return how to use them.

    Args:
      encoder: to write.
      folder: of this export alone.
    """
    model = to_transformers(encoder)
    write_arrays(model.arrays, folder)
    described = {**model.options, "torch_dtype": "float32"}
    if pool_of(encoder)[0] == "mean" and encoder.network.config["class_token"]:
        # No key of transformers says it; load_pretrained reads this one.
        described[POOL_KEY] = "mean"
    write_json(described, folder / "config.json")
    write_json(encoder.preprocessing.to_transformers(), folder / "preprocessor_config.json")
    if encoder.channels in snippets.MODES:
        pixels = [
            'processor = transformers.AutoImageProcessor.from_pretrained(".")',
            *snippets.open_picture(encoder),
            'pixels = processor(picture, return_tensors="pt").pixel_values',
        ]
    else:
        pixels = [
            *snippets.unit_pixels(encoder),
            *snippets.normalized_tensor(encoder),
            "pixels = pixels[None]",
        ]
    return "\n".join(
        [
            *snippets.imports(encoder, "torch", "transformers"),
            f"model = {loading(model)}.eval()",
            *pixels,
            "with torch.no_grad():",
            "    outputs = model(pixels)",
            f"features = {features_of(encoder)}  # [1, {encoder.network.features}]",
        ]
    )


TARGET = Target(to_transformers, write_transformers)
