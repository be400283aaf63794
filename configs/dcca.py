"""Deep CCA. Numbers: Andrew et al. 2013 know no views of one image, so recipes are those of the methods that it resembles."""

from ml_collections import ConfigDict

from configs import simclr
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    config = base.make("dcca", choice, RECIPES.get(choice.dataset, gray)(choice.budget))
    if choice.budget == "smoke":
        # Eight images have a covariance of full rank in four dimensions.
        config.method.projection = 4
    return config


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: SimCLR's recipe. Of 16, 32 and 64 dimensions the
    fewest were the best by the online linear probe: from 256 images more correlations are not estimated well."""
    return simclr.gray(budget)._replace(method={"projector_width": 512, "projection": 16})


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's views, the batch, rate and decay of W-MSE's CIFAR-10, eight images a dimension."""
    return simclr.cifar10(budget)._replace(
        method={"projection": 64},
        optimizer={"name": "adam", "learning_rate": 3e-3, "scaling": "none", "weight_decay": 1e-6},
    )


def imagenet(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's, whose batch allows wide projections."""
    return simclr.imagenet(budget)._replace(method={"projector_width": 2048, "projection": 256})


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: SimCLR's recipe."""
    return simclr.folder(budget)._replace(method={"projector_width": 512})


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
