"""Learning to count. Numbers: Noroozi et al. 2017 from memory, and ahmdtaha/tf_learning_to_count, which comes near them."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("counting", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: tiles of 14 pixels, a third of the other recipes' rate."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"counts": 256, "hidden_dim": 256, "hidden_layers": 1},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={**base.GRAY_OPTIMIZER, "learning_rate": 1e-3},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with a smaller head; tiles of 16 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        method={"hidden_dim": 1024},
        views={"preset": "mae", "area": (0.5, 1.0)},
    )


def imagenet(budget: str) -> base.Recipe:
    """tf_learning_to_count: batch 256, Adam 1e-4, 1000 counts, M 10, crops of 256 pixels and colour jitter, 250 epochs, there
    with AlexNet and without gray images. The paper makes two thirds of them gray (from memory)."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 50, "paper": 250}.get(budget, 1),
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "size": 256, "area": (0.08, 1.0), "grayscale_prob": 0.67},
        optimizer={"name": "adam", "learning_rate": 1e-4, "scaling": "none"},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer; tiles of 32 pixels."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        views={"preset": "mae", "area": (0.2, 1.0), "grayscale_prob": 0.67},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
