"""DCL. Numbers: Yeh et al. 2022 as far as public codes give them: lightly's benchmarks and an unofficial repository."""

from ml_collections import ConfigDict

from configs import simclr
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("dcl", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: SimCLR's recipe with a smaller batch, which DCL is made for."""
    return simclr.gray(budget)._replace(batch_size=128)


def cifar10(budget: str) -> base.Recipe:
    """lightly's CIFAR-10 benchmark: ResNet-18, batch 512, projector 512 to 128, τ 0.1, SGD 0.06 x B/128, decay 5e-4."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        warmup_epochs=0,
        method={"temperature": 0.1, "projector_width": 512},
        views={"preset": "simclr", "strength": 0.5, "blur_prob": 0.0},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.06,
            "reference_batch": 128,
            "weight_decay": 5e-4,
            "hold_each_epoch": True,
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """lightly's ImageNet benchmark: ResNet-50, batch 256, LARS 0.075 x √B, weight decay 1e-6, τ 0.1, 100 epochs; paper: 200."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        method={"temperature": 0.1},
        views={"preset": "simclr"},
        optimizer={
            "name": "lars",
            "learning_rate": 0.075,
            "scaling": "sqrt",
            "reference_batch": 1,
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: SimCLR's recipe with the gray recipe's batch."""
    return simclr.folder(budget)._replace(batch_size=128)


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
