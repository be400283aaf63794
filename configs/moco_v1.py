"""MoCo v1. Numbers: He et al. 2020, and facebookresearch/moco."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "moco_v2",
        "fashion_mnist",
        source="28-pixel gray images, minutes on two CPU cores: MoCo v2's recipe with a linear projector.",
        method={"temperature": 0.2, "queue_size": 4096, "decay": 0.99},
        views={
            "preset": "moco_v1",
            "area": (0.3, 1.0),
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": 0.0,
        },
    ),
    "cifar10": derive(
        "moco_v2",
        "cifar10",
        source=(
            "The authors' notebook, which has a linear projector as v1: ResNet-18, batch 512, K 4096, m 0.99, τ "
            "0.1, SGD 0.06, decay 5e-4, BatchNorm in 8 groups, v2's colours without blur."
        ),
        views={"preset": "moco_v1", "area": (0.08, 1.0), "jitter": {"hue": 0.1, "prob": 0.8}},
    ),
    "imagenet": Recipe(
        source=(
            "Paper, section 3.3 and the code: ResNet-50, batch 256 on 8 GPUs, K 65536, m 0.999, τ 0.07, SGD 0.03, "
            "decay 1e-4, 200 epochs; the learning rate falls to a tenth at 60% and at 80% of the run."
        ),
        backbone="resnet50",
        batch_size=256,
        epochs={"short": 200, "paper": 200},
        warmup_epochs=0,
        method={"bn_groups": 8},
        views={"preset": "moco_v1"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "step",
            "weight_decay": 1e-4,
            "exclude": "none",
        },
        boundary_epochs=(120, 160),
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"temperature": 0.2, "queue_size": 4096, "decay": 0.99},
        views={"preset": "moco_v1"},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"projection": 16, "queue_size": 32}
get_config = entry("moco_v1", RECIPES, smoke=SMOKE)
