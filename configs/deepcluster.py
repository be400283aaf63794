"""DeepCluster. Numbers: Caron et al. 2018 and facebookresearch/deepcluster."""

from ssl_jax.config import Recipe, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: ten times as many clusters as classes, four "
            "clusterings an epoch."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"clusters": 100, "hidden_dim": 256, "hidden_layers": 1, "pca": 64},
        views={
            "preset": "npid",
            "area": (0.3, 1.0),
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        refresh_epochs=0.25,
    ),
    "cifar10": Recipe(
        source="No reference recipe: the ImageNet one with 100 clusters, in colour.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 500},
        warmup_epochs=0,
        method={"clusters": 100, "hidden_dim": 512, "hidden_layers": 1},
        views={"preset": "mae", "area": (0.2, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-5,
            "exclude": "none",
        },
        refresh_epochs=1,
    ),
    "imagenet": Recipe(
        source=(
            "The code: Sobel-filtered images, batch 256, SGD 0.05 held constant, momentum 0.9, decay 1e-5, k "
            "10,000, clusters anew after every epoch; 200 epochs, 500 in the paper."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 200, "paper": 500},
        warmup_epochs=0,
        method={},
        views={"preset": "mae", "area": (0.08, 1.0)},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "constant",
            "weight_decay": 1e-5,
            "exclude": "none",
        },
        encoder={"sobel": True},
        refresh_epochs=1,
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"clusters": 100, "hidden_dim": 256, "hidden_layers": 1, "pca": 64},
        views={"preset": "mae", "area": (0.08, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        refresh_epochs=0.25,
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"hidden_dim": 32, "clusters": 8, "pca": 8}
get_config = entry("deepcluster", RECIPES, smoke=SMOKE)
