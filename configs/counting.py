"""Learning to count. Numbers: Noroozi et al. 2017 from memory, and ahmdtaha/tf_learning_to_count, which comes near them."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: tiles of 14 pixels, a third of the other recipes' "
            "rate."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"counts": 256, "hidden_dim": 256, "hidden_layers": 1},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one with a smaller head; tiles of 16 pixels.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=0,
        method={"hidden_dim": 1024},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={"name": "adam", "learning_rate": 1e-4, "scaling": "none", "schedule": "cosine"},
    ),
    "imagenet": Recipe(
        source=(
            "tf_learning_to_count: batch 256, Adam 1e-4, 1000 counts, M 10, crops of 256 pixels and colour "
            "jitter, 250 epochs, there with AlexNet and without gray images. The paper makes two thirds of them "
            "gray (from memory)."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 50, "paper": 250},
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "size": 256, "area": (0.08, 1.0), "grayscale_prob": 0.67},
        optimizer={"name": "adam", "learning_rate": 1e-4, "scaling": "none", "schedule": "cosine"},
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer; tiles of 32 pixels.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"counts": 256, "hidden_dim": 256, "hidden_layers": 1},
        views={"preset": "mae", "area": (0.2, 1.0), "grayscale_prob": 0.67},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"hidden_dim": 32}
get_config = entry("counting", RECIPES, smoke=SMOKE)
