"""DirectCLR. Numbers: Jing et al. 2022, and facebookresearch/directclr."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base

# The features outside the sub-vector learn through residual connections, which the small convnet has not.
BACKBONES = {**base.CONVOLUTIONAL, "embedded": "resnet18", "fashion_mnist": "resnet18"}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,resnet18,short``."""
    choice = base.parse(arg, BACKBONES)
    recipe = RECIPES.get(choice.dataset, gray)(choice.budget)
    if choice.data.size == 28 and choice.backbone.startswith("resnet"):
        recipe = recipe._replace(encoder={**recipe.encoder, "stem": "imagenet", "width": 0.25})
    return base.make("directclr", choice, recipe)


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: a ResNet-18 of a quarter of the width, 32 of its 128 features."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        encoder={"zero_init_residual": True},
        method={"temperature": 0.2, "subvector": 32},
        views={"preset": "byol", **base.GRAY_ASYMMETRIC_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's optimizer for CIFAR-10, and the paper's share of the features (360 of 2048)."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        method={"subvector": 90},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={"name": "lars", "learning_rate": 1.0, "weight_decay": 1e-4},
        encoder={"zero_init_residual": True},
    )


def imagenet(budget: str) -> base.Recipe:
    """README and code: ResNet-50, 360 of 2048 features, batch 4096, LARS 4.8 (not scaled), decay 1e-6, τ 0.1, 100 epochs."""
    return base.Recipe(
        batch_size=4096,
        epochs={"smoke": 1}.get(budget, 100),
        method={"subvector": 360},
        views={"preset": "byol"},
        optimizer={
            "name": "lars",
            "learning_rate": 4.8,
            "scaling": "none",
            "end_learning_rate": 4.8e-3,
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer, a ResNet-18 of full width."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        encoder={"zero_init_residual": True},
        method={"subvector": 90},
        views={"preset": "byol"},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
