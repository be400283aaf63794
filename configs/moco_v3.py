"""MoCo v3. Numbers: Chen, Xie & He 2021, facebookresearch/moco-v3's CONFIG.md, and solo-learn's CIFAR-10 recipe."""

from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base

BACKBONES = {
    "embedded": "vit_micro",
    "fashion_mnist": "vit_micro",
    "cifar10": "resnet18",
    "imagenet": "vit_small",
    "folder": "vit_micro",
}
VIT = {"freeze_patch": True, "init": "xavier_split", "position": "sincos"}
"""Section 4: a ViT whose random patch projection stays; of ResNets these are no options."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``imagenet,resnet50,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, BACKBONES)
    recipe = RECIPES.get(choice.dataset, gray)(choice.budget)
    if choice.dataset == "imagenet" and not choice.backbone.startswith("vit"):
        recipe = imagenet_resnet(choice.budget)
    if choice.backbone == "vit_small":
        recipe = recipe._replace(encoder={**recipe.encoder, "heads": 12})  # CONFIG.md: not 6
    return base.make("moco_v3", choice, recipe)


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: a ViT of 16 patches with the frozen projection, and many
    small steps, as ViTs are slow to start."""
    return base.Recipe(
        batch_size=64,
        epochs={"short": 30, "paper": 400}.get(budget, 1),
        warmup_epochs=3,
        encoder={**VIT, **base.GRAY_VIT, "pool": "mean"},
        method={"temperature": 0.2, "hidden_dim": 512, "projection": 128},
        views={"preset": "byol", **base.GRAY_ASYMMETRIC_VIEWS},
        optimizer={"name": "adamw", "learning_rate": 1e-3, "scaling": "none", "weight_decay": 0.05},
    )


def cifar10(budget: str) -> base.Recipe:
    """solo-learn's CIFAR-10 with a ResNet-18: batch 256, τ 0.2, LARS 0.3, decay 1e-6, no blur, solarize 0 and 0.2.

    Its LARS is another optimizer (clipped, trust coefficient 0.02); here the official rule with the same rate.
    """
    return base.Recipe(
        batch_size=256,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        encoder=VIT,
        method={"temperature": 0.2},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-6},
    )


def imagenet(budget: str) -> base.Recipe:
    """CONFIG.md, ViT-S/16 with 12 heads: batch 4096, AdamW 1.5e-4 x B/256, decay 0.1 on everything, warm-up 40 of 300 epochs,
    τ 0.2, m from 0.99 to 1. ViT-B/16 is the same but for its size."""
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 300}.get(budget, 1),
        warmup_epochs=40,
        encoder=VIT,
        method={"temperature": 0.2},
        views={"preset": "byol"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "weight_decay": 0.1,
            "exclude": "none",
        },
    )


def imagenet_resnet(budget: str) -> base.Recipe:
    """CONFIG.md, ResNet-50: batch 4096, LARS, τ 1, crops from 0.2 of the area; (base rate, decay, m₀) are (.6, 1e-6, .99) for
    100 epochs and (.3, 1.5e-6, .996) for 1000."""
    rate, weight_decay, momentum = {"short": (0.6, 1e-6, 0.99)}.get(budget, (0.3, 1.5e-6, 0.996))
    options: dict[str, Any] = {"name": "lars", "learning_rate": rate, "weight_decay": weight_decay}
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 1000}.get(budget, 1),
        encoder={"zero_init_residual": True},
        method={"temperature": 1.0, "decay": momentum},
        views={"preset": "byol", "area": (0.2, 1.0)},
        optimizer=options,
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(epochs={"short": 50, "paper": 400}.get(budget, 1), views={"preset": "byol"})


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
