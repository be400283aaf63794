"""MAE. Numbers: He et al. 2021, appendix A.1, and facebookresearch/mae's PRETRAIN.md."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base

ENCODER = {"pool": "mean", "position": "sincos"}
BACKBONES = {
    "embedded": "vit_micro",
    "fashion_mnist": "vit_micro",
    "cifar10": "vit_tiny",
    "imagenet": "vit_base",
    "folder": "vit_micro",
}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("mae", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores; chosen among a few by the online probes on training images."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 60, "paper": 400}.get(budget, 1),
        warmup_epochs=5,
        encoder={**base.GRAY_VIT, **ENCODER},
        # Half of 16 patches, not three quarters: better by the online probes on training images.
        method={"mask_ratio": 0.5, "decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "scaling": "none",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with a smaller decoder, patches of 4 pixels, and more epochs of warm-up."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 1600}.get(budget, 1),
        batch_size=1024,
        method={"decoder_width": 192, "decoder_depth": 4, "decoder_heads": 3},
    )


def imagenet(budget: str) -> base.Recipe:
    """Appendix A.1: ViT-B/16, batch 4096, AdamW 1.5e-4 x B/256, (β₁, β₂) = (.9, .95), decay 0.05 on every tensor of 2 or more
    axes (tokens included), 40 epochs of warm-up, 800 epochs."""
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 800}.get(budget, 1),
        warmup_epochs=40,
        encoder={"position": "sincos"},
        method={},
        views={"preset": "mae"},
        optimizer={"name": "adamw", "learning_rate": 1.5e-4, "weight_decay": 0.05, "b2": 0.95},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views and mask ratio, the gray recipe's optimizer, a larger ViT."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        encoder=ENCODER,
        views={"preset": "mae"},
        method={**recipe.method, "mask_ratio": 0.75},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
