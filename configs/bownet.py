"""BoWNet. Numbers: Gidaris et al. 2020, from memory: there is no official code to check them against.

``--config.method.teacher=exported/encoder.safetensors`` chooses the teacher; without it the words are a random network's.
"""

from ssl_jax.config import Recipe, derive, entry, in_color, share

RECIPES = {
    "fashion_mnist": derive(
        "obow",
        "fashion_mnist",
        source="28-pixel gray images, minutes on two CPU cores: one crop of the whole size.",
        method={"vocabulary_size": 256},
        views={
            "preset": "obow",
            "crop_size": 28,
            "local_size": 14,
            "local_count": 0,
            "crop_area": (0.3, 1.0),
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": 0.0,
            "crop_count": 1,
        },
        refresh_epochs=share(1, of=1),
    ),
    "cifar10": Recipe(
        source=(
            "The paper's CIFAR-100: K 2048, words of the last map, CutMix; SGD with a drop as in the "
            "reproduction: 0.05, weight decay 5e-4, batch 128, rate times 0.3 at 120 of 150 epochs, here a "
            "cosine."
        ),
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 150, "paper": 300},
        warmup_epochs=0,
        method={"vocabulary_size": 2048, "cutmix": True},
        views={
            "preset": "obow",
            "crop_size": 32,
            "local_size": 16,
            "crop_count": 1,
            "local_count": 0,
            "crop_area": (0.08, 1.0),
            "blur_prob": 0.0,
        },
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 5e-4,
        },
        refresh_epochs=share(1, of=1),
    ),
    "imagenet": derive(
        "obow",
        "imagenet",
        source=(
            "K 8192 of the last map but one, conv4, 200 epochs. The rate is OBoW's, on a cosine; there it drops "
            "in steps."
        ),
        method={"level": 2},
        views={
            "preset": "obow",
            "crop_size": 224,
            "crop_count": 1,
            "local_count": 0,
            "crop_area": (0.08, 1.0),
            "blur_prob": 0.0,
        },
        refresh_epochs=share(1, of=1),
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"vocabulary_size": 256},
        views={
            "preset": "obow",
            "crop_size": 64,
            "crop_count": 1,
            "local_count": 0,
            "crop_area": (0.08, 1.0),
            "blur_prob": 0.0,
            "local_size": 32,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        refresh_epochs=share(1, of=1),
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"vocabulary_size": 32}
get_config = entry("bownet", RECIPES, smoke=SMOKE)
