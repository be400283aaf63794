"""Mean Teacher. Numbers: Tarvainen & Valpola 2017 and CuriousAI/mean-teacher, ``pytorch/experiments``."""

from ml_collections import ConfigDict

from configs import pi_model
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("mean_teacher", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """The Π-model's recipe; the teacher averages over about 100 steps."""
    recipe = pi_model.gray(budget)
    return recipe._replace(method={**recipe.method, "decay": 0.99})


def cifar10(budget: str) -> base.Recipe:
    """4000 labels, 31 of 128 images: SGD 0.05, decay 2e-4, nesterov, weight 100, α 0.97, two classifiers .01 apart, 180 epochs
    (of a cosine over 210 there). Noise and dropout are off: the network there, a Shake-Shake, has its own."""
    return base.Recipe(
        batch_size=128,
        epochs={"short": 60, "paper": 180}.get(budget, 1),
        warmup_epochs=0,
        method={"weight": 100.0, "decay": 0.97, "logit_distance": 0.01, "noise": 0.0, "dropout": 0.0},
        method_epochs={"rampup_steps": 5},
        views={"preset": "consistency"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "weight_decay": 2e-4,
            "nesterov": True,
        },
        num_labels=4000,
        labeled_fraction=31 / 128,
    )


def imagenet(budget: str) -> base.Recipe:
    """A tenth of the labels, half of each batch: KL with weight 10, α 0.9997, two classifiers .01 apart, 60 epochs."""
    recipe = pi_model.imagenet(budget)
    own = {"weight": 10.0, "consistency": "kl", "decay": 0.9997, "logit_distance": 0.01}
    return recipe._replace(method={**recipe.method, **own})


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels, one sub-folder a class: give --config.method.classes and --config.data.num_labels."""
    recipe = pi_model.folder(budget)
    return recipe._replace(method={**recipe.method, "decay": 0.99})


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
