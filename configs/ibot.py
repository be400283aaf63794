"""iBOT. Numbers: Zhou et al. 2022 and bytedance/ibot."""

from ml_collections import ConfigDict

from configs.common import base

BACKBONES = {
    "embedded": "vit_micro",
    "fashion_mnist": "vit_micro",
    "cifar10": "vit_tiny",
    "imagenet": "vit_small",
    "folder": "vit_micro",
}
LAST_LAYER = "head/prototypes"


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``cifar10,vit_small,short``; default ``embedded,vit_micro,short``."""
    choice = base.parse(arg, BACKBONES)
    return base.make("ibot", choice, RECIPES.get(choice.dataset, gray)(choice.budget))


def gray(budget: str) -> base.Recipe:
    """28-pixel gray images, minutes on two CPU cores: DINO's recipe with a small ViT and, as ViTs are slow to start, four
    times as many steps of a quarter of the images."""
    return base.Recipe(
        batch_size=64,
        epochs={"short": 10, "paper": 100}.get(budget, 1),
        warmup_epochs=1,
        # Kernels of standard deviation 0.02 are too small for this width: blocks would start next to nothing.
        encoder={**base.GRAY_VIT, "pool": "mean", "init": "xavier", "position": "sincos", "mask_token": True},
        method={"prototypes": 256, "hidden": 128, "bottleneck": 64, "decay": 0.99},
        views={
            "preset": "dino",
            "local_size": 14,
            "local_count": 2,
            "global_area": (0.4, 1.0),
            "local_area": (0.1, 0.4),
            "local_blur": 0.0,
            "method": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "gray": 0.0,
            "blur": (0.0, 0.0),
            "solarize": (0.0, 0.0),
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "end_learning_rate": 1e-6,
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_tensor": 3.0,
        },
        freeze_epochs=((LAST_LAYER, 0.25),),
    )


def cifar10(budget: str) -> base.Recipe:
    """No reference recipe: the ImageNet one with patches of 4 pixels, 4 local crops of 16 pixels and K 4096."""
    recipe = imagenet(budget)
    return recipe._replace(
        epochs={"short": 200, "paper": 800}.get(budget, 1),
        batch_size=512,
        method={**recipe.method, "prototypes": 4096},
        views={**recipe.views, "local_size": 16, "local_count": 4, "blur": (0.0, 0.0), "local_blur": 0.0},
    )


def imagenet(budget: str) -> base.Recipe:
    """The code's ViT-S/16: batch 1024, AdamW 5e-4 x B/256, 800 epochs, 10 local crops, K 8192, prototypes' norm trained, both
    temperatures 0.04 to 0.07 over 30 epochs, last layer frozen for one epoch, gradients clipped tensor by tensor."""
    return base.Recipe(
        batch_size=1024,
        epochs={"short": 100, "paper": 800}.get(budget, 1),
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
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-4,
            "end_learning_rate": 1e-6,
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_tensor": 3.0,
        },
        freeze_epochs=((LAST_LAYER, 1),),
    )


def folder(budget: str) -> base.Recipe:
    """Your own images at 64 pixels: the ImageNet views with 4 local crops, the gray recipe's optimizer, a larger ViT."""
    return gray(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        encoder={"pool": "mean", "init": "trunc_normal", "mask_token": True},
        views={**imagenet(budget).views, "local_size": 32, "local_count": 4},
    )


RECIPES = {"cifar10": cifar10, "imagenet": imagenet, "folder": folder}
