"""MAE. Numbers: He et al. 2021, appendix A.1, and facebookresearch/mae's PRETRAIN.md."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores; chosen among a few by the online probes on training "
            "images."
        ),
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=5,
        # Half of 16 patches, not three quarters: better by the online probes on training images.
        method={"mask_ratio": 0.5, "decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={"width": 64, "depth": 3, "heads": 2, "pool": "mean", "position": "sincos"},
    ),
    "cifar10": Recipe(
        source=(
            "No reference recipe: the ImageNet one with a smaller decoder, patches of 4 pixels, and more epochs "
            "of warm-up."
        ),
        backbone="vit_tiny",
        batch_size=1024,
        epochs={"short": 200, "paper": 1600},
        warmup_epochs=40,
        method={"decoder_width": 192, "decoder_depth": 4, "decoder_heads": 3},
        views={"preset": "mae"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={"position": "sincos"},
    ),
    "imagenet": Recipe(
        source=(
            "Appendix A.1: ViT-B/16, batch 4096, AdamW 1.5e-4 x B/256, (β₁, β₂) = (.9, .95), decay 0.05 on every "
            "tensor of 2 or more axes (tokens included), 40 epochs of warm-up, 800 epochs."
        ),
        backbone="vit_base",
        batch_size=4096,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=40,
        method={},
        views={"preset": "mae"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={"position": "sincos"},
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: the ImageNet views and mask ratio, fashion_mnist's optimizer, a larger "
            "ViT."
        ),
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=5,
        method={"mask_ratio": 0.75, "decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4},
        views={"preset": "mae"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
        encoder={"pool": "mean", "position": "sincos"},
    ),
}
RECIPES["color32"] = in_color(RECIPES, method={"mask_ratio": 0.75})
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
get_config = entry("mae", RECIPES, smoke=SMOKE)
