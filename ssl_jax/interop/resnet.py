"""ResNets in the names of torchvision and timm, which the self-supervised checkpoints of Meta share, with their heads."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_jax.core.check import require
from ssl_jax.core.types import Params, State
from ssl_jax.interop.family import Converted, Family, Weights, timm_architecture
from ssl_jax.interop.heads import Head, dino_heads_from_torch, mlp_from_torch
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.preprocessing import preprocessing_of
from ssl_jax.models.build import build
from ssl_jax.models.network import Network
from ssl_jax.models.resnet import BOTTLENECKS, STAGES
from ssl_jax.models.torch_names import resnet_from_torch, resnet_to_torch
from ssl_jax.ops.queue import Queue

LAYER = "layer{i}.{j}"
BLOCK = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
NAMES = Names(
    pairs=tuple((name, name) for name in ("conv1", "bn1", *(f"{LAYER}.{part}" for part in BLOCK))),
    left_out=(
        *("fc", "predictor", "projection_head", "prototypes", "projector", "bn", "lambd", "head", "neck"),
        *("queue", "queue_ptr"),
        f"{LAYER}.downsample.2",  # of timm's variants that pool in the shortcut, which are refused
    ),
)
NAMES_TRANSFORMERS = Names(
    (
        ("embedder.embedder.convolution", "conv1"),
        ("embedder.embedder.normalization", "bn1"),
        *(
            (f"encoder.stages.{stage}.layers.{{i}}.{theirs}", f"layer{stage + 1}.{{i}}.{ours}")
            for stage in range(4)
            for theirs, ours in (
                ("shortcut.convolution", "downsample.0"),
                ("shortcut.normalization", "downsample.1"),
                *((f"layer.{k}.convolution", f"conv{k + 1}") for k in range(3)),
                *((f"layer.{k}.normalization", f"bn{k + 1}") for k in range(3)),
            )
        ),
    ),
    left_out=("classifier",),
)
"""Names of transformers' ResNetModel."""
OTHER_POOLING = re.compile("resnet(aa|blur)")
"""Architectures of timm with the arrays of others and another arithmetic."""
PLAIN = {"in_chans": None, "num_classes": None, "global_pool": "avg", "output_stride": 32}
"""Arguments of timm's ResNets that leave them what they are, and the value that does; ``None``: any."""
WITH_PROJECTOR = ("encoder_q", "encoder_k", "base_encoder", "momentum_encoder", "encoder")
"""Parts of training checkpoints in which ``fc`` is a projector, not a classifier: of MoCo and SimSiam."""


def convert(weights: Weights) -> Converted:
    """Build the ResNet of a file, with the heads that lie beside it.

    Raises:
      ValueError: a ResNet of another kind: three convolutions in the stem, groups, wider bottlenecks; says which.
    """
    architecture, arguments = timm_architecture(weights)
    plain = not OTHER_POOLING.match(architecture)
    require(
        plain,
        "architecture",
        architecture,
        "one without blurred or averaged strides, which are not built here",
    )
    changed = {name: value for name, value in arguments.items() if PLAIN.get(name, "") not in (None, value)}
    require(not changed, "model_args", changed, f"{', '.join(PLAIN)}: other ResNets are not built here")
    arrays = translate(weights.arrays, NAMES).arrays
    network = build(**{**options({**weights.arrays, **arrays}), **weights.metadata.get("architecture", {})})
    params, state = resnet_from_torch(arrays, network)
    channels = arrays["conv1.weight"].shape[1]
    preprocessing = preprocessing_of(weights.metadata, family="resnet", channels=channels)
    heads = read_heads(weights.arrays, str(weights.provenance.get("part", "")))
    return Converted(network, params, state, preprocessing, heads)


def convert_transformers(weights: Weights) -> Converted:
    """Build the ResNet of a ResNetModel of transformers, which has the stride of a bottleneck on its 3 x 3 convolution.

    Raises:
      ValueError: another activation, the stride on the first convolution, or a first stage that halves the map; as of
        :func:`convert`.
    """
    config = weights.metadata.get("config", {})
    activation = config.get("hidden_act", "relu")
    require(activation == "relu", "hidden_act", activation, "'relu', the activation of a ResNet")
    for option in ("downsample_in_bottleneck", "downsample_in_first_stage"):
        require(not config.get(option), option, config.get(option), "False: other ResNets are not built here")
    return convert(weights._replace(arrays=translate(weights.arrays, NAMES_TRANSFORMERS).arrays))


def options(arrays: Arrays) -> dict[str, Any]:
    """List the options of the ResNet whose arrays these are.

    Args:
      arrays: by torchvision's names.

    Raises:
      ValueError: a ResNet of another kind.

    >>> options({"conv1.weight": np.zeros((64, 3, 7, 7))})
    Traceback (most recent call last):
    ...
    ValueError: blocks=(0, 0, 0, 0): allowed is (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), as ResNets have them
    """
    deep = any(name.startswith("conv1.") and name.split(".")[1].isdigit() for name in arrays)
    require(
        not deep, "stem", "three convolutions", "one convolution: resnet50d and its like are not built here"
    )
    stem = arrays["conv1.weight"].shape
    sizes = {7: "imagenet", 3: "small"}
    require(stem[2] in sizes, "conv1.weight", stem, "a convolution of 7 x 7, or of 3 x 3 without pooling")
    counts = tuple(
        len({name.split(".")[1] for name in arrays if name.startswith(f"layer{i}.")}) for i in range(1, 5)
    )
    bottleneck = "layer1.0.conv3.weight" in arrays
    kinds = {name: depths for name, depths in STAGES.items() if (name in BOTTLENECKS) == bottleneck}
    name = next((name for name, depths in kinds.items() if depths == counts), None)
    allowed = ", ".join(str(depths) for depths in dict.fromkeys(STAGES.values()))
    require(name is not None, "blocks", counts, f"{allowed}, as ResNets have them")
    width = stem[0] / 64
    first = arrays["layer1.0.conv2.weight"].shape
    allowed = f"{(stem[0], stem[0], 3, 3)}: groups (ResNeXt) and wider bottlenecks (wide_resnet50_2) are not built here"
    require(first[:2] == (stem[0], stem[0]), "layer1.0.conv2.weight", first, allowed)
    return {"name": name, "stem": sizes[stem[2]], "width": width}


