"""MeanShift. Numbers: Koohpayegani et al. 2021 and the README of UMBCvision/MSF."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("msf", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: SimSiam's batches and rate, not tuned."""
    return base.Recipe(
        batch_size=128,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"queue_size": 4096, "hidden_dim": 512, "projection": 128},
        views={"preset": "msf", **base.GRAY_VIEWS},
        optimizer={**base.GRAY_OPTIMIZER, "learning_rate": 2e-3},
    )


def cifar10(budget: str) -> base.Recipe:
    """No published recipe. MoCo's for ResNet-18 (batch 512, SGD 0.06, weight decay 5e-4, decay 0.99, no blur), a bank of 16384
    and the paper's k = 5."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        warmup_epochs=0,
        method={"queue_size": 16384},
        views={"preset": "msf", "blur_prob": 0.0},
        optimizer=_sgd(0.06, 5e-4),
    )


def imagenet(budget: str) -> base.Recipe:
    """README, weak/strong: ResNet-50, batch 256, SGD 0.05, weight decay 1e-4, 200 epochs, k = 10, a bank of 128,000 targets."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        warmup_epochs=0,
        method={"neighbors": 10, "queue_size": 128000},
        views={"preset": "msf"},
        optimizer=_sgd(0.05, 1e-4),
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "msf"})


def _sgd(rate: float, decay: float) -> dict[str, object]:
    return {
        "name": "sgd",
        "learning_rate": rate,
        "scaling": "none",
        "weight_decay": decay,
        "exclude": "none",
        "hold_each_epoch": True,
    }


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
