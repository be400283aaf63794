"""CPC. Numbers: van den Oord et al. 2018 and Hénaff et al. 2020, from memory: there is no official code to check them against.

A ViT needs patches and images that its own patches divide.
"""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: 3 x 3 patches of half the side, as they overlap in the "
            "first paper; the second paper's scores and its normalisation of each patch by itself."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={
            "patches": {"side": 14, "stride": 7, "jitter": 2},
            "toward": ("down", "up", "left", "right"),
            "ahead": 2,
            "context_depth": 2,
            "context_width": 128,
            "projection": 64,
            "temperature": 10.0,
        },
        views={"preset": "mae", "area": (0.3, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        encoder={"norm": "group"},
    ),
    "cifar10": Recipe(
        source="No reference recipe: the second paper's with 3 x 3 patches of 16 pixels, SimCLR's number of epochs.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={
            "patches": {"side": 16, "stride": 8, "jitter": 2},
            "toward": ("down", "up", "left", "right"),
            "ahead": 2,
            "projection": 64,
            "temperature": 10.0,
            "drop_colors": True,
        },
        views={
            "preset": "npid",
            "area": (0.3, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
            "grayscale_prob": 0.25,
        },
        optimizer={
            "name": "adam",
            "learning_rate": 4e-4,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.0,
            "b1": 0.8,
        },
        encoder={"norm": "group"},
    ),
    "imagenet": Recipe(
        source=(
            "The second paper, from memory: 260 pixels, 6 x 6 patches of 80 pixels 36 apart, four directions, the third "
            "row ahead, scores over 64 features times 0.1, batch 512, Adam 4e-4 with β₁ 0.8; 63.8 linear with a "
            "ResNet-50. There layers are normalised over all channels of a place, here over groups of them; the rate is "
            "constant there, and weights are averaged."
        ),
        backbone="resnet50",
        batch_size=512,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={
            "patches": {"side": 80, "stride": 36, "jitter": 8},
            "toward": ("down", "up", "left", "right"),
            "ahead": 3,
            "skip": 2,
            "projection": 64,
            "temperature": 10.0,
            "drop_colors": True,
        },
        views={
            "preset": "npid",
            "size": 260,
            "area": (0.3, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
            "grayscale_prob": 0.25,
        },
        optimizer={
            "name": "adam",
            "learning_rate": 4e-4,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.0,
            "b1": 0.8,
        },
        encoder={"norm": "group"},
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: 3 x 3 patches of half the side, the second paper's views, fashion_mnist's "
            "optimizer."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={
            "patches": {"side": 32, "stride": 16, "jitter": 4},
            "toward": ("down", "up", "left", "right"),
            "ahead": 2,
            "projection": 64,
            "temperature": 10.0,
            "drop_colors": True,
        },
        views={
            "preset": "npid",
            "area": (0.3, 1.0),
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
            "grayscale_prob": 0.25,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        encoder={"norm": "group"},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"context_depth": 1, "context_width": 16, "projection": 16}
get_config = entry("cpc", RECIPES, smoke=SMOKE)
