"""Pseudo-labels. There is no recipe to follow for rounds at this size: supervised training's, on few labels."""

from ml_collections import ConfigDict

from configs import supervised
from ssl_jax.config import recipe as base

ROUNDS = 6
"""The first with the labelled images alone."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    recipe = RECIPES.get(choice.dataset, gray)(choice.budget)
    config = base.make("pseudo_labels", choice, recipe)
    if choice.budget != "smoke":
        config.refresh_every = max(config.steps // ROUNDS, 1)
    return config


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores, with 100 labels."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 50}.get(budget, 1),
        warmup_epochs=0.5,
        method={"labelled": 100, "threshold": 0.9},
        views={"preset": "mae", "area": (0.3, 1.0), "interpolation": "bilinear"},
        optimizer=base.GRAY_OPTIMIZER,
        refresh_epochs=1,
    )


def cifar10(budget: str) -> base.Recipe:
    """4000 labels, as the papers of the semi-supervised line have; the optimizer of supervised training."""
    return supervised.cifar10(budget)._replace(method={"labelled": 4000}, refresh_epochs=1)


def imagenet(budget: str) -> base.Recipe:
    """One label in a hundred images; the optimizer of supervised training."""
    return supervised.imagenet(budget)._replace(
        method={"classes": 1000, "labelled": 12_811}, refresh_epochs=1
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: crop and flip, the gray recipe's options. Give the number of classes:
    --config.method.classes=N."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "mae", "area": (0.2, 1.0)}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
