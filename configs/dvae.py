"""The tokenizer of BEiT. Numbers: lucidrains/DALLE-pytorch ``train_vae.py``, and Ramesh et al. 2021, appendix A.2."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base

BACKBONES = dict.fromkeys(("embedded", "fashion_mnist", "cifar10", "imagenet", "folder"), "dvae")


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset and budget, such as ``cifar10,short``; default ``embedded,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("dvae", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """Gray images at 16 pixels, one word for 4 x 4: BEiT's grid of 4 x 4 patches of 7 pixels, seen from 28."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 20, "paper": 100}.get(budget, 1),
        warmup_epochs=0,
        encoder={"vocabulary_size": 256, "width": 64, "stride": 4, "blocks": 1},
        method={"code_width": 64},
        views={"preset": "mae", "size": 16, "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={"name": "adamw", "learning_rate": 2e-3, "scaling": "none"},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one at 32 pixels, a word for 4 x 4."""
    return imagenet(budget)._replace(
        epochs={"short": 100, "paper": 300}.get(budget, 1),
        encoder={"vocabulary_size": 1024, "width": 128, "stride": 4, "blocks": 2},
        views={"preset": "mae", "size": 32},
    )


def imagenet(budget: str) -> base.Recipe:
    """112 pixels, 14 x 14 words of 8192; Adam at 1e-4 to 1.25e-6 on a cosine, batch 512, β 6.6 on a sum over places scaled by
    1/192 there (0 in DALLE-pytorch, and here), temperature 1 to 1/16."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 20, "paper": 100}.get(budget, 1),
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "size": 112, "area": (0.08, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-4,
            "end_learning_rate": 1.25e-6,
            "scaling": "none",
            "weight_decay": 1e-4,
        },
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels, a word for 4 x 4, the gray recipe's optimizer."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        encoder={"vocabulary_size": 1024, "width": 128, "stride": 4, "blocks": 2},
        views={"preset": "mae", "size": 64, "area": (0.2, 1.0)},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
