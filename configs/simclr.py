"""SimCLR. Numbers: Chen et al. 2020, and google-research/simclr's README for CIFAR-10."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, about two minutes on two CPU cores; chosen among a few by the online probes on "
            "training images."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"temperature": 0.2, "projector_width": 512},
        views={
            "preset": "simclr",
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
            "README of google-research/simclr: ResNet-18, batch 512, LARS 1.0 x B/256, τ 0.5, strength 0.5, no "
            "blur."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={"temperature": 0.5},
        views={"preset": "simclr", "strength": 0.5, "blur_prob": 0.0},
        optimizer={
            "name": "lars",
            "learning_rate": 1.0,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "learning_rate_in_buffer": True,
        },
    ),
    "imagenet": Recipe(
        source="Paper, sections 2 and 4: ResNet-50, batch 4096, LARS 0.3 x B/256, weight decay 1e-6, τ 0.1.",
        backbone="resnet50",
        batch_size=4096,
        epochs={"short": 100, "paper": 1000},
        warmup_epochs=10,
        method={"temperature": 0.1},
        views={"preset": "simclr"},
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-6,
            "learning_rate_in_buffer": True,
        },
        encoder={"zero_init_residual": True},
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"temperature": 0.2, "projector_width": 512},
        views={"preset": "simclr", "strength": 0.5},
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
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("simclr", RECIPES, smoke=SMOKE)
