"""Triplet loss. There is no published recipe for views of one image: SimCLR's optimizer and views."""

from ssl_jax.config import derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "simclr",
        "fashion_mnist",
        source=(
            "28-pixel gray images, about two minutes on two CPU cores; the margin chosen by the online probes on "
            "training images."
        ),
        method={"margin": 1.0, "distance": {"squared": True}, "projector_width": 512},
    ),
    "cifar10": derive(
        "simclr",
        "cifar10",
        source="No reference recipe: SimCLR's for CIFAR-10.",
        method={},
    ),
    "imagenet": derive(
        "simclr",
        "imagenet",
        source="No reference recipe: SimCLR's for ImageNet.",
        method={},
    ),
    "folder": derive(
        "simclr",
        "folder",
        source="Your own images at 64 pixels: SimCLR's views, fashion_mnist's options.",
        method={"margin": 1.0, "distance": {"squared": True}, "projector_width": 512},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 16}
get_config = entry("triplet", RECIPES, smoke=SMOKE)
