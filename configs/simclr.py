"""SimCLR. Numbers: Chen et al. 2020, and google-research/simclr's README for CIFAR-10."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("simclr", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, about two minutes on two CPU cores; chosen among a few by the online probes on training images."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"temperature": 0.2, "projector_width": 512},
        views={"preset": "simclr", **base.GRAY_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """README of google-research/simclr: ResNet-18, batch 512, LARS 1.0 x B/256, τ 0.5, strength 0.5, no blur."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        method={"temperature": 0.5},
        views={"preset": "simclr", "strength": 0.5, "blur_prob": 0.0},
        optimizer={
            "name": "lars",
            "learning_rate": 1.0,
            "weight_decay": 1e-4,
            "learning_rate_in_buffer": True,
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """Paper, sections 2 and 4: ResNet-50, batch 4096, LARS 0.3 x B/256, weight decay 1e-6, τ 0.1."""
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 1000}.get(budget, 1),
        method={"temperature": 0.1},
        views={"preset": "simclr"},
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "weight_decay": 1e-6,
            "learning_rate_in_buffer": True,
        },
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "simclr", "strength": 0.5}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
