"""Exemplar-CNN. Numbers: Dosovitskiy et al. 2014."""

from ssl_jax.config import Recipe, derive, entry, in_color, share

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: 4000 seeds, so that the softmax costs no more than "
            "the encoder."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 100},
        warmup_epochs=1,
        method={"exemplars": 4000},
        views={
            "preset": "npid",
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
        refresh_epochs=share(1, of=1),
    ),
    "cifar10": derive(
        "npid",
        "cifar10",
        source="8000 seeds of 32 pixels, as in the paper, with NPID's optimizer and views.",
        method={"exemplars": 8000},
        refresh_epochs=share(1, of=1),
    ),
    "imagenet": derive(
        "npid",
        "imagenet",
        source=(
            "No reference recipe: 16,000 seeds, as the paper's largest network has (from memory), with NPID's "
            "optimizer and views."
        ),
        method={"exemplars": 16_000},
        refresh_epochs=share(1, of=1),
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: NPID's views, fashion_mnist's options.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"exemplars": 4000},
        views={"preset": "npid"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        refresh_epochs=share(1, of=1),
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"exemplars": 64}
get_config = entry("exemplar", RECIPES, smoke=SMOKE)
