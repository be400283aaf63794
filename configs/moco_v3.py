"""MoCo v3. Numbers: Chen, Xie & He 2021, facebookresearch/moco-v3's CONFIG.md, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: a ViT of 16 patches with the frozen projection, and "
            "many small steps, as ViTs are slow to start."
        ),
        backbone="vit_micro",
        batch_size=64,
        epochs={"short": 30, "paper": 400},
        warmup_epochs=3,
        method={"temperature": 0.2, "hidden_dim": 512, "projection": 128},
        views={
            "preset": "byol",
            "area": (0.3, 1.0),
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": (0.0, 0.0),
            "solarize_prob": (0.0, 0.0),
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
        },
        by_backbone={
            # Section 4: a ViT whose random patch projection stays; of ResNets these are no options.
            "vit": {
                "encoder": {
                    "freeze_patch": True,
                    "init": "xavier_split",
                    "position": "sincos",
                    "width": 64,
                    "depth": 3,
                    "heads": 2,
                    "pool": "mean",
                }
            }
        },
    ),
    "cifar10": Recipe(
        source=(
            "solo-learn's CIFAR-10 with a ResNet-18: batch 256, τ 0.2, LARS 0.3, decay 1e-6, no blur, solarize 0 "
            "and 0.2. Its LARS is another optimizer (clipped, trust coefficient 0.02); here the official rule "
            "with the same rate."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={"temperature": 0.2},
        views={"preset": "byol", "blur_prob": (0.0, 0.0)},
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
        encoder={"freeze_patch": True, "init": "xavier_split", "position": "sincos"},
        by_backbone={
            # CONFIG.md: 12 heads, not 6.
            "vit_small": {
                "encoder": {"freeze_patch": True, "init": "xavier_split", "position": "sincos", "heads": 12}
            }
        },
    ),
    "imagenet": Recipe(
        source=(
            "CONFIG.md, ViT-S/16 with 12 heads: batch 4096, AdamW 1.5e-4 x B/256, decay 0.1 on everything, "
            "warm-up 40 of 300 epochs, τ 0.2, m from 0.99 to 1. ViT-B/16 is the same but for its size."
        ),
        backbone="vit_small",
        batch_size=4096,
        epochs={"short": 100, "paper": 300},
        warmup_epochs=40,
        method={"temperature": 0.2},
        views={"preset": "byol"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 0.1,
            "exclude": "none",
        },
        # Section 4: a ViT whose random patch projection stays; of ResNets these are no options.
        encoder={"freeze_patch": True, "init": "xavier_split", "position": "sincos"},
        by_backbone={
            # CONFIG.md: 12 heads, not 6.
            "vit_small": {
                "encoder": {"freeze_patch": True, "init": "xavier_split", "position": "sincos", "heads": 12}
            },
            # CONFIG.md, ResNet-50: batch 4096, LARS, τ 1, crops from 0.2 of the area; (base rate, decay, m₀) are
            # (.6, 1e-6, .99) for 100 epochs and (.3, 1.5e-6, .996) for 1000.
            "resnet": {
                "epochs": {"short": 100, "paper": 1000},
                "warmup_epochs": 10,
                "encoder": {"zero_init_residual": True},
                "method": {"temperature": 1.0, "decay": 0.996},
                "views": {"preset": "byol", "area": (0.2, 1.0)},
                "optimizer": {
                    "name": "lars",
                    "learning_rate": 0.3,
                    "scaling": "linear",
                    "reference_batch": 256,
                    "schedule": "cosine",
                    "weight_decay": 1.5e-6,
                },
                "by_budget": {
                    "short": {
                        "method": {"temperature": 1.0, "decay": 0.99},
                        "optimizer": {
                            "name": "lars",
                            "learning_rate": 0.6,
                            "scaling": "linear",
                            "reference_batch": 256,
                            "schedule": "cosine",
                            "weight_decay": 1e-6,
                        },
                    }
                },
            },
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="vit_micro",
        batch_size=64,
        epochs={"short": 50, "paper": 400},
        warmup_epochs=3,
        method={"temperature": 0.2, "hidden_dim": 512, "projection": 128},
        views={"preset": "byol"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.05,
        },
        by_backbone={
            # Section 4: a ViT whose random patch projection stays; of ResNets these are no options.
            "vit": {
                "encoder": {
                    "freeze_patch": True,
                    "init": "xavier_split",
                    "position": "sincos",
                    "width": 64,
                    "depth": 3,
                    "heads": 2,
                    "pool": "mean",
                }
            }
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
VIT_64 = {
    "pool": "mean",
    "freeze_patch": True,
    "init": "xavier_split",
    "position": "sincos",
    "patch": 8,
    "dtype": "float32",
}
RECIPES["color64"] = at_64_pixels(RECIPES, by_backbone={"vit": {"encoder": VIT_64}})
SMOKE = {"hidden_dim": 32, "projection": 16}
get_config = entry("moco_v3", RECIPES, smoke=SMOKE)
