"""Supervised training: the baseline for the other methods, with their default encoder, crops and budget.

With ``--config.data.num_labels=100`` it trains on these hundred images alone, the baseline for semi-supervised methods.
"""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images: the optimizer of the other methods' recipes, one view, milder crops.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"classes": 10},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        labeled_fraction=1.0,
    ),
    "cifar10": Recipe(
        source="No reference recipe: SGD 0.1 at batch 256, weight decay 5e-4, half-size crops and flips.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=10,
        method={"classes": 10},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.1,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 5e-4,
        },
        labeled_fraction=1.0,
    ),
    "imagenet": Recipe(
        source=(
            "Goyal et al. 2017, section 5.1: ResNet-50, SGD 0.1 x B/256, weight decay 1e-4, 90 epochs, 5 of "
            "warm-up."
        ),
        backbone="resnet50",
        batch_size=1024,
        epochs={"short": 30, "paper": 90},
        warmup_epochs=5,
        method={"classes": 1000},
        views={"preset": "mae", "area": (0.08, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.1,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        encoder={"zero_init_residual": True},
        labeled_fraction=1.0,
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels, one sub-folder a class; give their number as --config.method.classes.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"classes": 10},
        views={"preset": "mae", "area": (0.2, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        labeled_fraction=1.0,
    ),
}
RECIPES["color32"] = in_color(RECIPES)
get_config = entry("supervised", RECIPES)
