"""SimMIM. Numbers: Xie et al. 2021, section 4.1, and microsoft/SimMIM ``configs/vit_base__800ep``."""

from ml_collections import ConfigDict

from configs import mae
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, mae.BACKBONES)
    return base.make("simmim", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: MAE's recipe, half of the 16 patches masked one by one."""
    recipe = mae.gray(budget)
    return recipe._replace(
        method={"mask_ratio": 0.5, "unit": 1}, encoder={**recipe.encoder, "mask_token": True}
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one; squares of 8 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1), batch_size=512, warmup_epochs=10
    )


def imagenet(budget: str) -> base.Recipe:
    """ViT-B/16: batch 2048, AdamW 1e-4 x B/512, decay 0.05, clip 5, 10 epochs of warm-up, 800 epochs, drop path 0.1, squares of
    32 pixels, 60 % masked."""
    return base.Recipe(
        batch_size=2048,
        epochs={"short": 100, "paper": 800}.get(budget, 1),
        encoder={
            "pool": "mean",
            "position": "relative",
            "mask_token": True,
            "drop_path": 0.1,
            "layer_scale": 0.1,
        },
        method={},
        views={"preset": "mae", "area": (0.67, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-4,
            "reference_batch": 512,
            "weight_decay": 0.05,
            "clip_norm": 5.0,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views and mask, the gray recipe's optimizer, a larger ViT."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        encoder={**mae.ENCODER, "mask_token": True},
        views={"preset": "mae", "area": (0.67, 1.0)},
        method={"unit": 2},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
