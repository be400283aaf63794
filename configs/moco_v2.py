"""MoCo v2. Numbers: Chen et al. 2020, facebookresearch/moco and its CIFAR-10 notebook."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("moco_v2", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores; chosen among a few by the online probes on training images."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"temperature": 0.2, "queue_size": 4096, "decay": 0.99, "projector_width": 512},
        views={"preset": "moco_v2", **base.GRAY_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """The authors' notebook: ResNet-18, batch 512, K 4096, m 0.99, τ 0.1, SGD 0.06, decay 5e-4, BatchNorm in 8 groups."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        warmup_epochs=0,
        method={"temperature": 0.1, "queue_size": 4096, "decay": 0.99, "bn_groups": 8},
        views={"preset": "moco_v2", "area": (0.08, 1.0), "blur_prob": 0.0},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.06,
            "scaling": "none",
            "weight_decay": 5e-4,
            "exclude": "none",
            "hold_each_epoch": True,
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """Paper and code: ResNet-50, batch 256 on 8 GPUs, K 65536, m 0.999, τ 0.2, SGD 0.03, decay 1e-4, 200 or 800 epochs."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        warmup_epochs=0,
        method={"bn_groups": 8},
        views={"preset": "moco_v2"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "weight_decay": 1e-4,
            "exclude": "none",
            "hold_each_epoch": True,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "moco_v2"}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
