"""DCL. Numbers: Yeh et al. 2022 as far as public codes give them: lightly's benchmarks and an unofficial repository."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "simclr",
        "fashion_mnist",
        source=(
            "28-pixel gray images, minutes on two CPU cores: SimCLR's recipe with a smaller batch, which DCL is "
            "made for."
        ),
        batch_size=128,
    ),
    "cifar10": Recipe(
        source=(
            "lightly's CIFAR-10 benchmark: ResNet-18, batch 512, projector 512 to 128, τ 0.1, SGD 0.06 x B/128, "
            "decay 5e-4."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=0,
        method={"temperature": 0.1, "projector_width": 512},
        views={"preset": "simclr", "strength": 0.5, "blur_prob": 0.0},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.06,
            "scaling": "linear",
            "reference_batch": 128,
            "schedule": "cosine",
            "weight_decay": 5e-4,
        },
        hold_each_epoch=True,
    ),
    "imagenet": Recipe(
        source=(
            "lightly's ImageNet benchmark: ResNet-50, batch 256, LARS 0.075 x √B, weight decay 1e-6, τ 0.1, 100 "
            "epochs; paper: 200."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 100, "paper": 200},
        warmup_epochs=10,
        method={"temperature": 0.1},
        views={"preset": "simclr"},
        optimizer={
            "name": "lars",
            "learning_rate": 0.075,
            "scaling": "sqrt",
            "reference_batch": 1,
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
        encoder={"zero_init_residual": True},
    ),
    "folder": derive(
        "simclr",
        "folder",
        source="Your own images at 64 pixels: SimCLR's recipe with fashion_mnist's batch.",
        batch_size=128,
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("dcl", RECIPES, smoke=SMOKE)
