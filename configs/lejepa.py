"""LeJEPA. Numbers: rbalestr-lab/lejepa, README and ``MINIMAL.md``."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, minutes on two CPU cores: DINO's crops, a smaller projector.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 100},
        warmup_epochs=1,
        method={"projector_width": 512, "projection": 16, "directions": 256},
        views={
            "preset": "dino",
            "local_size": 14,
            "local_count": 2,
            "global_area": (0.4, 1.0),
            "local_area": (0.1, 0.4),
            "local_blur_prob": 0.0,
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": (0.0, 0.0),
            "solarize_prob": (0.0, 0.0),
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one with crops of 32 and 16 pixels.",
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=1,
        method={},
        views={
            "preset": "dino",
            "local_count": 6,
            "global_area": (0.3, 1.0),
            "local_area": (0.05, 0.3),
            "blur_prob": (0.0, 0.0),
            "solarize_prob": (0.2, 0.2),
            "local_size": 16,
            "local_blur_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-4,
            "end_learning_rate": 5e-7,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 5e-4,
        },
    ),
    "imagenet": Recipe(
        source=(
            "AdamW 5e-4, decay 5e-4 (ResNets), cosine to a thousandth, crops of 224 and 98 pixels; batch 512, 100 "
            "epochs."
        ),
        backbone="resnet50",
        batch_size=512,
        epochs={"short": 100, "paper": 100},
        warmup_epochs=1,
        method={},
        views={
            "preset": "dino",
            "local_count": 6,
            "global_area": (0.3, 1.0),
            "local_area": (0.05, 0.3),
            "blur_prob": (0.5, 0.5),
            "solarize_prob": (0.2, 0.2),
            "local_size": 98,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-4,
            "end_learning_rate": 5e-7,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 5e-4,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"projector_width": 512, "projection": 16, "directions": 256},
        views={
            "preset": "dino",
            "local_count": 6,
            "global_area": (0.3, 1.0),
            "local_area": (0.05, 0.3),
            "blur_prob": (0.5, 0.5),
            "solarize_prob": (0.2, 0.2),
            "local_size": 32,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("lejepa", RECIPES, smoke=SMOKE)
