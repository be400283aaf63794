"""VICReg. Numbers: Bardes et al. 2022, facebookresearch/vicreg, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, at_64_pixels, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "byol",
        "fashion_mnist",
        source="28-pixel gray images, minutes on two CPU cores: BYOL's recipe, a smaller expander.",
        method={"projector_layers": 2, "projector_width": 512, "projection": 256},
    ),
    "cifar10": derive(
        "byol",
        "cifar10",
        source=(
            "solo-learn's CIFAR-10: ResNet-18, expander 2048, crops from 0.2, solarize 0.1 in both views, no "
            "blur. It adds the variance of the two views: twice the weight. Its LARS is another optimizer "
            "(clipped, trust coefficient 0.02); here the official rule with its rate."
        ),
        method={"projector_width": 2048, "projection": 2048, "variance_weight": 50.0},
        views={"preset": "byol", "area": (0.2, 1.0), "blur_prob": (0.0, 0.0), "solarize_prob": (0.1, 0.1)},
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
            "README: ResNet-50, LARS to a thousandth of its rate, weight decay 1e-6; 1000 epochs: batch 2048, "
            "rate 0.2 x B/256; 100 epochs: batch 512, 0.3 x B/256."
        ),
        backbone="resnet50",
        batch_size=2048,
        epochs={"short": 100, "paper": 1000},
        warmup_epochs=10,
        method={},
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
        by_budget={
            "short": {
                "batch_size": 512,
                "optimizer": {
                    "name": "lars",
                    "learning_rate": 0.3,
                    "end_learning_rate": 6e-4,
                    "scaling": "linear",
                    "reference_batch": 256,
                    "schedule": "cosine",
                    "weight_decay": 1e-6,
                },
            }
        },
    ),
    "folder": derive(
        "byol",
        "folder",
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        method={"projector_layers": 2, "projector_width": 512, "projection": 256},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("vicreg", RECIPES, smoke=SMOKE)
