"""The tokenizer of BEiT. Numbers: lucidrains/DALLE-pytorch ``train_vae.py``, and Ramesh et al. 2021, appendix A.2."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "Gray images at 16 pixels, one word for 4 x 4: BEiT's grid of 4 x 4 patches of 7 pixels, seen from "
            "28."
        ),
        backbone="dvae",
        batch_size=256,
        epochs={"short": 20, "paper": 100},
        warmup_epochs=0,
        method={"code_width": 64},
        views={"preset": "mae", "size": 16, "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={"name": "adamw", "learning_rate": 2e-3, "scaling": "none", "schedule": "cosine"},
        encoder={"vocabulary_size": 256, "width": 64, "stride": 4, "blocks": 1},
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one at 32 pixels, a word for 4 x 4.",
        backbone="dvae",
        batch_size=512,
        epochs={"short": 100, "paper": 300},
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "size": 32},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-4,
            "end_learning_rate": 1.25e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        encoder={"vocabulary_size": 1024, "width": 128, "stride": 4, "blocks": 2},
    ),
    "imagenet": Recipe(
        source=(
            "112 pixels, 14 x 14 words of 8192; Adam at 1e-4 to 1.25e-6 on a cosine, batch 512, β 6.6 on a sum "
            "over places scaled by 1/192 there (0 in DALLE-pytorch, and here), temperature 1 to 1/16."
        ),
        backbone="dvae",
        batch_size=512,
        epochs={"short": 20, "paper": 100},
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "size": 112, "area": (0.08, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-4,
            "end_learning_rate": 1.25e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels, a word for 4 x 4, fashion_mnist's optimizer.",
        backbone="dvae",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=0,
        method={"code_width": 64},
        views={"preset": "mae", "size": 64, "area": (0.2, 1.0)},
        optimizer={"name": "adamw", "learning_rate": 2e-3, "scaling": "none", "schedule": "cosine"},
        encoder={"vocabulary_size": 1024, "width": 128, "stride": 4, "blocks": 2},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"code_width": 16}
get_config = entry("dvae", RECIPES, smoke=SMOKE)
