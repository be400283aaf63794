"""Barlow Twins. Numbers: Zbontar et al. 2021, facebookresearch/barlowtwins, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "byol",
        "fashion_mnist",
        source=(
            "28-pixel gray images, minutes on two CPU cores: BYOL's recipe, a smaller projector. λ d, which "
            "weighs the terms, is 42 at the paper's width of 8192; of λ d 1.3, 10 and 38 at width 256, 10 was the "
            "best by the online probes."
        ),
        method={
            "projector_layers": 2,
            "projector_width": 512,
            "projection": 256,
            "redundancy_weight": 0.04,
            "scale": 3.90625e-3,
        },
    ),
    "cifar10": derive(
        "byol",
        "cifar10",
        source=(
            "solo-learn's CIFAR-10: ResNet-18, projector 2048, scale 0.1, no blur, solarize 0 and 0.2. Its LARS "
            "is another optimizer (clipped, trust coefficient 0.02); here the official rule with its rate."
        ),
        method={"projector_width": 2048, "projection": 2048, "scale": 0.1},
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
    "imagenet": Recipe(
        source=(
            "Official code: ResNet-50, batch 2048, LARS 0.2 x B/256 to a thousandth, weight decay 1e-6, 1000 "
            "epochs. There biases and normalisation parameters have the rate 0.0048, which is 0.024 of 0.2, and "
            "gradients are divided by the 16 processes. One rate with the loss times 0.024/16 moves them the "
            "same; LARS makes the other weights' steps independent of it, but for the weight decay."
        ),
        backbone="resnet50",
        batch_size=2048,
        epochs={"short": 300, "paper": 1000},
        warmup_epochs=10,
        method={"scale": 1.5e-3},
        views={"preset": "byol"},
        optimizer={
            "name": "lars",
            "learning_rate": 0.2,
            "end_learning_rate": 1.6e-3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    ),
    "folder": derive(
        "byol",
        "folder",
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        method={
            "projector_layers": 2,
            "projector_width": 512,
            "projection": 256,
            "redundancy_weight": 0.04,
            "scale": 3.90625e-3,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("barlow", RECIPES, smoke=SMOKE)
