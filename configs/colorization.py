"""Colorization. Numbers: Zhang et al. 2016 and richzhang/colorization."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded_color,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL, dataset="embedded_color")
    return base.make("colorization", choice, RECIPES.get(choice.dataset, small)(choice.budget))


def small(budget: str) -> base.Recipe:
    """28-pixel images, minutes on two CPU cores: the last two maps, so that 7 x 7 places are predicted."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 100}.get(budget, 1),
        warmup_epochs=1,
        method={"levels": 2},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one, with the maps of the last two stages and a rate for larger batches."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        batch_size=256,
        method={"levels": 2},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={"name": "adamw", "learning_rate": 1e-3, "scaling": "none", "weight_decay": 1e-3},
    )


def imagenet(budget: str) -> base.Recipe:
    """The code: Adam 3e-5 (β₂ .99), decay 1e-3, batch 40, crops of 176 pixels and a flip, rate times 0.1 at 225,000 of 500,000
    steps, 16 epochs."""
    epochs = {"short": 8, "paper": 16}.get(budget, 1)
    steps = epochs * (1_281_167 // 40)
    return base.Recipe(
        batch_size=40,
        epochs=epochs,
        warmup_epochs=0,
        method={"levels": 2},
        views={"preset": "mae", "size": 176, "area": (0.2, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-5,
            "scaling": "none",
            "weight_decay": 1e-3,
            "b2": 0.99,
            "schedule": "step",
            "boundaries": (steps * 9 // 20,),
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels, in colour: the small recipe's options."""
    return small(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "mae", "area": (0.2, 1.0)}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
