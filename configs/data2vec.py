"""data2vec. Numbers: Baevski et al. 2022, section 4, and facebookresearch/data2vec_vision ``beit/README.md``."""

from ml_collections import ConfigDict

from configs import mae
from configs.common import base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, mae.BACKBONES)
    return base.make("data2vec", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: MAE's recipe, BEiT's encoder, two of its four blocks as targets, a teacher for short runs."""
    recipe = mae.gray(budget)
    return recipe._replace(
        method={"layers": 2, "decay": 0.99},
        encoder={
            "pool": "mean",
            "position": "sincos",
            "layer_scale": 0.1,
            "init": "beit",
            "mask_token": True,
        },
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one, with a faster teacher."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1), batch_size=512, method={"decay": 0.998}
    )


def imagenet(budget: str) -> base.Recipe:
    """ViT-B/16: batch 2048, AdamW 2e-3 at that batch, decay 0.05, clip 3, 10 epochs of warm-up, 800 epochs, drop path 0.25."""
    return base.Recipe(
        batch_size=2048,
        epochs={"short": 100, "paper": 800}.get(budget, 1),
        encoder={
            "pool": "mean",
            "position": "relative",
            "layer_scale": 1e-4,
            "init": "beit",
            "mask_token": True,
            "drop_path": 0.25,
        },
        method={},
        views={
            "preset": "npid",
            "area": (0.08, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.0},
            "gray": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "end_learning_rate": 1e-5,
            "reference_batch": 2048,
            "weight_decay": 0.05,
            "clip_norm": 3.0,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the gray recipe, smaller crops."""
    return gray(budget)._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        views={"preset": "mae", "area": (0.2, 1.0)},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
