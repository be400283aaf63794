"""OBoW. Numbers: Gidaris et al. 2021 and valeoai/obow."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("obow", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores. The convnet's last map is 4 x 4, so its border stays. One level, δ⁻¹ 15
    and a fast teacher are the best of eight trials of 300 steps by the online probes on training images."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={
            "vocabulary_size": 512,
            "levels": 1,
            "border": 0,
            "hidden_dim": 256,
            "kappa": 5.0,
            "decay": 0.9,
        },
        views={
            "preset": "obow",
            "crop_size": 28,
            "local_size": 14,
            "local_count": 0,
            "crop_area": base.GRAY_VIEWS["area"],
            **{
                name: base.GRAY_VIEWS[name]
                for name in ("interpolation", "jitter", "grayscale_prob", "blur_prob")
            },
        },
        optimizer=base.GRAY_OPTIMIZER,
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the one of ResNet-18 on a fifth of ImageNet, with fewer words and whole maps of 8 x 8 and 4 x 4."""
    return base.Recipe(
        batch_size=128,
        epochs={"short": 80, "paper": 200}.get(budget, 1),
        warmup_epochs=5,
        method={
            "vocabulary_size": 2048,
            "border": 0,
            "hidden_dim": 1024,
            "kappa": 5.0,
            "inverse_delta": 10.0,
        },
        views={
            "preset": "obow",
            "crop_size": 24,
            "local_size": 16,
            "blur_prob": 0.0,
        },
        optimizer={"name": "sgd", "learning_rate": 0.05, "scaling": "none", "weight_decay": 5e-4},
    )


def imagenet(budget: str) -> base.Recipe:
    """valeoai/obow, ``ResNet50_OBoW_full``: batch 256, SGD 0.03 on a cosine to 3e-5, weight decay 1e-4, 200 epochs, K 8192,
    κ 8, δ⁻¹ 15, m₀ 0.99. There the cosine, not the warm-up, is held for an epoch; here neither is."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 100, "paper": 200}.get(budget, 1),
        method={},
        views={"preset": "obow"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "none",
            "end_learning_rate": 3e-5,
            "weight_decay": 1e-4,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views in proportion, the gray recipe's optimizer."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        views={"preset": "obow", "crop_size": 48, "local_size": 32, "local_count": 3},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
