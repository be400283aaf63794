"""Spectral contrastive learning. Numbers: jhaochenz96/spectral_contrastive_learning, its two config files."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, minutes on two CPU cores: SimCLR's views and optimizer, a smaller projector.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"projector_width": 512, "projection": 256},
        views={
            "preset": "moco_v2",
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
            "The code: ResNet-18, batch 512, projector 2048 to 1000, μ 1, SGD 0.03 x B/256, decay 5e-4 on all "
            "parameters, 10 epochs of warm-up, 800 epochs, no blur. It normalises by ImageNet's mean and deviation."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=10,
        method={"mu": 1.0},
        views={"preset": "moco_v2", "blur_prob": 0.0},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 5e-4,
            "exclude": "none",
        },
    ),
    "imagenet": Recipe(
        source=(
            "The code: ResNet-50, batch 384, three layers of 8192, μ 10, SGD 0.05 x B/256, decay 1e-4 on all "
            "parameters, 101 epochs, no warm-up."
        ),
        backbone="resnet50",
        batch_size=384,
        epochs={"short": 101, "paper": 101},
        warmup_epochs=0,
        method={"mu": 10.0, "projector_layers": 3, "projector_width": 8192, "projection": 8192},
        views={"preset": "moco_v2"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        encoder={"zero_init_residual": True},
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's network and optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"projector_width": 512, "projection": 256},
        views={"preset": "moco_v2"},
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
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("spectral", RECIPES, smoke=SMOKE)
