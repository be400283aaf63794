"""Autoencoder. No recipe of the papers is for these images and encoders; they trained perceptrons on MNIST."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: 512 features of 784 pixels by ``convnet``, 256 by "
            "``mlp``."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=3,
        method={"decoder_channels": 8},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "cifar10": Recipe(
        source="Colour images: crops, and a wider decoder.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=10,
        method={"decoder_channels": 32},
        views={"preset": "mae", "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "imagenet": Recipe(
        source="Colour images: crops, and a wider decoder.",
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=10,
        method={"decoder_channels": 32},
        views={"preset": "mae", "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "folder": Recipe(
        source="Colour images: crops, and a wider decoder.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=10,
        method={"decoder_channels": 32},
        views={"preset": "mae", "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"decoder_channels": 4}
get_config = entry("autoencoder", RECIPES, smoke=SMOKE)
