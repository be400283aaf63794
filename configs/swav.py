"""SwAV. Numbers: Caron et al. 2020, facebookresearch/swav, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: DINO's crops, fewer prototypes than images in a "
            "batch and so no queue."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 100},
        warmup_epochs=1,
        method={"prototypes": 200, "projector_width": 512},
        views={
            "preset": "dino",
            "local_size": 14,
            "local_count": 2,
            "global_area": (0.4, 1.0),
            "local_area": (0.1, 0.4),
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
            "normalize_rows": ("prototypes",),
        },
        freeze_epochs=(("prototypes", 1),),
    ),
    "cifar10": Recipe(
        source=(
            "solo-learn's CIFAR-10: ResNet-18, batch 256, two views, K 3000, a queue of 3840 from epoch 50, LARS "
            "0.6, weight decay 1e-6, prototypes frozen for two epochs. Its LARS is another optimizer (clipped); "
            "here the authors' rule."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={"queue_size": 3840},
        views={
            "preset": "dino",
            "global_area": (0.08, 1.0),
            "local_area": (0.05, 0.14),
            "local_count": 0,
            "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
            "blur_prob": (0.5, 0.5),
            "solarize_prob": (0.0, 0.0),
            "local_size": 16,
        },
        # The authors' optimizer: ratio and decay reach every parameter.
        optimizer={
            "name": "lars",
            "learning_rate": 0.6,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "trust_norm": "parts",
            "exclude": "none",
            "weight_decay": 1e-6,
            "normalize_rows": ("prototypes",),
        },
        freeze_epochs=(("prototypes", 2),),
        method_epochs={"queue_start": 50},
    ),
    "imagenet": Recipe(
        source=(
            "The code: ResNet-50, batch 4096, 2 x 224 + 6 x 96, K 3000, no queue, rate 0.3 to 4.8 in 10 epochs, "
            "then to 0.0048, weight decay 1e-6, prototypes frozen for an epoch. (Batch 256: rate 0.6 to 0.0006, "
            "no warm-up, a queue of 3840 from epoch 15.)"
        ),
        backbone="resnet50",
        batch_size=4096,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=10,
        method={},
        views={
            "preset": "dino",
            "global_area": (0.14, 1.0),
            "local_area": (0.05, 0.14),
            "local_count": 6,
            "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
            "blur_prob": (0.5, 0.5),
            "solarize_prob": (0.0, 0.0),
        },
        # The authors' optimizer: ratio and decay reach every parameter.
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "start_learning_rate": 0.3,
            "end_learning_rate": 4.8e-3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "trust_norm": "parts",
            "exclude": "none",
            "weight_decay": 1e-6,
            "normalize_rows": ("prototypes",),
        },
        freeze_epochs=(("prototypes", 1),),
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"prototypes": 200, "projector_width": 512},
        views={
            "preset": "dino",
            "global_area": (0.14, 1.0),
            "local_area": (0.05, 0.14),
            "local_count": 4,
            "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
            "blur_prob": (0.5, 0.5),
            "solarize_prob": (0.0, 0.0),
            "local_size": 32,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "normalize_rows": ("prototypes",),
        },
        freeze_epochs=(("prototypes", 1),),
    ),
}
RECIPES["color32"] = in_color(RECIPES)
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16, "prototypes": 64, "queue_size": 32}
get_config = entry("swav", RECIPES, smoke=SMOKE)
