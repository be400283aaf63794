"""Context encoder. Numbers: Pathak et al. 2016 and pathak22/context-encoder ``train.lua``, ``README.md``."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: a hole of 14 pixels, of which 1 at the border is "
            "seen."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=1,
        method={"overlap": 1, "decoder_channels": 16, "discriminator_channels": 16},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "bilinear"},
        # The discriminator at a tenth of the generator's learning rate. Without one (adversarial=False) there is no group
        # either; --config.method.adversarial_weight=0 keeps one that moves nothing else.
        optimizer={
            "name": "adam",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "constant",
            "b1": 0.5,
            "groups": {"discriminator": {"learning_rate": 2e-4}},
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: that of ImageNet at 32 pixels.",
        backbone="resnet18",
        batch_size=64,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=0,
        method={"overlap": 1, "decoder_channels": 32, "discriminator_channels": 32},
        views={"preset": "mae"},
        optimizer={
            "name": "adam",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "constant",
            "b1": 0.5,
            "groups": {"discriminator": {"learning_rate": 2e-4}},
        },
    ),
    "imagenet": Recipe(
        source=(
            "Images of 128 pixels, a hole of 64, 4 at its border seen and weighed tenfold; λ .999 and .001; Adam "
            "2e-3 for the generator and 2e-4 for the discriminator, β₁ .5, batch 64, 500 epochs (README), "
            "constant rates. The features of the paper's tables come from another run: an AlexNet, random "
            "regions, no discriminator."
        ),
        backbone="resnet50",
        batch_size=64,
        epochs={"short": 50, "paper": 500},
        warmup_epochs=0,
        method={"overlap": 4},
        views={"preset": "mae", "size": 128},
        optimizer={
            "name": "adam",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "constant",
            "b1": 0.5,
            "groups": {"discriminator": {"learning_rate": 2e-4}},
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels.",
        backbone="resnet18",
        batch_size=64,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=0,
        method={"overlap": 2, "decoder_channels": 32, "discriminator_channels": 32},
        views={"preset": "mae"},
        optimizer={
            "name": "adam",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "constant",
            "b1": 0.5,
            "groups": {"discriminator": {"learning_rate": 2e-4}},
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"decoder_channels": 4, "discriminator_channels": 4}
get_config = entry("context_encoder", RECIPES, smoke=SMOKE)
