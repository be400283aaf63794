"""BiGAN. Numbers: Donahue et al. 2017 and jeffdonahue/bigan ``train_gan.py``, ``train_mnist.sh``, ``train_imagenet.sh``."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images: z of 50 numbers as on MNIST, learning rates for a few epochs instead of 400 at "
            "2e-4."
        ),
        backbone="convnet",
        batch_size=128,
        epochs={"short": 60, "paper": 400},
        warmup_epochs=0,
        method={"latent": 50, "decoder_channels": 8, "discriminator_channels": 16, "hidden_dim": 256},
        views={"preset": "mae", "area": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "bilinear"},
        optimizer={
            "name": "adam",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "cosine",
            "b1": 0.5,
            "weight_decay": 2.5e-5,
            "groups": {"discriminator": {"learning_rate": 5e-4}},
        },
    ),
    "cifar10": Recipe(
        source="No reference recipe: that of ImageNet at 32 pixels with smaller networks.",
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=0,
        method={"latent": 100, "decoder_channels": 32, "discriminator_channels": 32, "hidden_dim": 512},
        views={"preset": "mae"},
        optimizer={
            "name": "adam",
            "learning_rate": 2e-4,
            "end_learning_rate": 2e-6,
            "scaling": "none",
            "schedule": "cosine",
            "b1": 0.5,
            "weight_decay": 2.5e-5,
        },
    ),
    "imagenet": Recipe(
        source=(
            "Images of 64 pixels, z of 200 uniform numbers, widths from 64; Adam 2e-4, β₁ .5, L2 2.5e-5, batch "
            "128; 400 epochs, in the second half of which the rate falls, exponentially to a hundredth there, on "
            "a cosine over the whole run here. The encoder of the paper's tables saw 112 pixels."
        ),
        backbone="resnet50",
        batch_size=128,
        epochs={"short": 50, "paper": 400},
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "size": 64},
        optimizer={
            "name": "adam",
            "learning_rate": 2e-4,
            "end_learning_rate": 2e-6,
            "scaling": "none",
            "schedule": "cosine",
            "b1": 0.5,
            "weight_decay": 2.5e-5,
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels.",
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 100, "paper": 400},
        warmup_epochs=0,
        method={"latent": 100, "decoder_channels": 32, "discriminator_channels": 32, "hidden_dim": 512},
        views={"preset": "mae"},
        optimizer={
            "name": "adam",
            "learning_rate": 2e-4,
            "end_learning_rate": 2e-6,
            "scaling": "none",
            "schedule": "cosine",
            "b1": 0.5,
            "weight_decay": 2.5e-5,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"hidden_dim": 32, "decoder_channels": 4, "discriminator_channels": 4, "latent": 8}
get_config = entry("bigan", RECIPES, smoke=SMOKE)
