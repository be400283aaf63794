"""Distillation from a static teacher. Numbers: SEED (Fang et al. 2021) for similarities; the others are ours."""

from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``.

    ``--config.method.teacher=exported/encoder.safetensors`` chooses the teacher; without it a random network is learnt from.
    """
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("knowledge", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: a small student of a random network's features of the other view."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        encoder={"widths": (16, 32, 64)},
        method={"pairing": "other", "hidden_dim": 512},
        views={"preset": "byol", **base.GRAY_ASYMMETRIC_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: features of the other view, SGD with SEED's rate."""
    recipe = imagenet(budget)
    return recipe._replace(
        batch_size=256,
        method={"pairing": "other"},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
    )


def imagenet(budget: str) -> base.Recipe:
    """SEED: one view for both, as in MoCo v2, a queue of 65,536, τ_t 0.01, τ_s 0.2, SGD 0.03 x B/256 on a cosine, weight decay
    1e-4, 200 epochs. With the default teacher, a random network, it learns little: give one by ``--config.method.teacher``."""
    method: dict[str, Any] = {"mode": "similarity", "queue_size": 65536}
    return base.Recipe(
        batch_size=256,
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        warmup_epochs=5,
        method=method,
        views={"preset": "moco_v2"},
        optimizer={"name": "sgd", "learning_rate": 0.03, "weight_decay": 1e-4},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer and pairing."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), encoder={}, views={"preset": "byol"}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
