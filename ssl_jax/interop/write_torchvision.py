"""Encoders as models of torchvision: ``model.safetensors``, and the lines that build the model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_jax.interop import snippets
from ssl_jax.interop.write_files import (
    WEIGHTS,
    Encoder,
    Target,
    TorchModel,
    at_size,
    refuse_options,
    require_kind,
    require_three_channels,
    write_arrays,
    write_json,
)
from ssl_jax.models.torch_names import resnet_to_torch
from ssl_jax.models.torch_names_vit import vit_to_torch

LIBRARY = "torchvision"
BLOCK: Mapping[str, str] = {
    "norm1": "ln_1",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}
"""Parts of a block of the ViT, by timm's names."""


def to_torchvision(encoder: Encoder) -> TorchModel:
    """Express an encoder as a model of torchvision whose classifier is the identity.

    Args:
      encoder: a ViT with a class token, or a ResNet. For a ResNet the options are ``in_channels`` and ``small_stem``, which
        replace ``conv1`` and ``maxpool`` of torchvision's model, as is the custom for small images.

    Raises:
      ValueError: torchvision has no such model; says why.
    """
    express: Mapping[str, Callable[[Encoder], TorchModel]] = {"vit": _vit, "resnet": _resnet}
    return express[require_kind(encoder, express, library=LIBRARY)](at_size(encoder))


def _resnet(encoder: Encoder) -> TorchModel:
    refuse_options(encoder, {"stem": None, "width": (1.0,), "norm": ("batch",)}, library=LIBRARY)
    config = encoder.network.config
    options = {"in_channels": encoder.channels, "small_stem": config["stem"] == "small"}
    return TorchModel(config["name"], options, resnet_to_torch(encoder.params, encoder.state))


def _vit(encoder: Encoder) -> TorchModel:
    require_three_channels(encoder, library=LIBRARY)
    config = encoder.network.config
    known = dict.fromkeys(
        ("width", "depth", "heads", "patch", "image_size", "mlp_ratio", "key_bias", "position_resize")
    )
    refuse_options(encoder, {**known, "position": ("learned", "sincos")}, library=LIBRARY)
    arrays = vit_to_torch(encoder.params, encoder.state, encoder.network)
    options = {
        "image_size": config["image_size"],
        "patch_size": config["patch"],
        "num_layers": config["depth"],
        "num_heads": config["heads"],
        "hidden_dim": config["width"],
        "mlp_dim": int(config["width"] * config["mlp_ratio"]),
    }
    renamed = {_vit_name(name): array for name, array in arrays.items() if name != "mask_token"}
    return TorchModel("VisionTransformer", options, renamed)


def _vit_name(name: str) -> str:
    """timm's name of a ViT's array as torchvision's.

    >>> _vit_name("blocks.3.attn.qkv.weight"), _vit_name("norm.bias"), _vit_name("pos_embed")
    ('encoder.layers.encoder_layer_3.self_attention.in_proj_weight', 'encoder.ln.bias', 'encoder.pos_embedding')
    """
    whole = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
    if name in whole:
        return whole[name]
    if not name.startswith("blocks."):
        return name.replace("patch_embed.proj", "conv_proj").replace("norm.", "encoder.ln.")
    _, number, rest = name.split(".", 2)
    part = next(part for part in BLOCK if rest.startswith(part))
    return f"encoder.layers.encoder_layer_{number}.{BLOCK[part]}{rest.removeprefix(part)}"


def builders(model: TorchModel) -> list[str]:
    """Return the lines of Python that build a model; they need ``import torch`` and ``import torchvision``."""
    options = model.options
    if model.architecture == "VisionTransformer":
        listed = ", ".join(f"{name}={value}" for name, value in options.items())
        return [
            f"model = torchvision.models.VisionTransformer({listed})",
            "model.heads = torch.nn.Identity()",
        ]
    channels, small = options["in_channels"], options["small_stem"]
    kernel = "3, 1, 1" if small else "7, 2, 3"
    return [
        f"model = torchvision.models.{model.architecture}()",
        *(
            [f"model.conv1 = torch.nn.Conv2d({channels}, 64, {kernel}, bias=False)"]
            if small or channels != 3
            else []
        ),
        *(["model.maxpool = torch.nn.Identity()"] if small else []),
        "model.fc = torch.nn.Identity()",
    ]


def build_torchvision(model: TorchModel) -> Any:
    """Build the ``torch.nn.Module`` of a model of torchvision, with its weights, in evaluation mode.

    Raises:
      ImportError: torchvision is not installed.
    """
    try:
        import torch
        import torchvision
    except ImportError as error:
        raise ImportError("models of torchvision need it: pip install 'ssl-jax[timm]'") from error
    options = model.options
    if model.architecture == "VisionTransformer":
        built = torchvision.models.VisionTransformer(**options)
        built.heads = torch.nn.Identity()
    else:
        built = getattr(torchvision.models, model.architecture)()
        size = (3, 1, 1) if options["small_stem"] else (7, 2, 3)
        built.conv1 = torch.nn.Conv2d(options["in_channels"], 64, *size, bias=False)
        built.maxpool = torch.nn.Identity() if options["small_stem"] else built.maxpool
        built.fc = torch.nn.Identity()
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in model.arrays.items()}
    built.load_state_dict(arrays, strict=True)
    return built.eval()


def write_torchvision(encoder: Encoder, folder: Path) -> str:
    """Write ``model.safetensors`` and ``preprocessing.json``, and return how to use them.

    Args:
      encoder: to write.
      folder: of this export alone.
    """
    model = to_torchvision(encoder)
    write_arrays(model.arrays, folder)
    write_json(encoder.preprocessing._asdict(), folder / "preprocessing.json")
    return "\n".join(
        [
            "import numpy as np",
            "import torch",
            "import torchvision",
            "from PIL import Image, ImageOps",
            "from safetensors.torch import load_file",
            "",
            *builders(model),
            f'model.load_state_dict(load_file("{WEIGHTS}"), strict=True)',
            *snippets.unit_pixels(encoder),
            *snippets.normalized_tensor(encoder),
            "with torch.no_grad():",
            f"    features = model.eval()(pixels[None])  # [1, {encoder.network.features}]",
        ]
    )


TARGET = Target(to_torchvision, write_torchvision)
