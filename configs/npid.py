"""NPID. Numbers: Wu et al. 2018 and vissl's configuration ``pretrain/npid``."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base
from ssl_jax.config.datasets import DATASETS


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    recipe = RECIPES.get(choice.dataset, gray)(choice.budget)
    if choice.dataset == "fashion_mnist" and choice.budget == "short":
        # Of three passes one fills the memory.
        recipe = recipe._replace(freeze_epochs=((".", recipe.epochs / 3),))
    return base.make("npid", choice, recipe)


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, five minutes on two CPU cores. An image meets its memory once an epoch: ten epochs are too few."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 30, "paper": 200}.get(budget, 1),
        warmup_epochs=5,
        # With nce and its constant Z, queries and memory chase each other here: an epoch has 39 steps, and the loss rises.
        method={"loss": "cross_entropy", "temperature": 0.1, "negatives": 1024},
        views={"preset": "npid", **base.GRAY_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
        # The memory starts random. Learning from it collapses the features: it is filled before the network moves.
        freeze_epochs=((".", 2),),
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe was read: the ImageNet one, with 4096 negatives of the 50,000 images."""
    return imagenet(budget)._replace(optimizer=_sgd("cifar10", budget))


def imagenet(budget: str) -> base.Recipe:
    """vissl: ResNet-50, batch 256, SGD 0.03, decay 1e-4, rate times 0.1 at 120 and 160 of 200 epochs, τ 0.07, K 4096, m 0.5."""
    return base.Recipe(
        batch_size=256,
        epochs=EPOCHS.get(budget, 1),
        warmup_epochs=0,
        method={},
        views={"preset": "npid"},
        optimizer=_sgd("imagenet", budget),
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "npid"})


def _sgd(dataset: str, budget: str) -> dict:
    """The drops are counted in steps from the start of the run: they do not follow when --config.steps changes."""
    steps = EPOCHS.get(budget, 1) * (DATASETS[dataset].examples // 256)
    return {
        "name": "sgd",
        "learning_rate": 0.03,
        "weight_decay": 1e-4,
        "schedule": "step",
        "boundaries": (steps * 3 // 5, steps * 4 // 5),
    }


EPOCHS = {"short": 100, "paper": 200}
RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
