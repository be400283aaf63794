"""Greedy layer-wise pre-training of denoising autoencoders on a perceptron; sizes of the kind of Vincent et al. 2010."""

from ml_collections import ConfigDict

from configs import autoencoder
from ssl_jax.config import recipe as base

BACKBONES = dict.fromkeys(("embedded", "fashion_mnist", "cifar10", "imagenet", "folder"), "mlp")
LAYERS = (r"dense_\d+",)
"""What a stage does not train stands still, layer by layer, that of encoder and decoder together."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset and budget, such as ``fashion_mnist,short``; default ``embedded,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("greedy", choice, recipe(choice.dataset, choice.budget))


def recipe(dataset: str, budget: str) -> base.Recipe:
    """Three sigmoid layers, the same for all datasets, large images at 64 pixels. The learning rate is constant: a cosine would
    leave the last stages without one."""
    large = {"size": 64, "area": (0.2, 1.0)} if dataset == "imagenet" else {}
    return base.Recipe(
        batch_size=256,
        epochs={"short": 60, "paper": 400}.get(budget, 1),
        warmup_epochs=1,
        encoder={"widths": (512, 512, 256), "activation": "sigmoid"},
        method={"corruption": "masking", "level": 0.25, "loss": "cross_entropy", "joint": 0.25},
        views={**autoencoder.WHOLE, **large},
        optimizer={
            **base.GRAY_OPTIMIZER,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "skip_zero_grads": LAYERS,
        },
    )
