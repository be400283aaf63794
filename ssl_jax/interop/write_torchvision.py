"""Encoders as models of torchvision: ``model.safetensors``, and the lines that build the model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.interop import convnext, snippets
from ssl_jax.interop.write_files import (
    WEIGHTS,
    Encoder,
    Target,
    TorchModel,
    refuse_options,
    require_kind,
    require_three_channels,
    settled,
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
      encoder: a ViT with a class token, a ConvNeXt or a ResNet. For a ResNet the options are ``in_channels`` and
        ``small_stem``, which replace ``conv1`` and ``maxpool`` of torchvision's model, as is the custom for small images.

    Raises:
      ValueError: torchvision has no such model; says why.
    """
    express: Mapping[str, Callable[[Encoder], TorchModel]] = {
        "vit": _vit,
        "resnet": _resnet,
        "convnext": _convnext,
    }
    return express[require_kind(encoder, express, library=LIBRARY)](settled(encoder))


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


def _convnext(encoder: Encoder) -> TorchModel:
    require_three_channels(encoder, library=LIBRARY)
    config = encoder.network.config
    known = {"stem_patch": (4,), **dict.fromkeys(("depths", "widths", "layer_scale", "norm_tokens"))}
    refuse_options(encoder, known, library=LIBRARY)
    scaled = config["layer_scale"] is not None
    require(scaled, "layer_scale", None, f"a number with {LIBRARY}, whose blocks all have one")
    arrays = {
        _convnext_name(name): array.reshape(-1, 1, 1) if name.endswith("gamma") else array
        for name, array in convnext.to_timm(encoder.network, encoder.params, encoder.state).items()
    }
    widths = [*config["widths"], None]
    stages = [[widths[i], widths[i + 1], depth] for i, depth in enumerate(config["depths"])]
    return TorchModel("ConvNeXt", {"stages": stages}, arrays)


def _convnext_name(name: str) -> str:
    """timm's name of a ConvNeXt's array as torchvision's.

    >>> _convnext_name("stages.1.blocks.2.mlp.fc2.bias"), _convnext_name("stages.1.downsample.0.weight")
    ('features.3.2.block.5.bias', 'features.2.0.weight')
    """
    parts = name.split(".")
    if parts[0] == "stem":
        return f"features.0.{'.'.join(parts[1:])}"
    if parts[0] == "head":
        return f"classifier.0.{parts[-1]}"
    stage = int(parts[1])
    if parts[2] == "downsample":
        return f"features.{2 * stage}.{'.'.join(parts[3:])}"
    block = f"features.{2 * stage + 1}.{parts[3]}"
    if parts[-1] == "gamma":
        return f"{block}.layer_scale"
    layer = {"conv_dw": 0, "norm": 2, "fc1": 3, "fc2": 5}[parts[-2]]
    return f"{block}.block.{layer}.{parts[-1]}"


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
    if model.architecture == "ConvNeXt":
        return [
            "from torchvision.models.convnext import CNBlockConfig, ConvNeXt",
            f"model = ConvNeXt([CNBlockConfig(*stage) for stage in {options['stages']}])",
            "model.classifier[2] = torch.nn.Identity()",
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
    elif model.architecture == "ConvNeXt":
        stages = [torchvision.models.convnext.CNBlockConfig(*stage) for stage in options["stages"]]
        built = torchvision.models.convnext.ConvNeXt(stages)
        built.classifier[2] = torch.nn.Identity()
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
    by_torchvision = _transform(encoder)
    return "\n".join(
        [
            *([] if by_torchvision else ["import numpy as np"]),
            "import torch",
            "import torchvision",
            "from PIL import Image",
            "from safetensors.torch import load_file",
            "",
            *builders(model),
            f'model.load_state_dict(load_file("{WEIGHTS}"), strict=True)',
            *(by_torchvision or [*snippets.unit_pixels(encoder), *snippets.normalized_tensor(encoder)]),
            "with torch.no_grad():",
            f"    features = model.eval()(pixels[None])  # [1, {encoder.network.features}]",
        ]
    )


def _transform(encoder: Encoder) -> list[str]:
    """Return lines that make ``pixels`` by torchvision's own transforms; none where these give other pixels."""
    preprocessing = encoder.preprocessing
    (height, width), (rows, columns) = preprocessing.size, preprocessing.target
    short = preprocessing.resize == "short" and rows == columns
    known = short or preprocessing.resize == "squash"
    if encoder.channels not in snippets.MODES or preprocessing.crop_down or not known:
        return []
    size = rows if short else (rows, columns)
    mean, std = snippets.listed_statistics(encoder)
    return [
        "t = torchvision.transforms",
        f"resize = t.Resize({size}, t.InterpolationMode.{preprocessing.interpolation.upper()})",
        f"normalize = t.Normalize({mean}, {std})",
        f"transform = t.Compose([resize, t.CenterCrop({(height, width)}), t.ToTensor(), normalize])",
        *snippets.open_picture(encoder),
        "pixels = transform(picture)",
    ]


TARGET = Target(to_torchvision, write_torchvision)
