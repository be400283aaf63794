"""I-JEPA. Numbers: Assran et al. 2023, appendix A.1, and facebookresearch/ijepa ``configs/in1k_vith14_ep300.yaml``."""

from ssl_jax.config import Recipe, at_64_pixels, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "mae",
        "fashion_mnist",
        source=(
            "28-pixel gray images: MAE's recipe, a teacher for short runs; kernels of standard deviation 0.02 are "
            "too small for this width."
        ),
        method={
            "decay": 0.98,
            "predictor_width": 64,
            "predictor_depth": 1,
            "predictor_heads": 4,
            "blocks": {"least_context": 4},
        },
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear", "flip_prob": 0.0},
        encoder={
            "width": 64,
            "depth": 3,
            "heads": 2,
            "pool": "mean",
            "class_token": False,
            "position": "sincos",
            "init": "xavier",
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one with a smaller predictor.",
        backbone="vit_tiny",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=40,
        method={"predictor_width": 96, "predictor_depth": 4},
        views={"preset": "mae", "area": (0.3, 1.0), "flip_prob": 0.0},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "start_learning_rate": 2e-4,
            "end_learning_rate": 1e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
        },
        encoder={"pool": "mean", "class_token": False, "position": "sincos", "init": "trunc_normal"},
    ),
    "imagenet": Recipe(
        source=(
            "Batch 2048, AdamW 2e-4 to 1e-3 in 40 epochs, on a cosine to 1e-6, decay 0.04 to 0.4, 300 epochs, EMA "
            "0.996 to 1."
        ),
        backbone="vit_base",
        batch_size=2048,
        epochs={"short": 100, "paper": 300},
        warmup_epochs=40,
        method={},
        views={"preset": "mae", "area": (0.3, 1.0), "flip_prob": 0.0},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "start_learning_rate": 2e-4,
            "end_learning_rate": 1e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
        },
        encoder={"pool": "mean", "class_token": False, "position": "sincos", "init": "trunc_normal"},
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: fashion_mnist's recipe, smaller crops, a larger ViT.",
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=5,
        method={
            "decay": 0.98,
            "predictor_width": 64,
            "predictor_depth": 1,
            "predictor_heads": 4,
            "blocks": {"least_context": 10},
        },
        views={"preset": "mae", "area": (0.3, 1.0), "flip_prob": 0.0},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={"pool": "mean", "class_token": False, "position": "sincos", "init": "trunc_normal"},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"predictor_width": 32}
get_config = entry("ijepa", RECIPES, smoke=SMOKE)
