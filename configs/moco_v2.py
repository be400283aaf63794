"""MoCo v2. Numbers: Chen et al. 2020, facebookresearch/moco and its CIFAR-10 notebook."""

from ssl_jax.config import Recipe, entry, in_color

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
        method={"temperature": 0.2, "queue_size": 4096, "decay": 0.99, "projector_width": 512},
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
            "The authors' notebook: ResNet-18, batch 512, K 4096, m 0.99, τ 0.1, SGD 0.06, decay 5e-4, BatchNorm "
            "in 8 groups."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=0,
        method={"temperature": 0.1, "queue_size": 4096, "decay": 0.99, "bn_groups": 8},
        views={"preset": "moco_v2", "area": (0.08, 1.0), "blur_prob": 0.0},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.06,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 5e-4,
            "exclude": "none",
        },
        hold_each_epoch=True,
    ),
    "imagenet": Recipe(
        source=(
            "Paper and code: ResNet-50, batch 256 on 8 GPUs, K 65536, m 0.999, τ 0.2, SGD 0.03, decay 1e-4, 200 "
            "or 800 epochs."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=0,
        method={"bn_groups": 8},
        views={"preset": "moco_v2"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        hold_each_epoch=True,
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"temperature": 0.2, "queue_size": 4096, "decay": 0.99, "projector_width": 512},
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
SMOKE = {"projector_width": 32, "projection": 16, "queue_size": 32}
get_config = entry("moco_v2", RECIPES, smoke=SMOKE)