def read_heads(arrays: Arrays, part: str) -> Mapping[str, Head]:
    """Read the heads beside a ResNet as variables of our methods' heads.

    | checkpoint | heads |
    |---|---|
    | MoCo v1, v2 | ``projector``; ``queue`` |
    | MoCo v3, SimSiam | ``projector``, ``predictor`` |
    | SwAV | ``projector``; ``prototypes``, ``[K, d]`` |
    | DeepCluster-v2 | ``projector``; ``centroids``, ``[clusterings, K, d]`` |
    | Barlow Twins, VICReg | ``projector`` |
    | DINO | ``head`` |

    Our projectors of SimSiam and VICReg have no bias in front of a BatchNorm, which cancels it: there it is subtracted from the
    running mean.

    Args:
      arrays: a checkpoint's.
      part: which one it is of, ``""`` where there was nothing to choose: it tells a projector ``fc`` from a classifier.

    Returns:
      ``(params, state)`` by name.
    """
    heads: dict[str, Any] = dict(dino_heads_from_torch(arrays))
    if part in WITH_PROJECTOR or "fc.0.weight" in arrays:
        # SimSiam's last layer has a bias which its training holds still.
        heads["projector"] = _without_bias(mlp_from_torch(arrays, "fc"))
    for theirs, ours in (("projection_head", "projector"), ("predictor", "predictor")):
        heads.setdefault(ours, mlp_from_torch(arrays, theirs))
    if heads["projector"] is None:
        heads["projector"] = _without_bias(mlp_from_torch(arrays, "projector"))
    if "queue" in arrays and arrays["queue"].ndim == 2:
        pointer = np.asarray(arrays.get("queue_ptr", 0), np.int32).reshape(-1)[0]
        heads["queue"] = ({}, Queue(jnp.asarray(arrays["queue"].T), jnp.asarray(pointer)))
    if "prototypes.weight" in arrays:
        heads["prototypes"] = (arrays["prototypes.weight"], {})
    if "prototypes.prototypes0.weight" in arrays:
        count = sum(name.startswith("prototypes.prototypes") for name in arrays)
        rows = [arrays[f"prototypes.prototypes{i}.weight"] for i in range(count)]
        same = len({array.shape for array in rows}) == 1
        heads["centroids"] = ({}, np.stack(rows)) if same else None
    return {name: head for name, head in heads.items() if head is not None}


def _without_bias(head: Head | None) -> Head | None:
    """Move the bias of each layer that a BatchNorm follows into its running mean."""
    if head is None or "batch_stats" not in head[1]:
        return head
    params, statistics = dict(head[0]), dict(head[1]["batch_stats"])
    for name, values in statistics.items():
        layer = dict(params[name.replace("norm", "dense")])
        bias = layer.pop("bias", 0.0)
        params[name.replace("norm", "dense")] = layer
        statistics[name] = {**values, "mean": values["mean"] - bias}
    return params, {"batch_stats": statistics}


def to_torchvision(network: Network, params: Params, state: State) -> dict[str, np.ndarray]:
    """Write a ResNet in torchvision's names, without classifier, ``num_batches_tracked`` included.

    Args:
      network: a ResNet with BatchNorm; with the small stem ``conv1`` is 3 x 3, and there is no pooling.
      params: its params.
      state: its state.

    Raises:
      ValueError: a network without batch statistics, or one that sees edges (``sobel``), which torchvision's do not.

    >>> import jax, jax.numpy as jnp
    >>> network = build("resnet18", width=1 / 16)
    >>> arrays = to_torchvision(network, *network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    >>> arrays["conv1.weight"].shape, int(arrays["layer4.1.bn2.num_batches_tracked"])
    ((4, 3, 7, 7), 0)
    """
    require(
        not network.config["sobel"],
        "encoder.sobel",
        True,
        "False, as torchvision and timm have no such layer",
    )
    arrays = resnet_to_torch(params, state)
    norms = [name.removesuffix("running_var") for name in arrays if name.endswith("running_var")]
    return {**arrays, **{f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}}


to_timm = to_torchvision
"""timm has the same names."""
FAMILIES = (
    Family(
        "ResNet (torchvision, timm)",
        NAMES,
        ("bn1.weight", f"{LAYER}.conv1.weight", f"{LAYER}.bn2.weight"),
        convert,
    ),
    Family(
        "transformers ResNet",
        NAMES_TRANSFORMERS,
        ("embedder.embedder.convolution.weight", "encoder.stages.{i}.layers.{j}.layer.0.convolution"),
        convert_transformers,
    ),
)
