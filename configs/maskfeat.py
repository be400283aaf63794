"""MaskFeat. Numbers: Wei et al. 2021, and mmselfsup's ``maskfeat`` config of ViT-B."""

from ml_collections import ConfigDict

from configs import mae
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, mae.BACKBONES)
    return base.make("maskfeat", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: MAE's recipe, a cell a patch."""
    recipe = mae.gray(budget)
    return recipe._replace(
        method={"cell": 7, "window": 14, "mask_ratio": 0.5},
        encoder={**recipe.encoder, "mask_token": True},
    )


def moving(budget: str) -> base.Recipe:
    """Frames of 40 pixels: the gray recipe, whose cells are patches of 4 pixels here."""
    recipe = gray(budget)
    return recipe._replace(method={**recipe.method, "cell": 4, "window": 8})


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one; a cell of 4 pixels a patch."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        batch_size=512,
        warmup_epochs=10,
        method={"cell": 4, "window": 8},
    )


def imagenet(budget: str) -> base.Recipe:
    """ViT-B/16: batch 2048, AdamW 1.6e-3 at that batch, decay 0.05, clip 0.02, 30 epochs of warm-up, 300 epochs."""
    return base.Recipe(
        batch_size=2048,
        epochs={"short": 100, "paper": 300}.get(budget, 1),
        warmup_epochs=30,
        encoder={"pool": "mean", "mask_token": True},
        method={},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.6e-3,
            "reference_batch": 2048,
            "weight_decay": 0.05,
            "clip_norm": 0.02,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views and mask, cells of a patch, the gray recipe's optimizer, a larger
    ViT."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        encoder={**mae.ENCODER, "mask_token": True},
        views={"preset": "mae", "area": (0.5, 1.0)},
        method={"cell": 4, "window": 8},
    )


RECIPES = {"moving": moving, "cifar10": cifar10, "imagenet": imagenet, "folder": folder}
