"""Denoising autoencoder: the recipe of ``autoencoder``, 40 % of the pixels masked. No paper has one for these encoders."""

from ml_collections import ConfigDict

from configs import autoencoder
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``fashion_mnist,mlp,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    recipe = autoencoder.RECIPES.get(choice.dataset, autoencoder.gray)(choice.budget)
    method = {**recipe.method, "corruption": "masking", "level": 0.4}
    return base.make("denoising_autoencoder", choice, recipe._replace(method=method))
