"""MeanShift. Numbers: Koohpayegani et al. 2021 and the README of UMBCvision/MSF."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source="28-pixel gray images, minutes on two CPU cores: SimSiam's batches and rate, not tuned.",
        backbone="convnet",
        batch_size=128,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"queue_size": 4096, "hidden_dim": 512, "projection": 128},
        views={
            "preset": "msf",
            "area": (0.3, 1.0),
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "cifar10": Recipe(
        source=(
            "No published recipe. MoCo's for ResNet-18 (batch 512, SGD 0.06, weight decay 5e-4, decay 0.99, no "
            "blur), a bank of 16384 and the paper's k = 5."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=0,
        method={"queue_size": 16_384},
        views={"preset": "msf", "blur_prob": 0.0},
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
            "README, weak/strong: ResNet-50, batch 256, SGD 0.05, weight decay 1e-4, 200 epochs, k = 10, a bank "
            "of 128,000 targets."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=0,
        method={"neighbors": 10, "queue_size": 128_000},
        views={"preset": "msf"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        hold_each_epoch=True,
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"queue_size": 4096, "hidden_dim": 512, "projection": 128},
        views={"preset": "msf"},
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"hidden_dim": 32, "projection": 16, "queue_size": 32}
get_config = entry("msf", RECIPES, smoke=SMOKE)
