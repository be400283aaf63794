"""Temporal ensembling. Numbers: Laine & Aila 2017, section 3 and appendix A, and smlaine2/tempens."""

from ml_collections import ConfigDict

from configs import pi_model
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    recipe = pi_model.RECIPES.get(choice.dataset, pi_model.gray)(choice.budget)
    # 30 on CIFAR-10 where the Π-model has 100, times the share of labels; elsewhere the same ratio.
    method = {**recipe.method, "weight": 0.3 * recipe.method["weight"]}
    recipe = recipe._replace(method=method, views={**recipe.views, "count": 1})
    return base.make("temporal_ensembling", choice, recipe)
