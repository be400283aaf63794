"""Deep belief network. Numbers: Hinton, A Practical Guide to Training Restricted Boltzmann Machines (2010)."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "Two layers of 500 sigmoid units as on MNIST in Hinton et al. 2006, for all datasets, large images at "
            "64 pixels; SGD with momentum and a weight decay, at a constant rate. Pixels are probabilities: they "
            "are not normalised."
        ),
        backbone="mlp",
        batch_size=128,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={},
        views={
            "preset": "mae",
            "area": (1.0, 1.0),
            "ratio": (1.0, 1.0),
            "interpolation": "bilinear",
            "mean": (0.0,),
            "std": (1.0,),
        },
        # What a stage does not train stands still, layer by layer, that of encoder and decoder together.
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "momentum": 0.9,
            "weight_decay": 2e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (500, 500), "activation": "sigmoid"},
    ),
    "cifar10": Recipe(
        source=(
            "Two layers of 500 sigmoid units as on MNIST in Hinton et al. 2006, for all datasets, large images at "
            "64 pixels; SGD with momentum and a weight decay, at a constant rate. Pixels are probabilities: they "
            "are not normalised."
        ),
        backbone="mlp",
        batch_size=128,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={},
        views={
            "preset": "mae",
            "area": (1.0, 1.0),
            "ratio": (1.0, 1.0),
            "interpolation": "bilinear",
            "mean": (0.0,),
            "std": (1.0,),
        },
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "momentum": 0.9,
            "weight_decay": 2e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (500, 500), "activation": "sigmoid"},
    ),
    "imagenet": Recipe(
        source=(
            "Two layers of 500 sigmoid units as on MNIST in Hinton et al. 2006, for all datasets, large images at "
            "64 pixels; SGD with momentum and a weight decay, at a constant rate. Pixels are probabilities: they "
            "are not normalised."
        ),
        backbone="mlp",
        batch_size=128,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={},
        views={
            "preset": "mae",
            "area": (0.2, 1.0),
            "ratio": (1.0, 1.0),
            "interpolation": "bilinear",
            "mean": (0.0,),
            "std": (1.0,),
            "size": 64,
        },
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "momentum": 0.9,
            "weight_decay": 2e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (500, 500), "activation": "sigmoid"},
    ),
    "folder": Recipe(
        source=(
            "Two layers of 500 sigmoid units as on MNIST in Hinton et al. 2006, for all datasets, large images at "
            "64 pixels; SGD with momentum and a weight decay, at a constant rate. Pixels are probabilities: they "
            "are not normalised."
        ),
        backbone="mlp",
        batch_size=128,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={},
        views={
            "preset": "mae",
            "area": (1.0, 1.0),
            "ratio": (1.0, 1.0),
            "interpolation": "bilinear",
            "mean": (0.0,),
            "std": (1.0,),
        },
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "momentum": 0.9,
            "weight_decay": 2e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (500, 500), "activation": "sigmoid"},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
get_config = entry("dbn", RECIPES)
