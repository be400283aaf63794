"""BoWNet. Numbers: Gidaris et al. 2020, from memory: there is no official code to check them against."""

import math

from ml_collections import ConfigDict

from configs import obow
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``.

    ``--config.method.teacher=exported/encoder.safetensors`` chooses the teacher; without it the words are a random network's.
    """
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("bownet", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: one crop of the whole size."""
    recipe = obow.gray(budget)
    return recipe._replace(
        method={"vocabulary_size": 256}, views={**recipe.views, "crop_count": 1}, refresh_epochs=math.inf
    )


def cifar10(budget: str) -> base.Recipe:
    """The paper's CIFAR-100: K 2048, words of the last map, CutMix; SGD with a drop as in the reproduction: 0.05, weight decay
    5e-4, batch 128, rate times 0.3 at 120 of 150 epochs, here a cosine."""
    return base.Recipe(
        batch_size=128,
        epochs={"short": 150, "paper": 300}.get(budget, 1),
        warmup_epochs=0,
        method={"vocabulary_size": 2048, "cutmix": True},
        views={
            "preset": "obow",
            "crop_size": 32,
            "local_size": 16,
            "crop_count": 1,
            "local_count": 0,
            "crop_area": (0.08, 1.0),
            "blur_prob": 0.0,
        },
        optimizer={"name": "sgd", "learning_rate": 0.05, "scaling": "none", "weight_decay": 5e-4},
        refresh_epochs=math.inf,
    )


def imagenet(budget: str) -> base.Recipe:
    """K 8192 of the last map but one, conv4, 200 epochs. The rate is OBoW's, on a cosine; there it drops in steps."""
    recipe = obow.imagenet(budget)
    return recipe._replace(
        method={"level": 2},
        views={
            "preset": "obow",
            "crop_size": 224,
            "crop_count": 1,
            "local_count": 0,
            "crop_area": (0.08, 1.0),
            "blur_prob": 0.0,
        },
        refresh_epochs=math.inf,
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        views={**imagenet(budget).views, "crop_size": 64, "local_size": 32},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
