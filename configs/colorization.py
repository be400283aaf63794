"""Colorization. Numbers: Zhang et al. 2016 and richzhang/colorization."""

from ssl_jax.config import Recipe, entry, in_color, share

RECIPES = {
    "embedded_color": Recipe(
        source="28-pixel images, minutes on two CPU cores: the last two maps, so that 7 x 7 places are predicted.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 100},
        warmup_epochs=1,
        method={"levels": 2},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "cifar10": Recipe(
        source=(
            "No reference recipe: the ImageNet one, with the maps of the last two stages and a rate for larger "
            "batches."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=0,
        method={"levels": 2},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-3,
        },
    ),
    "imagenet": Recipe(
        source=(
            "The code: Adam 3e-5 (β₂ .99), decay 1e-3, batch 40, crops of 176 pixels and a flip, rate times 0.1 "
            "at 225,000 of 500,000 steps, 16 epochs."
        ),
        backbone="resnet50",
        batch_size=40,
        epochs={"short": 8, "paper": 16},
        warmup_epochs=0,
        method={"levels": 2},
        views={"preset": "mae", "size": 176, "area": (0.2, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-5,
            "scaling": "none",
            "schedule": "step",
            "weight_decay": 1e-3,
            "b2": 0.99,
        },
        # Counted in steps there.
        boundary_epochs=(share(225_000, of=500_000),),
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels, in colour: embedded_color's options.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"levels": 2},
        views={"preset": "mae", "area": (0.2, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES, small="embedded_color")
SMOKE = {"hidden_dim": 32}
get_config = entry("colorization", RECIPES, smoke=SMOKE, dataset="embedded_color")
