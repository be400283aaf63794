"""Π-model. Numbers: Laine & Aila 2017, section 3 and appendix A, and smlaine2/tempens."""

from ssl_jax.config import Recipe, entry, in_color, share

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, 100 labels, a quarter of each batch.",
        backbone="convnet",
        batch_size=128,
        epochs={"short": 20, "paper": 200},
        warmup_epochs=1,
        # Chosen on training images whose labels are hidden: larger shifts are worse, also for training on the labels alone; so
        # is dropout, by 3 points with 1,000 labels. With so many, half of each batch is better than a quarter.
        method={"ramp": {"weight": 10.0}, "dropout": 0.0},
        views={"preset": "consistency", "area": (0.8, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        method_epochs={"ramp.steps": 5, "ramp.quiet_steps": 1},
        num_labels=100,
        labeled_fraction=0.25,
    ),
    "cifar10": Recipe(
        source=(
            "4000 labels, as they come: Adam 0.003, batch 100, 300 epochs; weight 100 x 4000/50,000; ramps of 80 "
            "and 50 epochs. The paper also lowers Adam's β₁ to 0.5 in the last 50 epochs, and has a network of "
            "its own of 13 layers."
        ),
        backbone="resnet18",
        batch_size=100,
        epochs={"short": 60, "paper": 300},
        warmup_epochs=share(80, of=300),
        method={"ramp": {"weight": 8.0}},
        views={"preset": "consistency"},
        optimizer={"name": "adam", "learning_rate": 3e-3, "scaling": "none", "schedule": "ramps"},
        rampdown_epochs=share(50, of=300),
        method_epochs={"ramp.steps": share(80, of=300), "ramp.quiet_steps": 1},
        num_labels=4000,
    ),
    "imagenet": Recipe(
        source=(
            "No reference recipe: the optimizer, labels and batches of Mean Teacher's (a tenth of the labels, "
            "half of each batch)."
        ),
        backbone="resnet50",
        batch_size=400,
        epochs={"short": 30, "paper": 60},
        warmup_epochs=2,
        method={"classes": 1000, "ramp": {"weight": 100.0}, "noise": 0.0, "dropout": 0.0},
        views={"preset": "consistency", "area": (0.08, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.25,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 5e-5,
            "nesterov": True,
        },
        method_epochs={"ramp.steps": 5},
        num_labels=128_000,
        labeled_fraction=0.5,
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels, one sub-folder a class: give --config.method.classes and "
            "--config.data.num_labels."
        ),
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"ramp": {"weight": 10.0}, "dropout": 0.0},
        views={"preset": "consistency"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        method_epochs={"ramp.steps": 5, "ramp.quiet_steps": 1},
        num_labels=100,
        labeled_fraction=0.25,
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"ramp.steps": 1, "ramp.quiet_steps": 0}
get_config = entry("pi_model", RECIPES, smoke=SMOKE)
