"""Datasets: where the images are, their size, and the numbers that belong to them."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset as data.

    Attributes:
      source: for :func:`ssl_jax.data.open.open_source`.
      train: split to pretrain on and to fit probes on.
      test: split that evaluation reports; ``""`` if there is none.
      size: side of the views in pixels.
      num_examples: images in ``train``, from which epochs become steps; ``None``: counted when they are opened.
      mean: of the pixels in [0, 1], one number a channel.
      std: likewise.
      recipe: name of the recipe that it uses where a config has none of its own name; ``""``: none.
      results_epochs: passes over the images in the tables of results, by budget, the same for all methods.
      results_share: share of them for ViTs, whose tables are their own.
    """

    source: str
    train: str
    test: str
    size: int
    num_examples: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: str = ""
    results_epochs: tuple[tuple[str, float], ...] = ()
    results_share: float = 1.0


IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Mean and deviation of the 60,000 training images; computed from the files.
FASHION: dict[str, Any] = {"mean": (0.286,), "std": (0.353,)}

DATASETS = {
    # The 10,000 images that the package carries.
    "embedded": Dataset("embedded", "train", "test", 28, 10_000, **FASHION, recipe="fashion_mnist"),
    # The same in invented colours; mean and deviation computed from them.
    "embedded_color": Dataset(
        "embedded_color", "train", "test", 28, 10_000, mean=(0.227, 0.278, 0.313), std=(0.303, 0.344, 0.410)
    ),
    "fashion_mnist": Dataset(
        "fashion_mnist",
        "train",
        "test",
        28,
        60_000,
        **FASHION,
        results_epochs=(("short", 3), ("paper", 100)),
    ),
    # Clips of the embedded images, 10,000 of 32 frames of 40 pixels; mean and deviation from those of the images.
    "moving": Dataset("frames:moving", "train", "test", 40, 320_000, mean=(0.140,), std=(0.286,)),
    # Normalisation of CIFAR-10 as in MoCo's CIFAR notebook (reference sheet, 0.1).
    "cifar10": Dataset(
        "tfds:cifar10",
        "train",
        "test",
        32,
        50_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    ),
    # The bench of docs/results.md: the same images, on a budget of minutes for two cores.
    "color32": Dataset(
        "tfds:cifar10",
        "train",
        "test",
        32,
        50_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        results_epochs=(("short", 4), ("paper", 200)),
        results_share=0.5,
    ),
    # 60 classes of Tiny-ImageNet: give --config.data.source=parquet:PATH.
    "color64": Dataset(
        "folder:images",
        "train",
        "test",
        64,
        30_000,
        **IMAGENET,
        results_epochs=(("short", 5), ("paper", 200)),
    ),
    "imagenet": Dataset("tfds:imagenet2012", "train", "validation", 224, 1_281_167, **IMAGENET),
    # Your own folder: give --config.data.source=folder:PATH.
    "folder": Dataset("folder:images", "train", "", 64, None, **IMAGENET),
}
