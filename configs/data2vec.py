"""data2vec. Numbers: Baevski et al. 2022, section 4, and facebookresearch/data2vec_vision ``beit/README.md``."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "mae",
        "fashion_mnist",
        source=(
            "28-pixel gray images: MAE's recipe, BEiT's start, two of its three blocks as targets, a teacher for "
            "short runs."
        ),
        method={"layers": 2, "decay": 0.99},
        encoder={
            "width": 64,
            "depth": 3,
            "heads": 2,
            "pool": "mean",
            "init": "xavier",
            "mask_token": True,
            "position": "sincos",
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one, with a faster teacher.",
        backbone="vit_tiny",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=10,
        method={"decay": 0.998},
        views={
            "preset": "npid",
            "area": (0.08, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.0},
            "grayscale_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "end_learning_rate": 1e-5,
            "scaling": "linear",
            "reference_batch": 2048,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "clip_norm": 3.0,
        },
        encoder={
            "pool": "mean",
            "position": "relative",
            "layer_scale": 1e-4,
            "init": "beit",
            "mask_token": True,
            "drop_path": 0.25,
        },
    ),
    "imagenet": derive(
        "beit",
        "imagenet",
        source="ViT-B/16: BEiT's recipe with AdamW 2e-3, drop path 0.25, LayerScale 1e-4.",
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "end_learning_rate": 1e-5,
            "scaling": "linear",
            "reference_batch": 2048,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "clip_norm": 3.0,
        },
        encoder={
            "pool": "mean",
            "position": "relative",
            "layer_scale": 1e-4,
            "init": "beit",
            "mask_token": True,
            "drop_path": 0.25,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: fashion_mnist's recipe, smaller crops, a larger ViT.",
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=5,
        method={"layers": 2, "decay": 0.99},
        views={"preset": "mae", "area": (0.2, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={
            "pool": "mean",
            "position": "sincos",
            "layer_scale": 0.1,
            "init": "beit",
            "mask_token": True,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"layers": 2}
get_config = entry("data2vec", RECIPES, smoke=SMOKE)
