"""E-SSL. Numbers: Dangovski et al. 2022 and rdangovs/essl."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: SimCLR's optimizer and temperature, a third view of 14 "
            "pixels, small heads."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"temperature": 0.2, "projector_width": 512, "projection": 128, "head_widths": (256,)},
        views={
            "preset": "dino",
            "local_size": 14,
            "local_count": 1,
            "global_area": (0.3, 1.0),
            "local_area": (0.3, 1.0),
            "local_blur_prob": 0.0,
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
            "README and code of E-SimCLR: ResNet-18, batch 512, SGD 0.06 x B/256, decay 5e-4 on all parameters, 10 "
            "epochs of warm-up, 800 epochs, λ 0.4, τ 0.5, a third view of 16 pixels, no blur."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=10,
        method={"transformation_weight": 0.4, "temperature": 0.5},
        views={
            "preset": "dino",
            "local_size": 16,
            "local_count": 1,
            "global_area": (0.2, 1.0),
            "local_area": (0.2, 1.0),
            "local_blur_prob": 0.0,
            "interpolation": "bilinear",
            "jitter": {"saturation": 0.4},
            "blur_prob": (0.0, 0.0),
            "solarize_prob": (0.0, 0.0),
        },
        optimizer={
            "name": "sgd",
            "learning_rate": 0.06,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 5e-4,
            "exclude": "none",
        },
    ),
    "imagenet": Recipe(
        source=(
            "Code of E-SimCLR: ResNet-50, batch 4096, LARS 4.8 (0.3 x B/256) to a thousandth, decay 1e-6, λ 0.4, τ 0.2, "
            "a third view of 96 pixels."
        ),
        backbone="resnet50",
        batch_size=4096,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=10,
        method={
            "transformation_weight": 0.4,
            "temperature": 0.2,
            "projector_layers": 3,
            "projection": 128,
            "head_widths": (2048, 2048, 128),
        },
        views={
            "preset": "dino",
            "local_size": 96,
            "local_count": 1,
            "global_area": (0.08, 1.0),
            "local_area": (0.05, 0.14),
            "local_blur_prob": 0.1,
        },
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "end_learning_rate": 4.8e-3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: the CIFAR-10 crops at twice the size, fashion_mnist's network and optimizer. "
            "They need an upright."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"temperature": 0.2, "projector_width": 512, "projection": 128, "head_widths": (256,)},
        views={
            "preset": "dino",
            "local_size": 32,
            "local_count": 1,
            "global_area": (0.2, 1.0),
            "local_area": (0.2, 1.0),
            "local_blur_prob": 0.5,
            "blur_prob": (0.5, 0.5),
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
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16, "head_widths": (32,)}
get_config = entry("essl", RECIPES, smoke=SMOKE)
