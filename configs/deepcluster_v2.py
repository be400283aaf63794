"""DeepCluster-v2. Numbers: Caron et al. 2020 (SwAV), facebookresearch/swav, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "swav",
        "fashion_mnist",
        source="28-pixel gray images, minutes on two CPU cores: SwAV's recipe, clustered twice an epoch.",
        method={"clusters": 200, "projector_width": 512},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        freeze_epochs=(),
        refresh_epochs=0.5,
    ),
    "cifar10": derive(
        "swav",
        "cifar10",
        source=(
            "solo-learn's CIFAR-10: ResNet-18, batch 256, two views, K 3000, H 3, LARS 0.6 to 0.0006, weight "
            "decay 1e-6. Its LARS is another optimizer (clipped); here the authors' rule."
        ),
        method={},
        optimizer={
            "name": "lars",
            "learning_rate": 0.6,
            "end_learning_rate": 6e-4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "trust_norm": "parts",
            "exclude": "none",
            "weight_decay": 1e-6,
        },
        freeze_epochs=(),
        method_epochs={},
        refresh_epochs=1,
    ),
    "imagenet": derive(
        "swav",
        "imagenet",
        source="The code: SwAV's recipe of batch 4096, K 3000, H 3, clustered every epoch.",
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "start_learning_rate": 0.3,
            "end_learning_rate": 4.8e-3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "trust_norm": "parts",
            "exclude": "none",
            "weight_decay": 1e-6,
            "normalize_rows": (),
        },
        freeze_epochs=(),
        refresh_epochs=1,
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"clusters": 200, "projector_width": 512},
        views={
            "preset": "dino",
            "global_area": (0.14, 1.0),
            "local_area": (0.05, 0.14),
            "local_count": 4,
            "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
            "blur_prob": (0.5, 0.5),
            "solarize_prob": (0.0, 0.0),
            "local_size": 32,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        refresh_epochs=0.5,
    ),
}
RECIPES["color32"] = in_color(
    RECIPES,
    source="CIFAR-10 in minutes on two CPU cores: encoder, head and optimizer of fashion_mnist's recipe, views of cifar10's; "
    "clustered once an epoch, as there. Twice an epoch, when half of the memory is older than the last clusters, features "
    "became worse.",
    refresh_epochs=1,
)
SMOKE = {"projector_width": 32, "projection": 16, "clusters": 8}
get_config = entry("deepcluster_v2", RECIPES, smoke=SMOKE)
