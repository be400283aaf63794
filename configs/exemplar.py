"""Exemplar-CNN. Numbers: Dosovitskiy et al. 2014."""

import math

from ml_collections import ConfigDict

from configs import npid
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("exemplar", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: 4000 seeds, so that the softmax costs no more than the encoder."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 100}.get(budget, 1),
        warmup_epochs=1,
        method={"exemplars": 4000},
        views={"preset": "npid", **base.GRAY_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
        refresh_epochs=math.inf,
    )


def cifar10(budget: str) -> base.Recipe:
    """8000 seeds of 32 pixels, as in the paper, with NPID's optimizer and views."""
    return npid.cifar10(budget)._replace(method={"exemplars": 8000}, refresh_epochs=math.inf)


def imagenet(budget: str) -> base.Recipe:
    """No reference recipe: 16,000 seeds, as the paper's largest network has (from memory), with NPID's optimizer and views."""
    return npid.imagenet(budget)._replace(method={"exemplars": 16_000}, refresh_epochs=math.inf)


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: NPID's views, the gray recipe's options."""
    recipe = gray(budget)
    return recipe._replace(epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "npid"})


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
