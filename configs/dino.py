"""DINO. Numbers: Caron et al. 2021, facebookresearch/dino, and solo-learn's CIFAR-10 recipe."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores; chosen among a few by the online probes on training "
            "images."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 10, "paper": 100},
        warmup_epochs=1,
        method={
            "head": {"prototypes": 1024, "hidden_dim": 256, "bottleneck": 64},
            "teacher": {"decay": 0.99},
            "temperatures": {"teacher": 0.04},
        },
        views={
            "preset": "dino",
            "local_size": 14,
            "local_count": 2,
            "global_area": (0.4, 1.0),
            "local_area": (0.1, 0.4),
            "local_blur_prob": 0.0,
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": (0.0, 0.0),
            "solarize_prob": (0.0, 0.0),
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "end_learning_rate": 1e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_tensor": 3.0,
        },
        encoder={"pool": "mean", "init": "trunc_normal"},
        freeze_epochs=(("head/prototypes", 1),),
    ),
    "cifar10": Recipe(
        source=(
            "solo-learn's CIFAR-10: ResNet-18, two global views, K 4096, τ_t 0.07 from the start, m₀ 0.9995, LARS "
            "0.3, weight decay 1e-6, last layer frozen for one epoch. Its LARS is another optimizer (clipped); "
            "here the official rule."
        ),
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=10,
        method={
            "head": {"prototypes": 4096},
            "temperatures": {"teacher": 0.07},
            "teacher": {"decay": 0.9995},
        },
        views={
            "preset": "dino",
            "local_count": 0,
            "local_size": 16,
            "global_area": (0.08, 1.0),
            "blur_prob": (0.0, 0.0),
        },
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-6,
        },
        freeze_epochs=(("head/prototypes", 1),),
    ),
    "imagenet": Recipe(
        source=(
            'README: ViT-S/16, 8 local crops. 100 epochs: batch 512, τ_t 0.04, m₀ 0.996; "boosted" 800 epochs: '
            "batch 1024, τ_t 0.04 to 0.07 over 30 epochs, prototypes' norm trained."
        ),
        backbone="vit_small",
        batch_size=512,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=10,
        method={"head": {"norm_last_layer": True}},
        views={"preset": "dino"},
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-4,
            "end_learning_rate": 1e-6,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_tensor": 3.0,
        },
        encoder={"drop_path": 0.1, "init": "trunc_normal"},
        freeze_epochs=(("head/prototypes", 1),),
        by_backbone={
            # README: ResNet-50, SGD 0.03 x B/256, constant weight decay 1e-4, global crops from 0.14, local ones 0.05 to 0.14.
            "resnet": {
                "views": {"preset": "dino", "global_area": (0.14, 1.0), "local_area": (0.05, 0.14)},
                "optimizer": {
                    "name": "sgd",
                    "learning_rate": 0.03,
                    "end_learning_rate": 1e-6,
                    "scaling": "linear",
                    "reference_batch": 256,
                    "schedule": "cosine",
                    "weight_decay": 1e-4,
                },
            }
        },
        by_budget={
            "paper": {
                "batch_size": 1024,
                "method": {
                    "head": {"norm_last_layer": False},
                    "temperatures": {"teacher_start": 0.04, "teacher": 0.07},
                },
                "method_epochs": {"temperatures.teacher_steps": 30},
            }
        },
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="vit_micro",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={
            "head": {"prototypes": 1024, "hidden_dim": 256, "bottleneck": 64},
            "teacher": {"decay": 0.99},
            "temperatures": {"teacher": 0.04},
        },
        views={"preset": "dino", "local_size": 32, "local_count": 4},
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "end_learning_rate": 1e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_tensor": 3.0,
        },
        encoder={"pool": "mean", "init": "trunc_normal"},
        freeze_epochs=(("head/prototypes", 1),),
    ),
}
RECIPES["color32"] = in_color(RECIPES)
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"head.hidden_dim": 32, "head.bottleneck": 16, "head.prototypes": 64}
get_config = entry("dino", RECIPES, smoke=SMOKE)
