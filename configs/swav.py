"""SwAV. Numbers: Caron et al. 2020, facebookresearch/swav, and solo-learn's CIFAR-10 recipe."""

from typing import Any

from ml_collections import ConfigDict

from configs import dino
from ssl_jax.config import recipe as base
from ssl_jax.methods.parts.multi_crop import VIEWS

PROTOTYPES = "prototypes"
LARC: dict[str, Any] = {"name": "lars", "trust_norm": "parts", "exclude": "none", "weight_decay": 1e-6}
"""The authors' optimizer: the ratio and the decay reach every parameter."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("swav", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: DINO's crops, fewer prototypes than images in a batch and so no queue."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 100}.get(budget, 1),
        warmup_epochs=1,
        method={"prototypes": 200, "projector_width": 512},
        views=dino.gray(budget).views,
        optimizer={**base.GRAY_OPTIMIZER, "normalize_rows": (PROTOTYPES,)},
        freeze_epochs=((PROTOTYPES, 1),),
    )


def cifar10(budget: str) -> base.Recipe:
    """solo-learn's CIFAR-10: ResNet-18, batch 256, two views, K 3000, a queue of 3840 from epoch 50, LARS 0.6, weight decay
    1e-6, prototypes frozen for two epochs. Its LARS is another optimizer (clipped); here the authors' rule."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        method={"queue_size": 3840},
        method_epochs={"queue_start": 50},
        views={"preset": "dino", **VIEWS, "local_count": 0, "local_size": 16, "global_area": (0.08, 1.0)},
        optimizer={**LARC, "learning_rate": 0.6, "normalize_rows": (PROTOTYPES,)},
        freeze_epochs=((PROTOTYPES, 2),),
    )


def imagenet(budget: str) -> base.Recipe:
    """The code: ResNet-50, batch 4096, 2 x 224 + 6 x 96, K 3000, no queue, rate 0.3 to 4.8 in 10 epochs, then to 0.0048, weight
    decay 1e-6, prototypes frozen for an epoch. (Batch 256: rate 0.6 to 0.0006, no warm-up, a queue of 3840 from epoch 15.)"""
    return base.Recipe(
        batch_size=4096,
        epochs={"short": 100, "paper": 800}.get(budget, 1),
        method={},
        views={"preset": "dino", **VIEWS},
        optimizer={
            **LARC,
            "learning_rate": 0.3,
            "start_learning_rate": 0.3,
            "end_learning_rate": 0.0048,
            "normalize_rows": (PROTOTYPES,),
        },
        freeze_epochs=((PROTOTYPES, 1),),
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        views={"preset": "dino", **VIEWS, "local_size": 32, "local_count": 4},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
