"""Supervised training: the yardstick for the other methods, with their default encoder, crops and budget.

With ``--config.data.num_labels=100`` it trains on these hundred images alone, the yardstick for semi-supervised methods.
"""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    recipe = RECIPES.get(choice.dataset, gray)(choice.budget)
    return base.make("supervised", choice, recipe._replace(labeled_fraction=1.0))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: the optimizer of the other methods' recipes, one view, milder crops."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"classes": 10},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: SGD 0.1 at batch 256, weight decay 5e-4, half-size crops and flips."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        method={"classes": 10},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={"name": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},
    )


def imagenet(budget: str) -> base.Recipe:
    """Goyal et al. 2017, section 5.1: ResNet-50, SGD 0.1 x B/256, weight decay 1e-4, 90 epochs, 5 of warm-up."""
    return base.Recipe(
        batch_size=1024,
        epochs={"short": 30, "paper": 90}.get(budget, 1),
        warmup_epochs=5,
        method={"classes": 1000},
        views={"preset": "mae", "area": (0.08, 1.0)},
        optimizer={"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4},
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels, one sub-folder a class; give their number as --config.method.classes."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "mae", "area": (0.2, 1.0)}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
