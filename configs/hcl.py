"""HCL. Numbers: Robinson et al. 2021 and joshr17/HCL, for CIFAR-10 and STL-10 at 32 pixels; there are none for ImageNet."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "simclr",
        "fashion_mnist",
        source="28-pixel gray images, minutes on two CPU cores: SimCLR's recipe; ten classes, so τ⁺ is 0.1.",
        method={"temperature": 0.5, "beta": 0.5},
    ),
    "cifar10": Recipe(
        source=(
            "The code: batch 256, Adam 1e-3, L2 decay 1e-6, 400 epochs, τ 0.5, τ⁺ 0.1, β 1, blur with 3 taps "
            "(ResNet-50 there)."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 400},
        warmup_epochs=0,
        method={"temperature": 0.5, "beta": 1.0, "tau_plus": 0.1},
        views={"preset": "simclr", "strength": 0.5, "interpolation": "bilinear", "blur_kernel": 3},
        optimizer={
            "name": "adam",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-6,
            "exclude": "none",
        },
    ),
    "imagenet": derive(
        "simclr",
        "imagenet",
        source="No reference recipe: SimCLR's optimizer and views; 1000 classes, so τ⁺ is 0.001.",
        method={"temperature": 0.1, "beta": 1.0, "tau_plus": 1e-3, "projector_width": 2048},
    ),
    "folder": derive(
        "simclr",
        "folder",
        source="Your own images at 64 pixels: SimCLR's views, fashion_mnist's options.",
        method={"temperature": 0.5, "beta": 0.5},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("hcl", RECIPES, smoke=SMOKE)
