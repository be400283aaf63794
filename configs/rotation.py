"""RotNet. Numbers: Gidaris et al. 2018 and gidariss/FeatureLearningRotNet (CIFAR-10), mmselfsup (ImageNet)."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("rotation", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"hidden_dim": 256, "hidden_layers": 1},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """The code: batch 128 in four rotations, Nesterov SGD 0.1, decay 5e-4, rate times 0.2 after 60, 120 and 160 of 200 epochs.
    Its network is NIN; its crops are shifts by 4 pixels, here half of the image or more."""
    epochs = {"short": 100, "paper": 200}.get(budget, 1)
    return base.Recipe(
        batch_size=128,
        epochs=epochs,
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.1,
            "scaling": "none",
            "schedule": "step",
            "boundaries": base.drops("cifar10", 128, [epochs * share for share in (0.3, 0.6, 0.8)]),
            "factor": 0.2,
            "weight_decay": 5e-4,
            "exclude": "none",
            "nesterov": True,
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """mmselfsup: ResNet-50, batch 128 in four rotations, SGD 0.2, decay 1e-4, 5 epochs of warm-up, rate times 0.1 after 30 and
    50 of 70 epochs; 47.0 linear on the last map."""
    epochs = {"short": 35, "paper": 70}.get(budget, 1)
    return base.Recipe(
        batch_size=128,
        epochs=epochs,
        warmup_epochs=epochs / 14,
        method={},
        views={"preset": "mae", "area": (0.08, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.2,
            "scaling": "none",
            "schedule": "step",
            "boundaries": base.drops("imagenet", 128, [epochs * share for share in (3 / 7, 5 / 7)]),
            "weight_decay": 1e-4,
            "exclude": "none",
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer. They need an upright."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "mae", "area": (0.08, 1.0)}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
