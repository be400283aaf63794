"""Barlow Twins. Numbers: Zbontar et al. 2021, facebookresearch/barlowtwins, and solo-learn's CIFAR-10 recipe."""

from ml_collections import ConfigDict

from configs import byol
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("barlow", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: BYOL's recipe, a smaller projector. λ d, which weighs the terms, is 42 at
    the paper's width of 8192; of λ d 1.3, 10 and 38 at width 256, 10 was the best by the online probes."""
    return byol.gray(budget)._replace(
        method={
            "projector_layers": 2,
            "projector_width": 512,
            "projection": 256,
            "redundancy_weight": 0.04,
            "scale": 1 / 256,
        },
    )


def cifar10(budget: str) -> base.Recipe:
    """solo-learn's CIFAR-10: ResNet-18, projector 2048, scale 0.1, no blur, solarize 0 and 0.2.

    Its LARS is another optimizer (clipped, trust coefficient 0.02); here the official rule with its rate.
    """
    return byol.cifar10(budget)._replace(
        method={"projector_width": 2048, "projection": 2048, "scale": 0.1},
        optimizer={"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-4},
    )


def imagenet(budget: str) -> base.Recipe:
    """Official code: ResNet-50, batch 2048, LARS 0.2 x B/256 to a thousandth, weight decay 1e-6, 1000 epochs.

    There biases and normalisation parameters have the rate 0.0048, which is 0.024 of 0.2, and gradients are divided by the 16
    processes. One rate with the loss times 0.024/16 moves them the same; LARS makes the other weights' steps independent of it,
    but for the weight decay.
    """
    return base.Recipe(
        batch_size=2048,
        epochs={"short": 300, "paper": 1000}.get(budget, 1),
        method={"scale": 0.024 / 16},
        views={"preset": "byol"},
        optimizer={
            "name": "lars",
            "learning_rate": 0.2,
            "end_learning_rate": 1e-3 * 0.2 * 2048 / 256,
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return byol.folder(budget)._replace(method=gray(budget).method)


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
