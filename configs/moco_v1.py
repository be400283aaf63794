"""MoCo v1. Numbers: He et al. 2020, and facebookresearch/moco."""

from ml_collections import ConfigDict

from configs import moco_v2
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("moco_v1", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: MoCo v2's recipe with a linear projector."""
    return moco_v2.gray(budget)._replace(
        method={"temperature": 0.2, "queue_size": 4096, "decay": 0.99},
        views={"preset": "moco_v1", **base.GRAY_VIEWS},
    )


def cifar10(budget: str) -> base.Recipe:
    """The authors' notebook, which has a linear projector as v1: ResNet-18, batch 512, K 4096, m 0.99, τ 0.1, SGD 0.06, decay
    5e-4, BatchNorm in 8 groups, v2's colours without blur."""
    return moco_v2.cifar10(budget)._replace(
        views={
            "preset": "moco_v1",
            "area": (0.08, 1.0),
            "jitter": {"hue": 0.1, "probability": 0.8},
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """Paper, section 3.3 and the code: ResNet-50, batch 256 on 8 GPUs, K 65536, m 0.999, τ 0.07, SGD 0.03, decay 1e-4, 200
    epochs; the learning rate falls to a tenth at 60% and at 80% of the run."""
    epochs = {"smoke": 1}.get(budget, 200)
    steps = 1_281_167 // 256
    return base.Recipe(
        batch_size=256,
        epochs=epochs,
        warmup_epochs=0,
        method={"bn_groups": 8},
        views={"preset": "moco_v1"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "weight_decay": 1e-4,
            "exclude": "none",
            "schedule": "step",
            "boundaries": (120 * epochs * steps // 200, 160 * epochs * steps // 200),
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "moco_v1"}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
