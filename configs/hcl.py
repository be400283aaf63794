"""HCL. Numbers: Robinson et al. 2021 and joshr17/HCL, for CIFAR-10 and STL-10 at 32 pixels; there are none for ImageNet."""

from ml_collections import ConfigDict

from configs import simclr
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("hcl", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: SimCLR's recipe; ten classes, so τ⁺ is 0.1."""
    return simclr.gray(budget)._replace(method={"temperature": 0.5, "beta": 0.5})


def cifar10(budget: str) -> base.Recipe:
    """The code: batch 256, Adam 1e-3, L2 decay 1e-6, 400 epochs, τ 0.5, τ⁺ 0.1, β 1, blur with 3 taps (ResNet-50 there)."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 200, "paper": 400}.get(budget, 1),
        warmup_epochs=0,
        method={"temperature": 0.5, "beta": 1.0, "tau_plus": 0.1},
        views={"preset": "simclr", "strength": 0.5, "interpolation": "bilinear", "blur_kernel": 3},
        optimizer={
            "name": "adam",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-6,
            "exclude": "none",
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """No reference recipe: SimCLR's optimizer and views; 1000 classes, so τ⁺ is 0.001."""
    method = {"temperature": 0.1, "beta": 1.0, "tau_plus": 0.001, "projector_width": 2048}
    return simclr.imagenet(budget)._replace(method=method)


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: SimCLR's views, the gray recipe's options."""
    return simclr.folder(budget)._replace(method=gray(budget).method)


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
