"""Deep belief network. Numbers: Hinton, A Practical Guide to Training Restricted Boltzmann Machines (2010)."""

from ml_collections import ConfigDict

from configs import autoencoder
from configs.greedy import BACKBONES, LAYERS
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset and budget, such as ``fashion_mnist,short``; default ``embedded,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("dbn", choice, recipe(choice.dataset, choice.budget))


def recipe(dataset: str, budget: str) -> base.Recipe:
    """Two layers of 500 sigmoid units as on MNIST in Hinton et al. 2006, for all datasets, large images at 64 pixels; SGD
    with momentum and a weight decay, at a constant rate. Pixels are probabilities: they are not normalised."""
    large = {"size": 64, "area": (0.2, 1.0)} if dataset == "imagenet" else {}
    return base.Recipe(
        batch_size=128,
        epochs={"short": 60, "paper": 400}.get(budget, 1),
        warmup_epochs=1,
        encoder={"widths": (500, 500), "activation": "sigmoid"},
        method={},
        views={**autoencoder.WHOLE, "mean": (0.0,), "std": (1.0,), **large},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "momentum": 0.9,
            "weight_decay": 2e-4,
            "skip_zero_grads": LAYERS,
        },
    )
