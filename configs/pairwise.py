"""Pairwise contrastive loss. There is no published recipe for views of one image: SimCLR's optimizer and views."""

from ml_collections import ConfigDict

from configs import simclr
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("pairwise", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, about two minutes on two CPU cores; the margin chosen by the online probes on training images."""
    return simclr.gray(budget)._replace(
        method={"margin": 1.4, "reduction": "nonzero", "projector_width": 512}
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's for CIFAR-10."""
    return simclr.cifar10(budget)._replace(method={})


def imagenet(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's for ImageNet."""
    return simclr.imagenet(budget)._replace(method={})


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: SimCLR's views, the gray recipe's options."""
    return simclr.folder(budget)._replace(method=gray(budget).method)


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
