"""Relative location. Numbers: Doersch et al. 2015 and mmselfsup's ``relative_loc``."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``.

    A ViT needs tiles and images that its patches divide: ``imagenet,vit_base`` with ``--config.views.size=240`` and
    ``--config.method.jitter=16``.
    """
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("relative_location", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: 3 x 3 tiles of 8 pixels on 27, so that three halvings leave one place."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"form": "all", "tile": 8, "jitter": 1, "hidden_dim": 256},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear", "flip_prob": 0.0},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with tiles of 8 pixels 1 or more apart, on 32 pixels."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        method={"tile": 8, "gap": 1, "jitter": 2, "hidden_dim": 1024},
        views={"preset": "mae", "area": (0.5, 1.0), "flip_prob": 0.0},
        optimizer={**imagenet(budget).optimizer, "schedule": "cosine", "boundaries": ()},
    )


def imagenet(budget: str) -> base.Recipe:
    """mmselfsup: ResNet-50, tiles of 64 pixels in cells of 85, centre against eight, two thirds of the images gray, SGD 0.2 at
    batch 512, decay 1e-4 (5e-4 on the head there), 5 epochs of warm-up, rate times 0.1 after 30 and 50 of 70 epochs; 40.4
    linear. Its images are resized to 292 pixels and cropped to 255."""
    epochs = {"short": 35, "paper": 70}.get(budget, 1)
    return base.Recipe(
        batch_size=512,
        epochs=epochs,
        warmup_epochs=epochs / 14,
        method={"drop_colors": False, "normalize_tiles": False},
        views={
            "preset": "mae",
            "size": 255,
            "area": (0.5, 1.0),
            "ratio": (1.0, 1.0),
            "flip_prob": 0.0,
            "grayscale_prob": 0.66,
        },
        optimizer={
            "name": "sgd",
            "learning_rate": 0.2,
            "scaling": "none",
            "schedule": "step",
            "boundaries": base.drops("imagenet", 512, [epochs * share for share in (3 / 7, 5 / 7)]),
            "weight_decay": 1e-4,
            "exclude": "none",
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: tiles of 16 pixels 2 or more apart, the authors' defences, the gray recipe's optimizer."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        method={**recipe.method, "tile": 16, "gap": 2, "jitter": 3},
        views={"preset": "mae", "area": (0.5, 1.0), "flip_prob": 0.0},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
