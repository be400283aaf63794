"""MaskFeat. Numbers: Wei et al. 2021, and mmselfsup's ``maskfeat`` config of ViT-B."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "mae",
        "fashion_mnist",
        source="28-pixel gray images: MAE's recipe, a cell a patch.",
        method={"cell": 7, "window": 14, "mask_ratio": 0.5},
        encoder={
            "width": 64,
            "depth": 3,
            "heads": 2,
            "pool": "mean",
            "position": "sincos",
            "mask_token": True,
        },
    ),
    "moving": Recipe(
        source="Frames of 40 pixels: fashion_mnist's recipe, whose cells are patches of 4 pixels here.",
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=5,
        method={"cell": 4, "window": 8, "mask_ratio": 0.5},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={
            "width": 64,
            "depth": 3,
            "heads": 2,
            "pool": "mean",
            "position": "sincos",
            "mask_token": True,
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one; a cell of 4 pixels a patch.",
        backbone="vit_tiny",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=10,
        method={"cell": 4, "window": 8},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.6e-3,
            "scaling": "linear",
            "reference_batch": 2048,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "clip_norm": 0.02,
        },
        encoder={"pool": "mean", "mask_token": True},
    ),
    "imagenet": Recipe(
        source=(
            "ViT-B/16: batch 2048, AdamW 1.6e-3 at that batch, decay 0.05, clip 0.02, 30 epochs of warm-up, 300 "
            "epochs."
        ),
        backbone="vit_base",
        batch_size=2048,
        epochs={"short": 100, "paper": 300},
        warmup_epochs=30,
        method={},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.6e-3,
            "scaling": "linear",
            "reference_batch": 2048,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "clip_norm": 0.02,
        },
        encoder={"pool": "mean", "mask_token": True},
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: the ImageNet views and mask, cells of a patch, fashion_mnist's "
            "optimizer, a larger ViT."
        ),
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=5,
        method={"cell": 4, "window": 8},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={"pool": "mean", "position": "sincos", "mask_token": True},
    ),
}
RECIPES["color32"] = in_color(RECIPES, method={"cell": 4, "window": 8, "mask_ratio": 0.4})
get_config = entry("maskfeat", RECIPES)
