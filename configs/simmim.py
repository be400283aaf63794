"""SimMIM. Numbers: Xie et al. 2021, section 4.1, and microsoft/SimMIM ``configs/vit_base__800ep``."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "mae",
        "fashion_mnist",
        source="28-pixel gray images: MAE's recipe, half of the 16 patches masked one by one.",
        method={"mask_ratio": 0.5, "unit": 1},
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
        source="No reference recipe: the ImageNet one; squares of 8 pixels.",
        backbone="vit_tiny",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=10,
        method={},
        views={"preset": "mae", "area": (0.67, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-4,
            "scaling": "linear",
            "reference_batch": 512,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "clip_norm": 5.0,
        },
        encoder={
            "pool": "mean",
            "position": "relative",
            "mask_token": True,
            "drop_path": 0.1,
            "layer_scale": 0.1,
        },
    ),
    "imagenet": Recipe(
        source=(
            "ViT-B/16: batch 2048, AdamW 1e-4 x B/512, decay 0.05, clip 5, 10 epochs of warm-up, 800 epochs, drop "
            "path 0.1, squares of 32 pixels, 60 % masked."
        ),
        backbone="vit_base",
        batch_size=2048,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=10,
        method={},
        views={"preset": "mae", "area": (0.67, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-4,
            "scaling": "linear",
            "reference_batch": 512,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "clip_norm": 5.0,
        },
        encoder={
            "pool": "mean",
            "position": "relative",
            "mask_token": True,
            "drop_path": 0.1,
            "layer_scale": 0.1,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views and mask, fashion_mnist's optimizer, a larger ViT.",
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=5,
        method={"unit": 2},
        views={"preset": "mae", "area": (0.67, 1.0)},
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
RECIPES["color32"] = in_color(RECIPES, method={"mask_ratio": 0.6, "unit": 2})
get_config = entry("simmim", RECIPES)
