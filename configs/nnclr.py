"""NNCLR. Numbers: Dwibedi et al. 2021, section 4, and solo-learn's CIFAR-10 recipe."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("nnclr", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores; a queue of 16 batches."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={
            "temperature": 0.2,
            "queue_size": 4096,
            "projector_width": 512,
            "projection": 128,
            "predictor_width": 512,
        },
        views={"preset": "byol", **base.GRAY_ASYMMETRIC_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """solo-learn's CIFAR-10: batch 256, τ 0.2, queue 65536, LARS 0.4, decay 1e-5, no blur, solarize 0 and 0.2.

    Its LARS is another optimizer (clipped, trust coefficient 0.02); here the official rule of BYOL with the same rate.
    """
    return base.Recipe(
        batch_size=256,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        method={"temperature": 0.2, "queue_size": 65536},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={"name": "lars", "learning_rate": 0.4, "weight_decay": 1e-5},
    )


def imagenet(budget: str) -> base.Recipe:
    """Paper, section 4.1: ResNet-50, batch 4096, queue 98304, τ 0.1, LARS 0.3 x B/256, decay 1e-6, 1000 epochs."""
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 1000}.get(budget, 1),
        method={},
        views={"preset": "byol"},
        optimizer={"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-6},
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "byol"})


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
