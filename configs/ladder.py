"""Ladder network. Numbers: Rasmus et al. 2015 and CuriousAI/ladder, README.md."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "MNIST with 100 labels: 1000-500-250-250-250, λ 1000, 10, .1, ..., noise .3, Adam 0.002, 100 + 100 "
            "images, 150 epochs of the unlabelled ones, the rate falling from two thirds on (here on a cosine)."
        ),
        backbone="ladder",
        batch_size=200,
        epochs={"short": 20, "paper": 300},
        warmup_epochs=0,
        method={},
        # The whole image with pixels in [0, 1], which the costs are meant for.
        views={
            "preset": "mae",
            "area": (1.0, 1.0),
            "ratio": (1.0, 1.0),
            "flip_prob": 0.0,
            "mean": (),
            "std": (),
        },
        optimizer={"name": "adam", "learning_rate": 2e-3, "scaling": "none", "schedule": "cosine"},
        num_labels=100,
        labeled_fraction=0.5,
    ),
    "cifar10": Recipe(
        source=(
            "4000 labels: the Γ-model with λ 4 on convolutions, Adam 0.002, 100 + 100 images, 70 epochs of the "
            "unlabelled ones. The network there has nine convolutions and leaky ReLUs, and its images are "
            "whitened."
        ),
        backbone="ladder",
        batch_size=200,
        epochs={"short": 40, "paper": 140},
        warmup_epochs=0,
        method={"model": "gamma", "costs": (4.0,)},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "flip_prob": 0.0},
        optimizer={"name": "adam", "learning_rate": 2e-3, "scaling": "none", "schedule": "cosine"},
        encoder={"channels": (96, 192, 192), "widths": ()},
        num_labels=4000,
        labeled_fraction=0.5,
    ),
    "imagenet": Recipe(
        source="No reference recipe: the Γ-model of CIFAR-10 on more convolutions, crops, a tenth of the labels.",
        backbone="ladder",
        batch_size=200,
        epochs={"short": 30, "paper": 90},
        warmup_epochs=0,
        method={"model": "gamma", "costs": (4.0,)},
        views={"preset": "mae"},
        optimizer={"name": "adam", "learning_rate": 2e-3, "scaling": "none", "schedule": "cosine"},
        encoder={"channels": (64, 128, 256, 512, 512), "widths": (), "classes": 1000},
        num_labels=128_000,
        labeled_fraction=0.5,
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels, one sub-folder a class: give --config.encoder.classes and "
            "--config.data.num_labels."
        ),
        backbone="ladder",
        batch_size=200,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=0,
        method={"model": "gamma", "costs": (4.0,)},
        views={"preset": "mae"},
        optimizer={"name": "adam", "learning_rate": 2e-3, "scaling": "none", "schedule": "cosine"},
        encoder={"channels": (96, 192, 192), "widths": ()},
        num_labels=100,
        labeled_fraction=0.5,
    ),
}
RECIPES["color32"] = in_color(RECIPES)
get_config = entry("ladder", RECIPES)
