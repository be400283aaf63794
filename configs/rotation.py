"""RotNet. Numbers: Gidaris et al. 2018 and gidariss/FeatureLearningRotNet (CIFAR-10), mmselfsup (ImageNet)."""

from ssl_jax.config import Recipe, entry, in_color, share

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, minutes on two CPU cores.",
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"hidden_dim": 256, "hidden_layers": 1},
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
        source=(
            "The code: batch 128 in four rotations, Nesterov SGD 0.1, decay 5e-4, rate times 0.2 after 60, 120 "
            "and 160 of 200 epochs. Its network is NIN; its crops are shifts by 4 pixels, here half of the image "
            "or more."
        ),
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "area": (0.5, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.1,
            "scaling": "none",
            "schedule": "step",
            "factor": 0.2,
            "weight_decay": 5e-4,
            "exclude": "none",
            "nesterov": True,
        },
        boundary_epochs=tuple(share(epoch, of=200) for epoch in (60, 120, 160)),
    ),
    "imagenet": Recipe(
        source=(
            "mmselfsup: ResNet-50, batch 128 in four rotations, SGD 0.2, decay 1e-4, 5 epochs of warm-up, rate "
            "times 0.1 after 30 and 50 of 70 epochs; 47.0 linear on the last map."
        ),
        backbone="resnet50",
        batch_size=128,
        epochs={"short": 35, "paper": 70},
        warmup_epochs=share(5, of=70),
        method={},
        views={"preset": "mae", "area": (0.08, 1.0)},
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
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer. They need an upright.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"hidden_dim": 256, "hidden_layers": 1},
        views={"preset": "mae", "area": (0.08, 1.0)},
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
SMOKE = {"hidden_dim": 32}
get_config = entry("rotation", RECIPES, smoke=SMOKE)
