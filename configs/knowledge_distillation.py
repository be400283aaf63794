"""Distillation from a frozen teacher. Numbers: SEED (Fang et al. 2021) for similarities; the others are ours.

``--config.method.teacher=exported/encoder.safetensors`` chooses the teacher; without it a random network is learnt from.
"""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: a small student of a random network's features of "
            "the other view."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"pairing": "other", "hidden_dim": 512},
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
        encoder={"widths": (16, 32, 64)},
    ),
    "cifar10": Recipe(
        source="No reference recipe: features of the other view, SGD with SEED's rate.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=5,
        method={"pairing": "other"},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "imagenet": Recipe(
        source=(
            "SEED: one view for both, as in MoCo v2, a queue of 65,536, τ_t 0.01, τ_s 0.2, SGD 0.03 x B/256 on a "
            "cosine, weight decay 1e-4, 200 epochs. With the default teacher, a random network, it learns little: "
            "give one by ``--config.method.teacher``."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=5,
        method={"mode": "similarity", "queue_size": 65_536},
        views={"preset": "moco_v2"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer and pairing.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"pairing": "other", "hidden_dim": 512},
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
SMOKE = {"hidden_dim": 32, "queue_size": 32}
get_config = entry("knowledge_distillation", RECIPES, smoke=SMOKE)
