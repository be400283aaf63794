"""OBoW. Numbers: Gidaris et al. 2021 and valeoai/obow."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores. The convnet's last map is 4 x 4, so its border "
            "stays. One level, δ⁻¹ 15 and a fast teacher are the best of eight trials of 300 steps by the online "
            "probes on training images."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={
            "vocabulary_size": 512,
            "levels": 1,
            "border": 0,
            "hidden_dim": 256,
            "kappa": 5.0,
            "decay": 0.9,
        },
        views={
            "preset": "obow",
            "crop_size": 28,
            "local_size": 14,
            "local_count": 0,
            "crop_area": (0.3, 1.0),
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": 0.0,
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
        source=(
            "No reference recipe: the one of ResNet-18 on a fifth of ImageNet, with fewer words and whole maps of "
            "8 x 8 and 4 x 4."
        ),
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 80, "paper": 200},
        warmup_epochs=5,
        method={
            "vocabulary_size": 2048,
            "border": 0,
            "hidden_dim": 1024,
            "kappa": 5.0,
            "inverse_delta": 10.0,
        },
        views={"preset": "obow", "crop_size": 24, "local_size": 16, "blur_prob": 0.0},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 5e-4,
        },
    ),
    "imagenet": Recipe(
        source=(
            "valeoai/obow, ``ResNet50_OBoW_full``: batch 256, SGD 0.03 on a cosine to 3e-5, weight decay 1e-4, "
            "200 epochs, K 8192, κ 8, δ⁻¹ 15, m₀ 0.99. There the cosine, not the warm-up, is held for an epoch; "
            "here neither is."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=10,
        method={},
        views={"preset": "obow"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "end_learning_rate": 3e-5,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views in proportion, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={
            "vocabulary_size": 512,
            "levels": 1,
            "border": 0,
            "hidden_dim": 256,
            "kappa": 5.0,
            "decay": 0.9,
        },
        views={"preset": "obow", "crop_size": 48, "local_size": 32, "local_count": 3},
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
SMOKE = {"hidden_dim": 32, "vocabulary_size": 32}
get_config = entry("obow", RECIPES, smoke=SMOKE)
