"""VICReg. Numbers: Bardes et al. 2022, facebookresearch/vicreg, and solo-learn's CIFAR-10 recipe."""

from ml_collections import ConfigDict

from configs import byol
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("vicreg", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: BYOL's recipe, a smaller expander."""
    return byol.gray(budget)._replace(
        method={"projector_layers": 2, "projector_width": 512, "projection": 256}
    )


def cifar10(budget: str) -> base.Recipe:
    """solo-learn's CIFAR-10: ResNet-18, expander 2048, crops from 0.2, solarize 0.1 in both views, no blur.

    It adds the variance of the two views: twice the weight. Its LARS is another optimizer (clipped, trust coefficient 0.02);
    here the official rule with its rate.
    """
    return byol.cifar10(budget)._replace(
        method={"projector_width": 2048, "projection": 2048, "variance_weight": 50.0},
        views={"preset": "byol", "area": (0.2, 1.0), "blur_prob": (0.0, 0.0), "solarize_prob": (0.1, 0.1)},
        optimizer={"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-4},
    )


def imagenet(budget: str) -> base.Recipe:
    """README: ResNet-50, LARS to a thousandth of its rate, weight decay 1e-6; 1000 epochs: batch 2048, rate 0.2 x B/256; 100
    epochs: batch 512, 0.3 x B/256."""
    batch, rate = {"short": (512, 0.3)}.get(budget, (2048, 0.2))
    return base.Recipe(
        batch_size=batch,
        epochs={"short": 100, "paper": 1000}.get(budget, 1),
        method={},
        views={"preset": "byol"},
        optimizer={
            "name": "lars",
            "learning_rate": rate,
            "end_learning_rate": 1e-3 * rate * batch / 256,
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return byol.folder(budget)._replace(method=gray(budget).method)


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
