"""DeepCluster. Numbers: Caron et al. 2018 and facebookresearch/deepcluster."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("deepcluster", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: ten times as many clusters as classes, four clusterings an epoch."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"clusters": 100, "hidden_dim": 256, "hidden_layers": 1, "pca": 64},
        views={"preset": "npid", **base.GRAY_VIEWS},
        optimizer=base.GRAY_OPTIMIZER,
        refresh_epochs=0.25,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with 100 clusters, in colour."""
    return imagenet(budget)._replace(
        epochs={"short": 200, "paper": 500}.get(budget, 1),
        method={"clusters": 100, "hidden_dim": 512, "hidden_layers": 1},
        views={"preset": "mae", "area": (0.2, 1.0)},
        encoder={},
    )


def imagenet(budget: str) -> base.Recipe:
    """The code: Sobel-filtered images, batch 256, SGD 0.05 held constant, momentum 0.9, decay 1e-5, k 10,000, clusters anew
    after every epoch; 200 epochs, 500 in the paper."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 200, "paper": 500}.get(budget, 1),
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "area": (0.08, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-5,
            "exclude": "none",
        },
        encoder={"sobel": True},
        refresh_epochs=1,
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "mae", "area": (0.08, 1.0)}
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
