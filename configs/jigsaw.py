"""Jigsaw. Numbers: Noroozi and Favaro 2016 and vissl's ``pretrain/jigsaw``."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``.

    A ViT needs tiles and images that its patches divide: ``imagenet,vit_base`` with ``--config.views.size=240`` and
    ``--config.method.jitter=16``.
    """
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("jigsaw", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: 3 x 3 tiles of 8 pixels on 27, so that three halvings leave one place."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={
            "tile": 8,
            "jitter": 1,
            "channel_jitter": 0,
            "permutations": 100,
            "projection": 128,
            "hidden_dim": 256,
        },
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with tiles of 8 pixels, up to 3 apart, on 30 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        method={
            "tile": 8,
            "jitter": 2,
            "channel_jitter": 0,
            "normalize_tiles": False,
            "projection": 256,
            "hidden_layers": 0,
        },
        views={"preset": "mae", "area": (0.5, 1.0), "grayscale_prob": 0.66},
        optimizer={**imagenet(budget).optimizer, "schedule": "cosine", "boundaries": ()},
    )


def imagenet(budget: str) -> base.Recipe:
    """vissl: ResNet-50, 255 pixels, flips, two thirds gray, tiles of 64 in cells of 85, 1000 units a tile, a linear head, 100
    permutations, SGD 0.1 x B/256 at batch 256, decay 1e-4, 5 epochs of warm-up, rate times 0.1 after 30, 60, 90 and 100 of 105
    epochs; 48.6 linear."""
    epochs = {"short": 35, "paper": 105}.get(budget, 1)
    drops = [epochs * share / 105 for share in (30, 60, 90, 100)]
    return base.Recipe(
        batch_size=256,
        epochs=epochs,
        warmup_epochs=epochs / 21,
        method={
            "jitter": 21,
            "channel_jitter": 0,
            "color_projection": 0.0,
            "normalize_tiles": False,
            "projection": 1000,
            "hidden_layers": 0,
        },
        views={"preset": "mae", "size": 255, "area": (0.5, 1.0), "ratio": (1.0, 1.0), "grayscale_prob": 0.66},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.1,
            "schedule": "step",
            "boundaries": base.drops("imagenet", 256, drops),
            "weight_decay": 1e-4,
            "exclude": "none",
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: tiles of 16 pixels with the authors' defences, the gray recipe's optimizer."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        method={**recipe.method, "tile": 16, "jitter": 4, "channel_jitter": 1},
        views={"preset": "mae", "area": (0.5, 1.0), "grayscale_prob": 0.5},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
