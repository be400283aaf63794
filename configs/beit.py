"""BEiT. Numbers: Bao et al. 2021, section 3 and appendix, and microsoft/unilm ``beit/README.md``.

``--config.method.tokenizer=exported/encoder.safetensors`` chooses the tokenizer; without it its weights are random.
"""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "mae",
        "fashion_mnist",
        source="28-pixel gray images: MAE's recipe, BEiT's positions and mask.",
        method={"vocabulary_size": 256},
        # Without LayerScale, and with a start for this width: blocks would begin next to nothing.
        encoder={
            "width": 64,
            "depth": 3,
            "heads": 2,
            "pool": "mean",
            "init": "xavier",
            "mask_token": True,
            "position": "relative",
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one.",
        backbone="vit_tiny",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=10,
        method={"vocabulary_size": 1024},
        views={
            "preset": "npid",
            "area": (0.08, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.0},
            "grayscale_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
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
            "layer_scale": 0.1,
            "init": "beit",
            "mask_token": True,
            "drop_path": 0.1,
        },
    ),
    "imagenet": Recipe(
        source=(
            "ViT-B/16: batch 2048, AdamW 1.5e-3 at that batch, decay 0.05, clip 3, 10 epochs of warm-up, 800 "
            "epochs, drop path 0.1."
        ),
        backbone="vit_base",
        batch_size=2048,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=10,
        method={},
        views={
            "preset": "npid",
            "area": (0.08, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.0},
            "grayscale_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
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
            "layer_scale": 0.1,
            "init": "beit",
            "mask_token": True,
            "drop_path": 0.1,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: fashion_mnist's recipe, smaller crops, a larger ViT.",
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=5,
        method={"vocabulary_size": 1024},
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
            "position": "relative",
            "layer_scale": 0.1,
            "init": "beit",
            "mask_token": True,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"vocabulary_size": 32}
get_config = entry("beit", RECIPES, smoke=SMOKE)
