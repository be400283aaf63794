"""DirectCLR. Numbers: Jing et al. 2022, and facebookresearch/directclr."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: a ResNet-18 of a quarter of the width, 32 of its 128 "
            "features."
        ),
        # The features outside the sub-vector learn through residual connections, which the small convnet has not.
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"temperature": 0.2, "subvector": 32},
        views={
            "preset": "byol",
            "area": (0.3, 1.0),
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
        encoder={"zero_init_residual": True},
        by_backbone={"resnet": {"encoder": {"zero_init_residual": True, "stem": "imagenet", "width": 0.25}}},
    ),
    "cifar10": Recipe(
        source=(
            "No reference recipe: SimCLR's optimizer for CIFAR-10, and the paper's share of the features (360 of "
            "2048)."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={"subvector": 90},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={
            "name": "lars",
            "learning_rate": 1.0,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        encoder={"zero_init_residual": True},
    ),
    "imagenet": Recipe(
        source=(
            "README and code: ResNet-50, 360 of 2048 features, batch 4096, LARS 4.8 (not scaled), decay 1e-6, τ "
            "0.1, 100 epochs."
        ),
        backbone="resnet50",
        batch_size=4096,
        epochs={"short": 100, "paper": 100},
        warmup_epochs=10,
        method={"subvector": 360},
        views={"preset": "byol"},
        optimizer={
            "name": "lars",
            "learning_rate": 4.8,
            "end_learning_rate": 4.8e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer, a ResNet-18 of full "
            "width."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"subvector": 90},
        views={"preset": "byol"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        encoder={"zero_init_residual": True},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16, "subvector": 32}
get_config = entry("directclr", RECIPES, smoke=SMOKE)
