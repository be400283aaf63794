"""Autoencoder. No recipe of the papers is for these images and encoders; they trained perceptrons on MNIST."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base

WHOLE = {"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "bilinear"}
"""The whole image, mirrored or not."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``fashion_mnist,mlp,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("autoencoder", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: 512 features of 784 pixels by ``convnet``, 256 by ``mlp``."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 60, "paper": 400}.get(budget, 1),
        warmup_epochs=3,
        method={"decoder_channels": 8},
        views=WHOLE,
        optimizer={**base.GRAY_OPTIMIZER, "learning_rate": 2e-3},
    )


def colour(budget: str) -> base.Recipe:
    """Colour images: crops, and a wider decoder."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        method={"decoder_channels": 32},
        views={"preset": "mae", "interpolation": "bilinear"},
        optimizer={"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4},
    )


RECIPES = {"cifar10": colour, "imagenet": colour, "folder": colour}
