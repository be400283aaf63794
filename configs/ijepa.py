"""I-JEPA. Numbers: Assran et al. 2023, appendix A.1, and facebookresearch/ijepa ``configs/in1k_vith14_ep300.yaml``."""

from ml_collections import ConfigDict

from configs import mae
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, mae.BACKBONES)
    return base.make("ijepa", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


ENCODER = {"pool": "mean", "class_token": False, "position": "sincos", "init": "trunc_normal"}


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: MAE's recipe, a teacher for short runs; kernels of standard deviation 0.02 are too small for this
    width."""
    recipe = mae.gray(budget)
    return recipe._replace(
        method={
            "decay": 0.98,
            "predictor_width": 64,
            "predictor_depth": 1,
            "predictor_heads": 4,
            "least_context": 4,
        },
        encoder={**base.GRAY_VIT, **ENCODER, "init": "xavier"},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear", "flip_prob": 0.0},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with a smaller predictor."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        batch_size=512,
        method={"predictor_width": 96, "predictor_depth": 4},
    )


def imagenet(budget: str) -> base.Recipe:
    """Batch 2048, AdamW 2e-4 to 1e-3 in 40 epochs, on a cosine to 1e-6, decay 0.04 to 0.4, 300 epochs, EMA 0.996 to 1."""
    return base.Recipe(
        batch_size=2048,
        epochs={"short": 100, "paper": 300}.get(budget, 1),
        warmup_epochs=40,
        encoder=ENCODER,
        method={},
        views={"preset": "mae", "area": (0.3, 1.0), "flip_prob": 0.0},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "start_learning_rate": 2e-4,
            "end_learning_rate": 1e-6,
            "scaling": "none",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the gray recipe, smaller crops, a larger ViT."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        encoder=ENCODER,
        method={**recipe.method, "least_context": 10},
        views={"preset": "mae", "area": (0.3, 1.0), "flip_prob": 0.0},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
