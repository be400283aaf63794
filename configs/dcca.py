"""Deep CCA. Numbers: Andrew et al. 2013 know no views of one image, so recipes are those of the methods that it resembles."""

from ssl_jax.config import derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "simclr",
        "fashion_mnist",
        source=(
            "28-pixel gray images, minutes on two CPU cores: SimCLR's recipe. Of 16, 32 and 64 dimensions the "
            "fewest were the best by the online linear probe: from 256 images more correlations are not estimated "
            "well."
        ),
        method={"projector_width": 512, "projection": 16},
    ),
    "cifar10": derive(
        "simclr",
        "cifar10",
        source=(
            "No reference recipe: SimCLR's views, the batch, rate and decay of W-MSE's CIFAR-10, eight images a "
            "dimension."
        ),
        method={"projection": 64},
        optimizer={
            "name": "adam",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
    ),
    "imagenet": derive(
        "simclr",
        "imagenet",
        source="No reference recipe: SimCLR's, whose batch allows wide projections.",
        method={"projector_width": 2048, "projection": 256},
    ),
    "folder": derive(
        "simclr",
        "folder",
        source="Your own images at 64 pixels: SimCLR's recipe.",
        method={"projector_width": 512},
    ),
}
# Eight images have a covariance of full rank in four dimensions.
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projector_width": 32, "projection": 4}
get_config = entry("dcca", RECIPES, smoke=SMOKE)
