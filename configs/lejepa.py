"""LeJEPA. Numbers: rbalestr-lab/lejepa, README and ``MINIMAL.md``."""

from typing import Any

from ml_collections import ConfigDict

from configs import dino
from ssl_jax.config import recipe as base

VIEWS: dict[str, Any] = {
    "preset": "dino",
    "local_count": 6,
    "global_area": (0.3, 1.0),
    "local_area": (0.05, 0.3),
    "blur_prob": (0.5, 0.5),
    "solarize_prob": (0.2, 0.2),
}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet18,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("lejepa", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: DINO's crops, a smaller projector."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 100}.get(budget, 1),
        warmup_epochs=1,
        method={"projector_width": 512, "projection": 16, "directions": 256},
        views=dino.gray(budget).views,
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with crops of 32 and 16 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        views={**VIEWS, "local_size": 16, "local_blur_prob": 0.0, "blur_prob": (0.0, 0.0)},
    )


def imagenet(budget: str) -> base.Recipe:
    """AdamW 5e-4, decay 5e-4 (ResNets), cosine to a thousandth, crops of 224 and 98 pixels; batch 512, 100 epochs."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 100, "paper": 100}.get(budget, 1),
        warmup_epochs=1,
        method={},
        views={**VIEWS, "local_size": 98},
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-4,
            "end_learning_rate": 5e-7,
            "scaling": "none",
            "weight_decay": 5e-4,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        views={**VIEWS, "local_size": 32},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
