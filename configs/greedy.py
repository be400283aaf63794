"""Greedy layer-wise pre-training of denoising autoencoders on a perceptron; sizes of the kind of Vincent et al. 2010."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "Three sigmoid layers, the same for all datasets, large images at 64 pixels. The learning rate is "
            "constant: a cosine would leave the last stages without one."
        ),
        backbone="mlp",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={"corruption": "masking", "level": 0.25, "loss": "cross_entropy", "joint": 0.25},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "bilinear"},
        # What a stage does not train stands still, layer by layer, that of encoder and decoder together.
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (512, 512, 256), "activation": "sigmoid"},
    ),
    "cifar10": Recipe(
        source=(
            "Three sigmoid layers, the same for all datasets, large images at 64 pixels. The learning rate is "
            "constant: a cosine would leave the last stages without one."
        ),
        backbone="mlp",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={"corruption": "masking", "level": 0.25, "loss": "cross_entropy", "joint": 0.25},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (512, 512, 256), "activation": "sigmoid"},
    ),
    "imagenet": Recipe(
        source=(
            "Three sigmoid layers, the same for all datasets, large images at 64 pixels. The learning rate is "
            "constant: a cosine would leave the last stages without one."
        ),
        backbone="mlp",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={"corruption": "masking", "level": 0.25, "loss": "cross_entropy", "joint": 0.25},
        views={
            "preset": "mae",
            "area": (0.2, 1.0),
            "ratio": (1.0, 1.0),
            "interpolation": "bilinear",
            "size": 64,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (512, 512, 256), "activation": "sigmoid"},
    ),
    "folder": Recipe(
        source=(
            "Three sigmoid layers, the same for all datasets, large images at 64 pixels. The learning rate is "
            "constant: a cosine would leave the last stages without one."
        ),
        backbone="mlp",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={"corruption": "masking", "level": 0.25, "loss": "cross_entropy", "joint": 0.25},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-4,
            "skip_zero_grads": ("dense_\\d+",),
        },
        encoder={"widths": (512, 512, 256), "activation": "sigmoid"},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
get_config = entry("greedy", RECIPES)
