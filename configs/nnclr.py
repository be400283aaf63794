"""NNCLR. Numbers: Dwibedi et al. 2021, section 4, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, minutes on two CPU cores; a queue of 16 batches.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={
            "temperature": 0.2,
            "queue_size": 4096,
            "projector_width": 512,
            "projection": 128,
            "predictor_width": 512,
        },
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
            "solo-learn's CIFAR-10: batch 256, τ 0.2, queue 65536, LARS 0.4, decay 1e-5, no blur, solarize 0 and "
            "0.2. Its LARS is another optimizer (clipped, trust coefficient 0.02); here the official rule of BYOL "
            "with the same rate."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={"temperature": 0.2, "queue_size": 65_536},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={
            "name": "lars",
            "learning_rate": 0.4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-5,
        },
    ),
    "imagenet": Recipe(
        source=(
            "Paper, section 4.1: ResNet-50, batch 4096, queue 98304, τ 0.1, LARS 0.3 x B/256, decay 1e-6, 1000 "
            "epochs."
        ),
        backbone="resnet50",
        batch_size=4096,
        epochs={"short": 100, "paper": 1000},
        warmup_epochs=10,
        method={},
        views={"preset": "byol"},
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={
            "temperature": 0.2,
            "queue_size": 4096,
            "projector_width": 512,
            "projection": 128,
            "predictor_width": 512,
        },
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
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "predictor_width": 32, "projection": 16, "queue_size": 32}
get_config = entry("nnclr", RECIPES, smoke=SMOKE)
