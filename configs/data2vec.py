"""data2vec. Numbers: Baevski et al. 2022, section 4, and facebookresearch/data2vec_vision ``beit/README.md``."""

from ml_collections import ConfigDict

from configs import beit, mae
from ssl_jax.config import recipe as base

ENCODER = {**beit.ENCODER, "position": "sincos"}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, mae.BACKBONES)
    return base.make("data2vec", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: MAE's recipe, BEiT's start, two of its three blocks as targets, a teacher for short runs."""
    recipe = mae.gray(budget)
    return recipe._replace(
        method={"layers": 2, "decay": 0.99},
        encoder={**beit.GRAY_ENCODER, "position": "sincos"},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one, with a faster teacher."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1), batch_size=512, method={"decay": 0.998}
    )


def imagenet(budget: str) -> base.Recipe:
    """ViT-B/16: BEiT's recipe with AdamW 2e-3, drop path 0.25, LayerScale 1e-4."""
    recipe = beit.imagenet(budget)
    return recipe._replace(
        encoder={**recipe.encoder, "layer_scale": 1e-4, "drop_path": 0.25},
        optimizer={**recipe.optimizer, "learning_rate": 2e-3},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the gray recipe, smaller crops, a larger ViT."""
    return gray(budget)._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        encoder=ENCODER,
        views={"preset": "mae", "area": (0.2, 1.0)},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
