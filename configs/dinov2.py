"""DINOv2. Numbers: Oquab et al. 2023 and facebookresearch/dinov2."""

from typing import Any

from ml_collections import ConfigDict

from configs import dino, ibot
from ssl_jax.config import recipe as base

BACKBONES = {**ibot.BACKBONES, "imagenet": "vit_large"}


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("dinov2", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: iBOT's recipe with balancing and KoLeo."""
    recipe = ibot.gray(budget)
    return recipe._replace(
        # At 0.07 the balanced distributions stay almost uniform. 4 x 4 patches: the least rectangle is one patch.
        method={**recipe.method, "teacher_temperature": 0.04, "min_area": 1},
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: iBOT's with the losses and the balancing of DINOv2."""
    recipe = ibot.cifar10(budget)
    return recipe._replace(
        method={"prototypes": 4096, "teacher_temperature_start": 0.04, "teacher_temperature": 0.07}
    )


def imagenet(budget: str) -> base.Recipe:
    """The code's short configuration, ViT-L/16: batch 2048, AdamW 4e-3 x √(B/1024), 125,000 steps (200 epochs), centres instead
    of Sinkhorn, one head of 65,536 prototypes, layer decay 0.9, stochastic depth 0.3, LayerScale 1e-5. "paper": balancing and
    untied heads of 131,072 prototypes as in the runs on ImageNet-22k, over as many steps as those (625,000).

    Their epochs of 1250 steps are 2 of ours. Deviations: gradients are clipped by one norm over all parameters, theirs by one a
    sub-module (encoder, each head); stochastic depth rises from block to block, theirs is the same in all; the patch embedding
    has no learning rate of its own (theirs 0.2 of the others'); where theirs has learning rate 0 for the last layer in
    the first epoch, here its moments stand still too.
    """
    method: dict[str, Any] = {"teacher_temperature_start": 0.04, "teacher_temperature": 0.07}
    if budget == "paper":
        method |= {"prototypes": 131072, "patch_head": "separate"}
    else:
        method |= {"centering": "center"}
    return base.Recipe(
        batch_size=2048,
        epochs={"short": 200, "paper": 1000}.get(budget, 1),
        warmup_epochs=20,
        encoder={"drop_path": 0.3, "layer_scale": 1e-5, "init": "trunc_normal", "mask_token": True},
        method=method,
        method_epochs={"teacher_temperature_steps": 60},
        views={"preset": "dino", "global_area": (0.32, 1.0), "local_area": (0.05, 0.32)},
        optimizer={
            "name": "adamw",
            "learning_rate": 4e-3,
            "scaling": "sqrt",
            "reference_batch": 1024,
            "end_learning_rate": 1e-6,
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_norm": 3.0,
            "layer_decay": 0.9,
        },
        freeze_epochs=((dino.LAST_LAYER, 2),),
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views with 4 local crops, the gray recipe's optimizer, a larger ViT."""
    recipe = gray(budget)
    return recipe._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        encoder={"pool": "mean", "init": "trunc_normal", "mask_token": True},
        views={**imagenet(budget).views, "local_size": 32, "local_count": 4},
        method={**recipe.method, "min_area": 4},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
