"""Jigsaw. Numbers: Noroozi and Favaro 2016 and vissl's ``pretrain/jigsaw``.

A ViT needs tiles and images that its patches divide: ``imagenet,vit_base`` with ``--config.views.size=240`` and
``--config.method.tiles.jitter=16``.
"""

from ssl_jax.config import Recipe, entry, in_color, share

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: 3 x 3 tiles of 8 pixels on 27, so that three "
            "halvings leave one place."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={
            "tiles": {"tile": 8, "jitter": 1, "channel_jitter": 0},
            "permutations": 100,
            "projection": 128,
            "hidden_dim": 256,
        },
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one with tiles of 8 pixels, up to 3 apart, on 30 pixels.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=5,
        method={
            "tiles": {"tile": 8, "jitter": 2, "channel_jitter": 0},
            "normalize_tiles": False,
            "projection": 256,
            "hidden_layers": 0,
        },
        views={"preset": "mae", "area": (0.5, 1.0), "grayscale_prob": 0.66},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.1,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        by_budget={"short": {"warmup_epochs": 5 / 3}},
    ),
    "imagenet": Recipe(
        source=(
            "vissl: ResNet-50, 255 pixels, flips, two thirds gray, tiles of 64 in cells of 85, 1000 units a tile, "
            "a linear head, 100 permutations, SGD 0.1 x B/256 at batch 256, decay 1e-4, 5 epochs of warm-up, rate "
            "times 0.1 after 30, 60, 90 and 100 of 105 epochs; 48.6 linear."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 35, "paper": 105},
        warmup_epochs=share(5, of=105),
        method={
            "tiles": {"jitter": 21, "channel_jitter": 0},
            "color_projection": 0.0,
            "normalize_tiles": False,
            "projection": 1000,
            "hidden_layers": 0,
        },
        views={"preset": "mae", "size": 255, "area": (0.5, 1.0), "ratio": (1.0, 1.0), "grayscale_prob": 0.66},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.1,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "step",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        boundary_epochs=tuple(share(epoch, of=105) for epoch in (30, 60, 90, 100)),
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: tiles of 16 pixels with the authors' defences, fashion_mnist's "
            "optimizer."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={
            "tiles": {"tile": 16, "jitter": 4, "channel_jitter": 1},
            "permutations": 100,
            "projection": 128,
            "hidden_dim": 256,
        },
        views={"preset": "mae", "area": (0.5, 1.0), "grayscale_prob": 0.5},
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
SMOKE = {"hidden_dim": 32, "projection": 16}
get_config = entry("jigsaw", RECIPES, smoke=SMOKE)
