"""W-MSE. Numbers: Ermolov et al. 2021, htdt/self-supervised."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, minutes on two CPU cores: SimCLR's views and optimizer.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"projector_width": 512},
        views={
            "preset": "wmse",
            "area": (0.3, 1.0),
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
            "README, two views: ResNet-18, batch 512, Adam 3e-3, groups of 128, 64 dimensions, 1000 epochs. The "
            "rate warms up over 500 steps and drops to a fifth 50 and 25 epochs before the end. Four views: "
            "``count`` 4, batch 256."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=500 / (50_000 // 512),
        method={},
        views={"preset": "wmse"},
        optimizer={
            "name": "adam",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "step",
            "factor": 0.2,
            "weight_decay": 1e-6,
            "exclude": "none",
        },
        boundary_epochs=(950, 975),
        by_budget={"short": {"boundary_epochs": (150, 175)}},
    ),
    "imagenet": Recipe(
        source=(
            "No recipe for all of ImageNet: that of Tiny ImageNet, Adam 2e-3, four draws of groups of 256, 128 "
            "dimensions."
        ),
        backbone="resnet50",
        batch_size=512,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=500 / (1_281_167 // 512),
        method={"projection": 128, "w_size": 256, "w_iter": 4},
        views={"preset": "wmse"},
        optimizer={
            "name": "adam",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "step",
            "factor": 0.2,
            "weight_decay": 1e-6,
            "exclude": "none",
        },
        boundary_epochs=(950, 975),
        by_budget={"short": {"boundary_epochs": (150, 175)}},
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the paper's views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"projector_width": 512},
        views={"preset": "wmse"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
# The covariance of eight images in four dimensions has full rank, but is far from the identity.
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 4, "w_size": 8, "epsilon": 0.01}
get_config = entry("wmse", RECIPES, smoke=SMOKE)
