"""NPID. Numbers: Wu et al. 2018 and vissl's configuration ``pretrain/npid``."""

from ssl_jax.config import Recipe, entry, in_color, share

RECIPES = {
    "embedded": Recipe(
        source=(
            "28-pixel gray images, five minutes on two CPU cores. An image meets its memory once an epoch: ten "
            "epochs are too few."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 30, "paper": 200},
        warmup_epochs=5,
        # With nce and its constant Z, queries and memory chase each other here: an epoch has 39 steps, and the loss rises.
        method={"loss": "cross_entropy", "temperature": 0.1, "negatives": 1024},
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
        # The memory starts random. Learning from it collapses the features: it is filled before the network moves.
        freeze_epochs=((".", 2),),
    ),
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, five minutes on two CPU cores. An image meets its memory once an epoch: ten "
            "epochs are too few."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 30, "paper": 200},
        warmup_epochs=5,
        # With nce and its constant Z, queries and memory chase each other here: an epoch has 39 steps, and the loss rises.
        method={"loss": "cross_entropy", "temperature": 0.1, "negatives": 1024},
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
        # The memory starts random. Learning from it collapses the features: it is filled before the network moves.
        freeze_epochs=((".", 2),),
        # Of three passes one fills the memory.
        by_budget={"short": {"freeze_epochs": ((".", share(1, of=3)),)}},
    ),
    "cifar10": Recipe(
        source="No reference recipe was read: the ImageNet one, with 4096 negatives of the 50,000 images.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=0,
        method={},
        views={"preset": "npid"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "step",
            "weight_decay": 1e-4,
        },
        boundary_epochs=tuple(share(epoch, of=200) for epoch in (120, 160)),
    ),
    "imagenet": Recipe(
        source=(
            "vissl: ResNet-50, batch 256, SGD 0.03, decay 1e-4, rate times 0.1 at 120 and 160 of 200 epochs, τ "
            "0.07, K 4096, m 0.5."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=0,
        method={},
        views={"preset": "npid"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "step",
            "weight_decay": 1e-4,
        },
        boundary_epochs=tuple(share(epoch, of=200) for epoch in (120, 160)),
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=5,
        method={"loss": "cross_entropy", "temperature": 0.1, "negatives": 1024},
        views={"preset": "npid"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        freeze_epochs=((".", 2),),
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projection": 16, "negatives": 32}
get_config = entry("npid", RECIPES, smoke=SMOKE)
