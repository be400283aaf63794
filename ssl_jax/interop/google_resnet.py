"""ResNets of DeepMind's BYOL (Haiku) and Google's SimCLR (TensorFlow), as ``.npz`` files of their arrays.

The checkpoints themselves are a pickle and files of TensorFlow, which are not read here: docs/guides/convert.md has the lines
that write their arrays to a ``.npz``.
"""

from collections.abc import Iterator

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from ssl_jax.interop.resnet import options
from ssl_jax.models.build import build
from ssl_jax.models.torch_names import resnet_from_torch

TORSO = "res_net{n}.~."
GROUPS, CONVS = range(4), range(3)
CONVOLUTION = {"w": "weight"}
NORM = {
    "scale": "weight",
    "offset": "bias",
    "~.mean_ema.average": "running_mean",
    "~.var_ema.average": "running_var",
}
"""Arrays of Haiku's modules, and those of torch's."""
HAIKU_HEADS = ("projector", "predictor", "classifier", f"{TORSO}logits")
MOVING = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
"""Arrays of a batch normalisation of TensorFlow, and those of torch's."""


def _haiku_names() -> Names:
    modules = [("initial_conv", "conv1", CONVOLUTION), ("initial_batchnorm", "bn1", NORM)]
    for group in GROUPS:
        theirs, ours = f"block_group_{group}.~.block_{{i}}.~.", f"layer{group + 1}.{{i}}."
        modules += [(f"{theirs}conv_{k}", f"{ours}conv{k + 1}", CONVOLUTION) for k in CONVS]
        modules += [(f"{theirs}batchnorm_{k}", f"{ours}bn{k + 1}", NORM) for k in CONVS]
        modules += [(f"{theirs}shortcut_conv", f"{ours}downsample.0", CONVOLUTION)]
        modules += [(f"{theirs}shortcut_batchnorm", f"{ours}downsample.1", NORM)]
    pairs = [
        (f"{TORSO}{theirs}.{a}", f"{ours}.{b}") for theirs, ours, leaves in modules for a, b in leaves.items()
    ]
    averages = [
        f"{TORSO}{theirs}.~.{which}_ema.{leaf}"
        for theirs, _, leaves in modules
        if leaves is NORM
        for which in ("mean", "var")
        for leaf in ("hidden", "counter")
    ]
    return Names(tuple(pairs), left_out=(*HAIKU_HEADS, *averages))


HAIKU = _haiku_names()
SIMCLR = Names(
    pairs=(
        ("base_model.conv2d.kernel", "convolutions.0.weight"),
        ("base_model.conv2d_{i}.kernel", "convolutions.{i}.weight"),
        *((f"base_model.batch_normalization.{a}", f"norms.0.{b}") for a, b in MOVING.items()),
        *((f"base_model.batch_normalization_{{i}}.{a}", f"norms.{{i}}.{b}") for a, b in MOVING.items()),
    ),
    left_out=("global_step", "head_contrastive", "head_supervised"),
)


def convert_byol(weights: Weights) -> Converted:
    """Build the ResNet of DeepMind's BYOL, whose strided convolutions and max-pool are padded by ``"same"``."""
    arrays = _to_torch(translate(weights.arrays, HAIKU).arrays)
    preprocessing = Preprocessing((224, 224), "short", 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
    return _convert(weights, arrays, preprocessing, padding="same")


def convert_simclr(weights: Weights) -> Converted:
    """Build the ResNet of Google's SimCLR, whose max-pool is padded by ``"same"``; images are in [0, 1].

    TensorFlow numbers layers in the order in which they were made: the stem, then block by block, the shortcut's convolution
    first.

    Raises:
      ValueError: a file whose number of convolutions is that of no ResNet with bottlenecks.
    """
    numbered = translate(weights.arrays, SIMCLR).arrays
    count = sum(name.startswith("convolutions.") for name in numbered)
    arrays = _to_torch(
        {
            f"{module}.{leaf}": numbered[f"{kind}.{number}.{leaf}"]
            for number, modules in enumerate(_in_order(count))
            for kind, module in zip(("convolutions", "norms"), modules, strict=True)
            for leaf in (("weight",) if kind == "convolutions" else MOVING.values())
        }
    )
    preprocessing = Preprocessing((224, 224), "short", 0.875, "bicubic", (0.0,) * 3, (1.0,) * 3)
    return _convert(weights, arrays, preprocessing, padding="same_pool")


def _in_order(count: int) -> Iterator[tuple[str, str]]:
    """List convolution and normalisation of torchvision's in the order of SimCLR's code, for a number of convolutions."""
    depths = {53: (3, 4, 6, 3), 104: (3, 4, 23, 3), 155: (3, 8, 36, 3)}
    allowed = ", ".join(f"{number}" for number in depths) + ", those of ResNet-50, 101 and 152"
    require(count in depths, "convolutions", count, allowed)
    yield "conv1", "bn1"
    for stage, blocks in enumerate(depths[count]):
        for block in range(blocks):
            layer = f"layer{stage + 1}.{block}."
            if block == 0:
                yield f"{layer}downsample.0", f"{layer}downsample.1"
            yield from ((f"{layer}conv{k + 1}", f"{layer}bn{k + 1}") for k in CONVS)


def _to_torch(arrays: Arrays) -> dict[str, np.ndarray]:
    """Bring kernels ``[h, w, c, d]`` into torch's layout, and statistics ``[1, 1, 1, d]`` to ``[d]``."""
    is_convolution = {name: "conv" in name or "downsample.0" in name for name in arrays}
    return {
        name: array.transpose(3, 2, 0, 1) if is_convolution[name] else array.reshape(-1)
        for name, array in arrays.items()
    }


def _convert(
    weights: Weights, arrays: dict[str, np.ndarray], preprocessing: Preprocessing, *, padding: str
) -> Converted:
    given = weights.metadata.get("architecture", {})
    network = build(**{**options(arrays), "padding": padding, **given})
    return Converted(network, *resnet_from_torch(arrays, network), preprocessing)


FAMILIES = (
    Family(
        "ResNet of DeepMind's BYOL",
        HAIKU,
        (f"{TORSO}initial_conv.w", f"{TORSO}initial_batchnorm.~.mean_ema.average"),
        convert_byol,
    ),
    Family(
        "ResNet of Google's SimCLR",
        SIMCLR,
        ("base_model.conv2d.kernel", "base_model.batch_normalization_{i}.moving_mean"),
        convert_simclr,
    ),
)
