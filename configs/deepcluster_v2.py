"""DeepCluster-v2. Numbers: Caron et al. 2020 (SwAV), facebookresearch/swav, and solo-learn's CIFAR-10 recipe."""

from ml_collections import ConfigDict

from configs import swav
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,resnet34,short``; default ``embedded,convnet,short``."""
    choice = base.parse(arg, base.CONVOLUTIONAL)
    return base.make("deepcluster_v2", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: SwAV's recipe, clustered twice an epoch."""
    return swav.gray(budget)._replace(
        method={"clusters": 200, "projector_width": 512},
        optimizer=base.GRAY_OPTIMIZER,
        freeze_epochs=(),
        refresh_epochs=0.5,
    )


def cifar10(budget: str) -> base.Recipe:
    """solo-learn's CIFAR-10: ResNet-18, batch 256, two views, K 3000, H 3, LARS 0.6 to 0.0006, weight decay 1e-6. Its LARS is
    another optimizer (clipped); here the authors' rule."""
    return swav.cifar10(budget)._replace(
        method={},
        method_epochs={},
        optimizer={**swav.LARC, "learning_rate": 0.6, "end_learning_rate": 0.0006},
        freeze_epochs=(),
        refresh_epochs=1,
    )


def imagenet(budget: str) -> base.Recipe:
    """The code: SwAV's recipe of batch 4096, K 3000, H 3, clustered every epoch."""
    recipe = swav.imagenet(budget)
    return recipe._replace(
        optimizer={**recipe.optimizer, "normalize_rows": ()}, freeze_epochs=(), refresh_epochs=1
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views, the gray recipe's optimizer."""
    recipe = swav.folder(budget)
    return gray(budget)._replace(epochs=recipe.epochs, views=recipe.views)


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
