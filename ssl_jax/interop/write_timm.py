"""Encoders as models of timm: ``config.json`` and ``model.safetensors``, as timm's hub models are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_jax.interop import convnext, snippets, write_positions
from ssl_jax.interop.write_files import (
    Encoder,
    Target,
    TorchModel,
    kind_of,
    refuse_options,
    require_kind,
    settled,
    write_arrays,
    write_json,
)
from ssl_jax.models.torch_names import resnet_to_torch
from ssl_jax.models.torch_names_vit import vit_to_torch

LIBRARY = "timm"
VITS: Mapping[tuple[bool, float], str] = {
    (False, 1e-6): "vit_base_patch16_224",
    (False, 1e-5): "vit_base_patch16_clip_224",
    (True, 1e-6): "vit_giant_patch14_dinov2",
}
"""Architectures of timm by (SwiGLU, ε), which cannot be given as JSON; all else of them is given as options."""
POOLS = {"cls": "token", "mean": "avg", "map": "map"}
ACTIVATIONS = {"gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}


ENDS = {
    "vit": ("patch_embed.proj", "head"),
    "resnet": ("conv1", "fc"),
    "convnext": ("stem.0", "head.fc"),
}
"""First layer and classifier of each kind, by which timm finds them."""


def to_timm(encoder: Encoder) -> TorchModel:
    """Express an encoder as a model of timm without classifier.

    ``timm.create_model(architecture, num_classes=0, **options)`` has the arrays that are returned, and the features of the
    encoder.

    Args:
      encoder: a ViT, a ResNet or a ConvNeXt.

    Raises:
      ValueError: timm has no such model; says why.
    """
    express: Mapping[str, Callable[[Encoder], TorchModel]] = {
        "vit": _vit,
        "resnet": _resnet,
        "convnext": _convnext,
    }
    return express[require_kind(encoder, express, library=LIBRARY)](settled(encoder))


def _vit(encoder: Encoder) -> TorchModel:
    config = encoder.network.config
    by_attention = {"rope": write_positions.rotary_timm, "relative": write_positions.relative_timm}
    if config["position"] in by_attention:
        return by_attention[config["position"]](encoder)
    swiglu = config["mlp"] == "swiglu"
    free = (
        *("width", "depth", "heads", "patch", "image_size", "class_token", "registers", "mlp_ratio", "mlp"),
        *("qkv_bias", "key_bias", "qk_norm", "layer_scale", "fc_norm", "position_resize", "pre_norm"),
    )
    known: dict[str, Any] = {
        **dict.fromkeys(free),
        "pool": tuple(POOLS),
        "position": ("learned", "sincos"),
        "norm_epsilon": tuple(epsilon for gated, epsilon in VITS if gated == swiglu),
        "patch_bias": (None, not config["pre_norm"]),
    }
    refuse_options(encoder, known, library=LIBRARY)
    options = {
        "img_size": config["image_size"],
        "patch_size": config["patch"],
        "in_chans": encoder.channels,
        "embed_dim": config["width"],
        "depth": config["depth"],
        "num_heads": config["heads"],
        "mlp_ratio": config["mlp_ratio"],
        "qkv_bias": config["qkv_bias"],
        "qk_norm": config["qk_norm"],
        # timm takes None for "as the architecture has it", and 0 for none.
        "init_values": 0.0 if config["layer_scale"] is None else config["layer_scale"] or 1e-5,
        "class_token": config["class_token"],
        "reg_tokens": config["registers"],
        "global_pool": POOLS[config["pool"]],
        "fc_norm": config["fc_norm"],
        "pre_norm": config["pre_norm"],
    }
    if config["mlp"] in ACTIVATIONS:
        options["act_layer"] = ACTIVATIONS[config["mlp"]]
    arrays = vit_to_torch(encoder.params, encoder.state, encoder.network)
    arrays.pop("mask_token", None)
    return TorchModel(VITS[swiglu, config["norm_epsilon"]], options, arrays)


def _resnet(encoder: Encoder) -> TorchModel:
    refuse_options(encoder, {"stem": ("imagenet",), "width": (1.0,), "norm": ("batch",)}, library=LIBRARY)
    arrays = resnet_to_torch(encoder.params, encoder.state)
    return TorchModel(encoder.network.config["name"], {"in_chans": encoder.channels}, arrays)


def _convnext(encoder: Encoder) -> TorchModel:
    config = encoder.network.config
    known = dict.fromkeys(
        ("depths", "widths", "stem_patch", "grn", "layer_scale", "norm_tokens", "norm_epsilon")
    )
    refuse_options(encoder, known, library=LIBRARY)
    arrays = convnext.to_timm(encoder.network, encoder.params, encoder.state)
    options = {
        "in_chans": encoder.channels,
        "depths": list(config["depths"]),
        "dims": list(config["widths"]),
        "patch_size": config["stem_patch"],
        "use_grn": config["grn"],
        "norm_eps": config["norm_epsilon"],
    }
    # timm takes None for "as the architecture has it": that of V2 has no LayerScale.
    scaled = config["layer_scale"] is not None
    return TorchModel("convnext_tiny" if scaled else "convnextv2_tiny", options, arrays)


def build_timm(model: TorchModel) -> Any:
    """Build the ``torch.nn.Module`` of a model of timm, with its weights, in evaluation mode.

    Raises:
      ImportError: timm is not installed.
    """
    try:
        import timm
        import torch
    except ImportError as error:
        raise ImportError("models of timm need timm: pip install 'ssl-jax[timm]'") from error
    built = timm.create_model(model.architecture, num_classes=0, **model.options)
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in model.arrays.items()}
    built.load_state_dict(arrays, strict=True)
    return built.eval()


def write_timm(encoder: Encoder, folder: Path) -> str:
    """Write ``config.json`` and ``model.safetensors``, and return how to use them.

    Args:
      encoder: to write.
      folder: of this export alone.
    """
    model = to_timm(encoder)
    write_arrays(model.arrays, folder)
    settings = encoder.preprocessing.to_timm()
    first, classifier = ENDS[kind_of(encoder.network)]
    pretrained = {
        **settings,
        "fixed_input_size": "img_size" in model.options,
        "num_classes": 0,
        "license": encoder.license,
        "first_conv": first,
        "classifier": classifier,
    }
    config = {
        "architecture": model.architecture,
        "num_classes": 0,
        "num_features": encoder.network.features,
        "global_pool": model.options.get("global_pool", "avg"),
        "model_args": model.options,
        "pretrained_cfg": pretrained,
    }
    write_json(config, folder / "config.json")
    if encoder.channels in snippets.MODES:
        transform = "timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
        pixels = [*snippets.open_picture(encoder), f"pixels = {transform}(picture)"]
    else:
        pixels = [*snippets.unit_pixels(encoder), *snippets.normalized_tensor(encoder)]
    return "\n".join(
        [
            *snippets.imports(encoder, "timm", "torch"),
            'model = timm.create_model("local-dir:.", pretrained=True).eval()',
            *pixels,
            "with torch.no_grad():",
            f"    features = model(pixels[None])  # [1, {encoder.network.features}]",
        ]
    )


TARGET = Target(to_timm, write_timm)
