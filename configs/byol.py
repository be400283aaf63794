"""BYOL. Numbers: Grill et al. 2020, deepmind-research/byol, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores; chosen among a few by the online probes on training "
            "images."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"decay": 0.99, "hidden_dim": 512, "projection": 128},
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
    ),
    "cifar10": Recipe(
        source=(
            "solo-learn's CIFAR-10: heads 4096 to 256, decay 0.99 to 1, weight decay 1e-5, no blur, solarize 0 "
            "and 0.2. Its LARS is another optimizer (clipped, trust coefficient 0.02); here the official rule "
            "with base rate 1.0."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={"decay": 0.99},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={
            "name": "lars",
            "learning_rate": 1.0,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-5,
        },
    ),
    "imagenet": Recipe(
        source=(
            "Paper, section 3.3 and the code's presets: (base rate, weight decay, m₀) are (.45, 1e-6, .99) for "
            "100 epochs and (.2, 1.5e-6, .996) for 1000."
        ),
        backbone="resnet50",
        batch_size=4096,
        epochs={"short": 100, "paper": 1000},
        warmup_epochs=10,
        method={"decay": 0.996},
        views={"preset": "byol", "jitter": {"additive_brightness": True}},
        optimizer={
            "name": "lars",
            "learning_rate": 0.2,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1.5e-6,
        },
        by_budget={
            "short": {
                "method": {"decay": 0.99},
                "optimizer": {
                    "name": "lars",
                    "learning_rate": 0.45,
                    "scaling": "linear",
                    "reference_batch": 256,
                    "schedule": "cosine",
                    "weight_decay": 1e-6,
                },
            }
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"decay": 0.99, "hidden_dim": 512, "projection": 128},
        views={"preset": "byol"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
# What a teacher of random weights adds fades in some hundred steps only, which is much of a short run (docs/benchmarks.md).
RECIPES["color32"] = in_color(RECIPES, method={"independent_init": False})
RECIPES["color64"] = at_64_pixels(RECIPES, method={"independent_init": False})
SMOKE = {"projector_width": 32, "predictor_width": 32, "hidden_dim": 32, "projection": 16}
get_config = entry("byol", RECIPES, smoke=SMOKE)
