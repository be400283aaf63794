"""Pairwise contrastive loss. There is no published recipe for views of one image: SimCLR's optimizer and views."""

from ml_collections import ConfigDict

from configs.common import base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("pairwise", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, about two minutes on two CPU cores; the margin chosen by the online probes on training images."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"margin": 1.4, "reduction": "nonzero", "projector_width": 512},
        views={"preset": "simclr", **base.GRAY_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's for CIFAR-10 (README of google-research/simclr)."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        method={},
        views={"preset": "simclr", "strength": 0.5, "blur": 0.0},
        optimizer={
            "name": "lars",
            "learning_rate": 1.0,
            "weight_decay": 1e-4,
            "learning_rate_in_buffer": True,
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's for ImageNet (paper, sections 2 and 4)."""
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 1000}.get(budget, 1),
        method={},
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
