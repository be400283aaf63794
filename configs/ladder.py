"""Ladder network. Numbers: Rasmus et al. 2015 and CuriousAI/ladder, README.md."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base

BACKBONES = dict.fromkeys(base.CONVOLUTIONAL, "ladder")
PLAIN = {"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "flip_prob": 0.0, "mean": (), "std": ()}
"""The whole image with pixels in [0, 1], which the costs are meant for."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset and budget, such as ``fashion_mnist,short``; default ``embedded,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("ladder", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """MNIST with 100 labels: 1000-500-250-250-250, λ 1000, 10, .1, ..., noise .3, Adam 0.002, 100 + 100 images, 150 epochs of
    the unlabelled ones, the rate falling from two thirds on (here on a cosine)."""
    return base.Recipe(
        batch_size=200,
        epochs={"short": 20, "paper": 300}.get(budget, 1),
        warmup_epochs=0,
        method={},
        views=PLAIN,
        optimizer={"name": "adam", "learning_rate": 0.002, "scaling": "none"},
        num_labels=100,
        labeled_fraction=0.5,
    )


def cifar10(budget: str) -> base.Recipe:
    """4000 labels: the Γ-model with λ 4 on convolutions, Adam 0.002, 100 + 100 images, 70 epochs of the unlabelled ones. The
    network there has nine convolutions and leaky ReLUs, and its images are whitened."""
    return base.Recipe(
        batch_size=200,
        epochs={"short": 40, "paper": 140}.get(budget, 1),
        warmup_epochs=0,
        encoder={"channels": (96, 192, 192), "widths": ()},
        method={"model": "gamma", "costs": (4.0,)},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "flip_prob": 0.0},
        optimizer={"name": "adam", "learning_rate": 0.002, "scaling": "none"},
        num_labels=4000,
        labeled_fraction=0.5,
    )


def imagenet(budget: str) -> base.Recipe:
    """No reference recipe: the Γ-model of CIFAR-10 on more convolutions, crops, a tenth of the labels."""
    return cifar10(budget)._replace(
        epochs={"short": 30, "paper": 90}.get(budget, 1),
        encoder={"channels": (64, 128, 256, 512, 512), "widths": (), "classes": 1000},
        views={"preset": "mae"},
        num_labels=128_000,
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels, one sub-folder a class: give --config.encoder.classes and --config.data.num_labels."""
    return cifar10(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "mae"}, num_labels=100
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
