"""iBOT. Numbers: Zhou et al. 2022 and bytedance/ibot."""

from ml_collections import ConfigDict

from configs import dino
from ssl_jax.config import recipe as base

BACKBONES = {
    "embedded": "vit_micro",
    "fashion_mnist": "vit_micro",
    "cifar10": "vit_tiny",
    "imagenet": "vit_small",
    "folder": "vit_micro",
}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("ibot", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: DINO's recipe with a small ViT and, as ViTs are slow to start, four
    times as many steps of a quarter of the images."""
    recipe = dino.gray(budget)
    return recipe._replace(
        batch_size=64,
        # Kernels of standard deviation 0.02 are too small for this width: blocks would start next to nothing.
        encoder={**base.GRAY_VIT, "pool": "mean", "init": "xavier", "position": "sincos", "mask_token": True},
        method={"prototypes": 256, "hidden_dim": 128, "bottleneck": 64, "decay": 0.99},
        optimizer={**recipe.optimizer, "learning_rate": 1e-3},
        freeze_epochs=((dino.LAST_LAYER, 0.25),),
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with patches of 4 pixels, 4 local crops of 16 pixels and K 4096."""
    recipe = imagenet(budget)
    return recipe._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        batch_size=512,
        method={**recipe.method, "prototypes": 4096},
        views={
            **recipe.views,
            "local_size": 16,
            "local_count": 4,
            "blur_prob": (0.0, 0.0),
            "local_blur_prob": 0.0,
        },
    )


def imagenet(budget: str) -> base.Recipe:
    """The code's ViT-S/16: batch 1024, AdamW 5e-4 x B/256, 800 epochs, 10 local crops, K 8192, prototypes' norm trained, both
    temperatures 0.04 to 0.07 over 30 epochs, last layer frozen for one epoch, gradients clipped tensor by tensor."""
    return dino.imagenet(budget)._replace(
        batch_size=1024,
        encoder={"drop_path": 0.1, "init": "trunc_normal", "mask_token": True},
        method={
            "norm_last_layer": False,
            "teacher_temperature_start": 0.04,
            "teacher_temperature": 0.07,
            "patch_temperature_start": 0.04,
            "patch_temperature": 0.07,
        },
        method_epochs={"teacher_temperature_steps": 30},
        views={"preset": "dino", "local_count": 10, "global_area": (0.25, 1.0), "local_area": (0.05, 0.25)},
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views with 4 local crops, the gray recipe's optimizer, a larger ViT."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        encoder={"pool": "mean", "init": "trunc_normal", "mask_token": True},
        views={**imagenet(budget).views, "local_size": 32, "local_count": 4},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
