"""W-MSE. Numbers: Ermolov et al. 2021, htdt/self-supervised."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    config = base.make("wmse", choice, RECIPES.get(choice.dataset, gray)(choice.budget))
    if choice.budget == "smoke":
        # The covariance of eight images in four dimensions has full rank, but is far from the identity.
        config.method.update({"projection": 4, "w_size": 8, "epsilon": 0.01})
    return config


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: SimCLR's views and optimizer."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"projector_width": 512},
        views={"preset": "wmse", **base.GRAY_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """README, two views: ResNet-18, batch 512, Adam 3e-3, groups of 128, 64 dimensions, 1000 epochs.

    The rate warms up over 500 steps and drops to a fifth 50 and 25 epochs before the end. Four views: ``count`` 4, batch 256.
    """
    return _adam(budget, images=50_000, rate=3e-3, method={})


def imagenet(budget: str) -> base.Recipe:
    """No recipe for all of ImageNet: that of Tiny ImageNet, Adam 2e-3, four draws of groups of 256, 128 dimensions."""
    return _adam(budget, images=1_281_167, rate=2e-3, method={"projection": 128, "w_size": 256, "w_iter": 4})


def _adam(budget: str, *, images: int, rate: float, method: dict[str, int]) -> base.Recipe:
    epochs, epoch = {"short": 200, "paper": 1000}.get(budget, 1), images // 512
    return base.Recipe(
        batch_size=512,
        epochs=epochs,
        warmup_epochs=500 / epoch,
        method=method,
        views={"preset": "wmse"},
        optimizer={
            "name": "adam",
            "learning_rate": rate,
            "scaling": "none",
            "schedule": "step",
            "boundaries": tuple((epochs - last) * epoch for last in (50, 25) if epochs > last) or (epoch,),
            "factor": 0.2,
            "weight_decay": 1e-6,
            "exclude": "none",
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the paper's views, the gray recipe's optimizer."""
    return gray(budget)._replace(epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "wmse"})


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
