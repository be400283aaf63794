"""BEiT. Numbers: Bao et al. 2021, section 3 and appendix, and microsoft/unilm ``beit/README.md``."""

from typing import Any

from ml_collections import ConfigDict

from configs import mae
from ssl_jax.config import recipe as base

GRAY_ENCODER: dict[str, Any] = {**base.GRAY_VIT, "pool": "mean", "init": "xavier", "mask_token": True}
"""Without LayerScale, and with a start for this width: blocks would begin next to nothing."""
ENCODER = {
    "pool": "mean",
    "position": "relative",
    "layer_scale": 0.1,
    "init": "beit",
    "mask_token": True,
}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``.

    ``--config.method.tokenizer=exported/encoder.safetensors`` chooses the tokenizer; without it its weights are random.
    """
    choice = base.parse(arg, mae.BACKBONES)
    return base.make("beit", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: MAE's recipe, BEiT's positions and mask."""
    recipe = mae.gray(budget)
    return recipe._replace(
        method={"vocabulary_size": 256},
        encoder={**GRAY_ENCODER, "position": "relative"},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1), batch_size=512, method={"vocabulary_size": 1024}
    )


def imagenet(budget: str) -> base.Recipe:
    """ViT-B/16: batch 2048, AdamW 1.5e-3 at that batch, decay 0.05, clip 3, 10 epochs of warm-up, 800 epochs, drop path 0.1."""
    return base.Recipe(
        batch_size=2048,
        epochs={"short": 100, "paper": 800}.get(budget, 1),
        encoder={**ENCODER, "drop_path": 0.1},
        method={},
        views={
            "preset": "npid",
            "area": (0.08, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.0},
            "grayscale_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "end_learning_rate": 1e-5,
            "reference_batch": 2048,
            "weight_decay": 0.05,
            "clip_norm": 3.0,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the gray recipe, smaller crops, a larger ViT."""
    return gray(budget)._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        encoder=ENCODER,
        method={"vocabulary_size": 1024},
        views={"preset": "mae", "area": (0.2, 1.0)},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
