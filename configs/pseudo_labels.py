"""Pseudo-labels. There is no recipe to follow for rounds at this size: supervised training's, on few labels."""

from ssl_jax.config import Recipe, derive, entry, in_color, share

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, minutes on two CPU cores, with 100 labels.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 50},
        warmup_epochs=0.5,
        method={"num_labels": 100, "threshold": 0.9},
        views={"preset": "mae", "area": (0.3, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        # Six rounds, the first with the labelled images alone.
        refresh_epochs=share(1, of=6),
    ),
    "cifar10": derive(
        "supervised",
        "cifar10",
        source="4000 labels, as the papers of the semi-supervised line have; the optimizer of supervised training.",
        method={"num_labels": 4000},
        refresh_epochs=share(1, of=6),
        labeled_fraction=None,
    ),
    "imagenet": derive(
        "supervised",
        "imagenet",
        source="One label in a hundred images; the optimizer of supervised training.",
        method={"classes": 1000, "num_labels": 12_811},
        refresh_epochs=share(1, of=6),
        labeled_fraction=None,
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: crop and flip, fashion_mnist's options. Give the number of classes: "
            "--config.method.classes=N."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=0.5,
        method={"num_labels": 100, "threshold": 0.9},
        views={"preset": "mae", "area": (0.2, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        refresh_epochs=share(1, of=6),
    ),
}
RECIPES["color32"] = in_color(RECIPES)
get_config = entry("pseudo_labels", RECIPES)
