"""Relative location. Numbers: Doersch et al. 2015 and mmselfsup's ``relative_loc``.

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
        method={"form": "all", "tiles": {"tile": 8, "jitter": 1}, "hidden_dim": 256},
        views={"preset": "mae", "area": (0.5, 1.0), "interpolation": "bilinear", "flip_prob": 0.0},
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
            "No reference recipe: the ImageNet one, its colours with it (one channel and noise, as the authors' code has it, "
            "spoils the features of such small tiles), with tiles of 8 pixels 1 or more apart, on 32 pixels."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=5,
        method={
            "tiles": {"tile": 8, "gap": 1, "jitter": 2},
            "hidden_dim": 1024,
            "drop_colors": False,
            "normalize_tiles": False,
        },
        views={"preset": "mae", "area": (0.5, 1.0), "flip_prob": 0.0, "grayscale_prob": 0.66},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.2,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        by_budget={"short": {"warmup_epochs": 2.5}},
    ),
    "imagenet": Recipe(
        source=(
            "mmselfsup: ResNet-50, tiles of 64 pixels in cells of 85, centre against eight, two thirds of the "
            "images gray, SGD 0.2 at batch 512, decay 1e-4 (5e-4 on the head there), 5 epochs of warm-up, rate "
            "times 0.1 after 30 and 50 of 70 epochs; 40.4 linear. Its images are resized to 292 pixels and "
            "cropped to 255."
        ),
        backbone="resnet50",
        batch_size=512,
        epochs={"short": 35, "paper": 70},
        warmup_epochs=share(5, of=70),
        method={"drop_colors": False, "normalize_tiles": False},
        views={
            "preset": "mae",
            "size": 255,
            "area": (0.5, 1.0),
            "ratio": (1.0, 1.0),
            "flip_prob": 0.0,
            "grayscale_prob": 0.66,
        },
        optimizer={
            "name": "sgd",
            "learning_rate": 0.2,
            "scaling": "none",
            "schedule": "step",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        boundary_epochs=tuple(share(epoch, of=70) for epoch in (30, 50)),
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: tiles of 16 pixels 2 or more apart, the authors' defences, "
            "fashion_mnist's optimizer."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"form": "all", "tiles": {"tile": 16, "jitter": 3, "gap": 2}, "hidden_dim": 256},
        views={"preset": "mae", "area": (0.5, 1.0), "flip_prob": 0.0},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
RECIPES["color32"] = in_color(
    RECIPES,
    source=(
        "CIFAR-10 in minutes on two CPU cores: encoder, head and optimizer of fashion_mnist's recipe, views and "
        "tiles of cifar10's."
    ),
    method={**RECIPES["cifar10"].method, "hidden_dim": 256},
)
SMOKE = {"hidden_dim": 32}
get_config = entry("relative_location", RECIPES, smoke=SMOKE)
