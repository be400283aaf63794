"""Denoising autoencoder: the recipe of ``autoencoder``, 40 % of the pixels masked. No paper has one for these encoders."""

from ssl_jax.config import derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "autoencoder",
        "fashion_mnist",
        source="The autoencoder's recipe, 40 % of the pixels masked.",
        method={"decoder_channels": 8, "corruption": "masking", "level": 0.4},
    ),
    "cifar10": derive(
        "autoencoder",
        "cifar10",
        source="The autoencoder's recipe, 40 % of the pixels masked.",
        method={"decoder_channels": 32, "corruption": "masking", "level": 0.4},
    ),
    "imagenet": derive(
        "autoencoder",
        "imagenet",
        source="The autoencoder's recipe, 40 % of the pixels masked.",
        method={"decoder_channels": 32, "corruption": "masking", "level": 0.4},
    ),
    "folder": derive(
        "autoencoder",
        "folder",
        source="The autoencoder's recipe, 40 % of the pixels masked.",
        method={"decoder_channels": 32, "corruption": "masking", "level": 0.4},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"decoder_channels": 4}
get_config = entry("denoising_autoencoder", RECIPES, smoke=SMOKE)
