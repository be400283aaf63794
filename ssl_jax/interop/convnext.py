"""ConvNeXt and ConvNeXt V2 in the names of Meta (SparK and DINOv3 too), timm and transformers."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.core.types import Params, State
from ssl_jax.interop.family import Converted, Family, Weights, timm_architecture
from ssl_jax.interop.names import Arrays, Names, translate, translate_back
from ssl_jax.interop.preprocessing import preprocessing_of
from ssl_jax.models.build import build
from ssl_jax.models.convnext import KERNEL, SIZES
from ssl_jax.models.network import Network
from ssl_jax.models.torch_names import convnext_from_torch, convnext_to_torch

DOWNSAMPLE = "stages.{i}.downsample.{j}"
BLOCK = "stages.{i}.blocks.{j}"


def _pairs(block: str, parts: Mapping[str, str], *others: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Pair the parts of a block, by our names, with theirs; others are pairs as they are."""
    return (*others, *((f"{block}.{theirs}", f"{BLOCK}.{ours}") for ours, theirs in parts.items()))


TIMM_PARTS = {part: part for part in ("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "mlp.grn", "gamma")}
META_PARTS = {
    "conv_dw": "dwconv",
    "norm": "norm",
    "mlp.fc1": "pwconv1",
    "mlp.fc2": "pwconv2",
    "mlp.grn.weight": "grn.gamma",
    "mlp.grn.bias": "grn.beta",
    "gamma": "gamma",
}
DINOV3_PARTS = {
    "conv_dw": "depthwise_conv",
    "norm": "layer_norm",
    "mlp.fc1": "pointwise_conv1",
    "mlp.fc2": "pointwise_conv2",
    "gamma": "gamma",
}
TRANSFORMERS_PARTS = {
    "conv_dw": "dwconv",
    "norm": "layernorm",
    "mlp.fc1": "pwconv1",
    "mlp.fc2": "pwconv2",
    "mlp.grn": "grn",
    "gamma": "layer_scale_parameter",
}
NAMES_TIMM = Names(
    _pairs(
        BLOCK,
        TIMM_PARTS,
        ("stem.0", "stem.0"),
        ("stem.1", "stem.1"),
        (DOWNSAMPLE, DOWNSAMPLE),
        ("head.norm", "norm"),
    ),
    left_out=("head.fc", "head.pre_logits"),
)
NAMES_META = Names(
    _pairs(
        "stages.{i}.{j}",
        META_PARTS,
        ("downsample_layers.0.{j}", "stem.{j}"),
        ("downsample_layers.{i}.{j}", DOWNSAMPLE),
        ("norm", "norm"),
    ),
    left_out=("head", "norms", "mask_token", "projector"),
)
"""``norms.3`` of DINOv3 is ``norm`` once more."""


def _dinov3(prefix: str) -> tuple[tuple[str, str], ...]:
    stage = f"{prefix}stages"
    first = (f"{stage}.0.downsample_layers.{{j}}", "stem.{j}")
    return _pairs(
        f"{stage}.{{i}}.layers.{{j}}",
        DINOV3_PARTS,
        first,
        (f"{stage}.{{i}}.downsample_layers.{{j}}", DOWNSAMPLE),
    )


NAMES_DINOV3 = Names((*_dinov3("model."), *_dinov3(""), ("layer_norm", "norm")))
"""Files of the hub leave ``model.`` out, which transformers 5 has in its names."""
NAMES_TRANSFORMERS = Names(
    _pairs(
        "encoder.stages.{i}.layers.{j}",
        TRANSFORMERS_PARTS,
        ("embeddings.patch_embeddings", "stem.0"),
        ("embeddings.layernorm", "stem.1"),
        ("encoder.stages.{i}.downsampling_layer.{j}", DOWNSAMPLE),
        ("layernorm", "norm"),
    ),
    left_out=("classifier",),
)


COARSE = ("convnext_xxlarge",)
"""Architectures of timm whose normalisations have ε = 1e-5; its own tests' have too, with another GELU."""


def convert_timm(weights: Weights) -> Converted:
    """Build the ConvNeXt of a file in timm's names."""
    stem = weights.arrays.get("stem.1.weight", np.zeros(0))
    require(
        stem.ndim == 1,
        "stem.1.weight",
        stem.shape,
        "a normalisation; overlapping convolutions in the stem are not built",
    )
    architecture, arguments = timm_architecture(weights)
    activation = arguments.get("act_layer", "gelu_tanh" if architecture.startswith("test_") else "gelu")
    require(activation == "gelu", "act_layer", activation, "'gelu', the activation of a ConvNeXt")
    epsilon = arguments.get("norm_eps", 1e-5 if architecture in COARSE else 1e-6)
    return _convert(weights, NAMES_TIMM, norm_epsilon=float(epsilon))


def convert_meta(weights: Weights) -> Converted:
    """Build the ConvNeXt of a file of Meta; those by FCMAE lack the last normalisation, which starts as γ = 1, β = 0."""
    return _convert(
        weights, NAMES_META, norm_tokens=any(name.startswith("norms.") for name in weights.arrays)
    )


def convert_dinov3(weights: Weights) -> Converted:
    """Build the ConvNeXt of transformers' ``DINOv3ConvNextModel``, whose last map is normalised at each position too."""
    epsilon = weights.metadata.get("config", {}).get("layer_norm_eps", 1e-6)
    return _convert(weights, NAMES_DINOV3, norm_tokens=True, norm_epsilon=float(epsilon))


def convert_transformers(weights: Weights) -> Converted:
    """Build the network of transformers' ``ConvNextModel`` or ``ConvNextV2Model``.

    ε of the last normalisation is ``layer_norm_eps``, by default 1e-12, and that of all others 1e-6.
    """
    epsilon = float(weights.metadata.get("config", {}).get("layer_norm_eps", 1e-12))
    return _convert(weights, NAMES_TRANSFORMERS, last_norm_epsilon=None if epsilon == 1e-6 else epsilon)


def _convert(weights: Weights, names: Names, **said: Any) -> Converted:
    activation = weights.metadata.get("config", {}).get("hidden_act", "gelu")
    require(activation == "gelu", "hidden_act", activation, "'gelu', the activation of a ConvNeXt")
    arrays = {name: _plain(name, array) for name, array in translate(weights.arrays, names).arrays.items()}
    settings = options(arrays)
    width = settings["widths"][-1]
    affine = {"norm.weight": np.ones(width, np.float32), "norm.bias": np.zeros(width, np.float32)}
    network = build(**{**settings, **said, **weights.metadata.get("architecture", {})})
    params, state = convnext_from_torch({**affine, **arrays}, network)
    family = "dinov3" if network.config["norm_tokens"] else "convnext"
    channels = arrays["stem.0.weight"].shape[1]
    preprocessing = preprocessing_of(weights.metadata, family=family, channels=channels)
    return Converted(network, params, state, preprocessing)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Write 1x1 convolutions as the linear layers that they are, and vectors with other axes of size 1 as vectors."""
    if ".mlp.grn." in name or name.endswith(".gamma"):
        return array.reshape(-1)
    return array[:, :, 0, 0] if ".mlp.fc" in name and array.ndim == 4 else array


def options(arrays: Arrays) -> dict[str, Any]:
    """List the options of the ConvNeXt whose arrays these are.

    Args:
      arrays: by our torch-style names, see :func:`ssl_jax.models.torch_names.convnext_to_torch`.

    Raises:
      ValueError: a stage without blocks, or convolutions of other sizes.
    """
    stages = sorted(set(_numbers(arrays, "stages.", 1)))
    require(stages == list(range(len(stages))), "stages", stages, "numbered from 0, none left out")
    blocks = [sorted(set(_numbers(arrays, f"stages.{i}.blocks.", 3))) for i in stages]
    for i, found in enumerate(blocks):
        allowed = "numbered from 0, none left out, at least one a stage"
        require(bool(found) and found == list(range(len(found))), f"blocks of stage {i}", found, allowed)
    stem = arrays["stem.0.weight"].shape
    require(len(stem) == 4 and stem[2] == stem[3], "stem.0.weight", stem, "a convolution of square patches")
    kernels = {arrays[name].shape[2:] for name in arrays if name.endswith(".conv_dw.weight")}
    allowed = f"{KERNEL} x {KERNEL}, the depthwise convolutions of a ConvNeXt"
    require(kernels == {(KERNEL, KERNEL)}, "kernel_size", sorted(kernels), allowed)
    depths = tuple(len(found) for found in blocks)
    widths = tuple(arrays[f"stages.{i}.blocks.0.conv_dw.weight"].shape[0] for i in stages)
    name = next((name for name, size in SIZES.items() if size == (depths, widths)), "convnext_tiny")
    return {
        "name": name,
        "depths": depths,
        "widths": widths,
        "stem_patch": stem[2],
        "grn": any(".mlp.grn." in name for name in arrays),
        "layer_scale": 1e-6 if any(name.endswith(".gamma") for name in arrays) else None,
    }


def _numbers(arrays: Arrays, prefix: str, place: int) -> Iterator[int]:
    return (int(name.split(".")[place]) for name in arrays if name.startswith(prefix))


def to_timm(network: Network, params: Params, state: State) -> dict[str, np.ndarray]:
    """Write a ConvNeXt in timm's names; ``timm.create_model(..., num_classes=0)`` has exactly these.

    Args:
      network: a ConvNeXt.
      params: its params.
      state: its state, which is empty.

    Raises:
      ValueError: a stem of 2 pixels, after which timm's first stage halves the map, or another number of stages than 4.

    >>> import jax, jax.numpy as jnp
    >>> network = build("convnext_tiny", depths=(1, 1, 1, 1), widths=(4, 4, 4, 8))
    >>> arrays = to_timm(network, *network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    >>> arrays["head.norm.weight"].shape, arrays["stages.3.downsample.1.weight"].shape
    ((8,), (8, 4, 2, 2))
    """
    del state
    config = network.config
    allowed = "other than 2: timm's first stage halves the map after a stem of 2 pixels"
    require(config["stem_patch"] != 2, "encoder.stem_patch", config["stem_patch"], allowed)
    require(len(config["depths"]) == 4, "encoder.depths", config["depths"], "4 stages, as timm has them")
    return translate_back(convnext_to_torch(params), NAMES_TIMM).arrays


def to_transformers(network: Network, params: Params, state: State) -> dict[str, np.ndarray]:
    """Write a ConvNeXt in the names of transformers.

    They are those of ``DINOv3ConvNextModel`` where the tokens are normalised, else of ``ConvNextV2Model`` (with ``grn``) or
    ``ConvNextModel``.

    Args:
      network: a ConvNeXt.
      params: its params.
      state: its state, which is empty.

    Raises:
      ValueError: normalised tokens together with ``grn``, with another stem than 4 pixels or without ``layer_scale``.
    """
    del state
    config, arrays = network.config, convnext_to_torch(params)
    grn = config["grn"]
    if config["norm_tokens"]:
        require(not grn, "encoder.grn", True, "False, as DINOv3ConvNextModel has it")
        require(
            config["stem_patch"] == 4,
            "encoder.stem_patch",
            config["stem_patch"],
            "4, as DINOv3ConvNextModel has it",
        )
        require(
            config["layer_scale"] is not None,
            "encoder.layer_scale",
            None,
            "a number, as DINOv3ConvNextModel has it",
        )
        return translate_back(arrays, NAMES_DINOV3).arrays
    allowed = "None with grn, as ConvNextV2Model has it"
    require(not grn or config["layer_scale"] is None, "encoder.layer_scale", config["layer_scale"], allowed)
    vectors = {name: a.reshape(1, 1, 1, -1) for name, a in arrays.items() if ".mlp.grn." in name}
    return translate_back({**arrays, **vectors}, NAMES_TRANSFORMERS).arrays


FAMILIES = (
    Family("timm ConvNeXt", NAMES_TIMM, ("stem.0.weight", f"{BLOCK}.conv_dw.weight"), convert_timm),
    Family(
        "Meta ConvNeXt",
        NAMES_META,
        ("downsample_layers.0.0.weight", "stages.{i}.{j}.dwconv.weight"),
        convert_meta,
    ),
    Family("transformers DINOv3ConvNext", NAMES_DINOV3, ("layer_norm.weight",), convert_dinov3),
    Family(
        "transformers ConvNext",
        NAMES_TRANSFORMERS,
        ("embeddings.patch_embeddings.weight", "encoder.stages.{i}.layers.{j}.dwconv.weight"),
        convert_transformers,
    ),
)
