"""BiGAN. Numbers: Donahue et al. 2017 and jeffdonahue/bigan ``train_gan.py``, ``train_mnist.sh``, ``train_imagenet.sh``."""

from ml_collections import ConfigDict

from configs import autoencoder
from ssl_jax.config import recipe as base

ADAM = {"name": "adam", "scaling": "none", "learning_rate": 2e-4, "b1": 0.5, "weight_decay": 2.5e-5}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("bigan", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images: z of 50 numbers as on MNIST, learning rates for a few epochs instead of 400 at 2e-4."""
    return base.Recipe(
        batch_size=128,
        epochs={"short": 60, "paper": 400}.get(budget, 1),
        warmup_epochs=0,
        method={"latent": 50, "decoder_channels": 8, "discriminator_channels": 16, "hidden_dim": 256},
        views=autoencoder.WHOLE,
        optimizer={**ADAM, "learning_rate": 1e-3, "groups": {"discriminator": {"learning_rate": 5e-4}}},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: that of ImageNet at 32 pixels with smaller networks."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        method={"latent": 100, "decoder_channels": 32, "discriminator_channels": 32, "hidden_dim": 512},
        views={"preset": "mae"},
    )


def imagenet(budget: str) -> base.Recipe:
    """Images of 64 pixels, z of 200 uniform numbers, widths from 64; Adam 2e-4, β₁ .5, L2 2.5e-5, batch 128; 400 epochs, in the
    second half of which the rate falls, exponentially to a hundredth there, on a cosine over the whole run here. The encoder of
    the paper's tables saw 112 pixels."""
    return base.Recipe(
        batch_size=128,
        epochs={"short": 50, "paper": 400}.get(budget, 1),
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "size": 64},
        optimizer={**ADAM, "end_learning_rate": 2e-6},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 400}.get(budget, 1),
        method={"latent": 100, "decoder_channels": 32, "discriminator_channels": 32, "hidden_dim": 512},
        views={"preset": "mae"},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
