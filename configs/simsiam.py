"""SimSiam. Numbers: Chen & He 2021, facebookresearch/simsiam."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ssl_jax.config import recipe as base

CONSTANT_LR = ("predictor",)
"""The predictor keeps its learning rate (``--fix-pred-lr`` of the authors' code, their default)."""


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    config = base.make("simsiam", choice, RECIPES.get(choice.dataset, gray)(choice.budget))
    # Nothing is kept for each image unless expectation_decay is given, and examples with it.
    config.method.examples = placeholder(int)
    return config


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: AdamW, and smaller batches for more steps, by the online probes."""
    return base.Recipe(
        batch_size=128,
        epochs={"short": 10, "paper": 200}.get(budget, 1),
        warmup_epochs=1,
        method={"projector_layers": 2, "projection": 512, "predictor_width": 128},
        views={"preset": "moco_v2", **base.GRAY_VIEWS},
        optimizer={**base.GRAY_OPTIMIZER, "learning_rate": 2e-3, "constant_lr": CONSTANT_LR},
    )


def cifar10(budget: str) -> base.Recipe:
    """Paper, appendix D: ResNet-18, two layers of projector, SGD 0.03 x B/256, batch 512, weight decay 5e-4, 800 epochs, no
    blur, no warm-up."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        warmup_epochs=0,
        method={"projector_layers": 2},
        views={"preset": "moco_v2", "blur_prob": 0.0},
        optimizer=_sgd(0.03, 5e-4),
    )


def imagenet(budget: str) -> base.Recipe:
    """Paper, section 3: ResNet-50, SGD 0.05 x B/256, batch 512, weight decay 1e-4 on all parameters, no warm-up, a cosine that
    moves once an epoch (code). The table of the paper's section 6 has 100 to 800 epochs."""
    return base.Recipe(
        batch_size=512,
        epochs={"short": 100, "paper": 800}.get(budget, 1),
        warmup_epochs=0,
        method={},
        views={"preset": "moco_v2"},
        optimizer={**_sgd(0.05, 1e-4), "hold_each_epoch": True},
        encoder={"zero_init_residual": True},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1), views={"preset": "moco_v2"}
    )


def _sgd(rate: float, decay: float) -> dict[str, object]:
    return {
        "name": "sgd",
        "learning_rate": rate,
        "weight_decay": decay,
        "exclude": "none",
        "constant_lr": CONSTANT_LR,
    }


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
