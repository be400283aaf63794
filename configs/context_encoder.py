"""Context encoder. Numbers: Pathak et al. 2016 and pathak22/context-encoder ``train.lua``, ``README.md``."""

from ml_collections import ConfigDict

from configs import autoencoder
from ssl_jax.config import recipe as base

ADAM = {"name": "adam", "scaling": "none", "schedule": "constant", "b1": 0.5}
SLOWER = {"discriminator": {"learning_rate": 2e-4}}
"""The discriminator at a tenth of the generator's learning rate. Without one (``adversarial=False``) there is no group
either; ``--config.method.adversarial_weight=0`` keeps one that moves nothing else."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("context_encoder", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: a hole of 14 pixels, of which 1 at the border is seen."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 60, "paper": 400}.get(budget, 1),
        warmup_epochs=1,
        method={"overlap": 1, "decoder_channels": 16, "discriminator_channels": 16},
        views=autoencoder.WHOLE,
        optimizer={**ADAM, "learning_rate": 2e-3, "groups": SLOWER},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: that of ImageNet at 32 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        method={"overlap": 1, "decoder_channels": 32, "discriminator_channels": 32},
        views={"preset": "mae"},
    )


def imagenet(budget: str) -> base.Recipe:
    """Images of 128 pixels, a hole of 64, 4 at its border seen and weighed tenfold; λ .999 and .001; Adam 2e-3 for the
    generator and 2e-4 for the discriminator, β₁ .5, batch 64, 500 epochs (README), constant rates. The features of the paper's
    tables come from another run: an AlexNet, random regions, no discriminator."""
    return base.Recipe(
        batch_size=64,
        epochs={"short": 50, "paper": 500}.get(budget, 1),
        warmup_epochs=0,
        method={"overlap": 4},
        views={"preset": "mae", "size": 128},
        optimizer={**ADAM, "learning_rate": 2e-3, "groups": SLOWER},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        method={"overlap": 2, "decoder_channels": 32, "discriminator_channels": 32},
        views={"preset": "mae"},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
