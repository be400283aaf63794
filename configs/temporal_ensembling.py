"""Temporal ensembling. Numbers: Laine & Aila 2017, section 3 and appendix A, and smlaine2/tempens."""

from ssl_jax.config import derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "pi_model",
        "fashion_mnist",
        source="The Π-model's recipe, one view, three tenths of the weight.",
        # A weight of 30 on CIFAR-10 where the Π-model has 100, times the share of labels; elsewhere the same ratio.
        method={"ramp": {"weight": 3.0}, "dropout": 0.0},
        views={"preset": "consistency", "area": (0.8, 1.0), "interpolation": "bilinear", "count": 1},
    ),
    "cifar10": derive(
        "pi_model",
        "cifar10",
        source="The Π-model's recipe, one view, three tenths of the weight.",
        method={"ramp": {"weight": 2.4}},
        views={"preset": "consistency", "count": 1},
    ),
    "imagenet": derive(
        "pi_model",
        "imagenet",
        source="The Π-model's recipe, one view, three tenths of the weight.",
        method={"classes": 1000, "ramp": {"weight": 30.0}, "noise": 0.0, "dropout": 0.0},
        views={"preset": "consistency", "area": (0.08, 1.0), "count": 1},
    ),
    "folder": derive(
        "pi_model",
        "folder",
        source="The Π-model's recipe, one view, three tenths of the weight.",
        method={"ramp": {"weight": 3.0}, "dropout": 0.0},
        views={"preset": "consistency", "count": 1},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"ramp.steps": 1, "ramp.quiet_steps": 0}
get_config = entry("temporal_ensembling", RECIPES, smoke=SMOKE)
