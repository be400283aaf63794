"""BYOL. Numbers: Grill et al. 2020, deepmind-research/byol, and solo-learn's CIFAR-10 recipe."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("byol", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores; chosen among a few by the online probes on training images."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"decay": 0.99, "hidden_dim": 512, "projection": 128},
        views={"preset": "byol", **base.GRAY_ASYMMETRIC_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """solo-learn's CIFAR-10: heads 4096 to 256, decay 0.99 to 1, weight decay 1e-5, no blur, solarize 0 and 0.2.

    Its LARS is another optimizer (clipped, trust coefficient 0.02); here the official rule with base rate 1.0.
    """
    return base.Recipe(
        batch_size=256,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        method={"decay": 0.99},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={"name": "lars", "learning_rate": 1.0, "weight_decay": 1e-5},
    )


def imagenet(budget: str) -> base.Recipe:
    """Paper, section 3.3 and the code's presets: (base rate, weight decay, m₀) are (.45, 1e-6, .99) for 100 epochs and (.2,
    1.5e-6, .996) for 1000."""
    rate, decay, momentum = {"short": (0.45, 1e-6, 0.99)}.get(budget, (0.2, 1.5e-6, 0.996))
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 1000}.get(budget, 1),
        method={"decay": momentum},
        views={"preset": "byol", "jitter": {"additive_brightness": True}},
        optimizer={"name": "lars", "learning_rate": rate, "weight_decay": decay},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "byol"})


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
