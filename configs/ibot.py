"""iBOT. Numbers: Zhou et al. 2022 and bytedance/ibot."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: DINO's recipe with a small ViT and, as ViTs are slow "
            "to start, four times as many steps of a quarter of the images."
        ),
        backbone="vit_micro",
        batch_size=64,
        epochs={"short": 10, "paper": 100},
        warmup_epochs=1,
        method={"head": {"prototypes": 256, "hidden_dim": 128, "bottleneck": 64}, "teacher": {"decay": 0.99}},
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
            "learning_rate": 1e-3,
            "end_learning_rate": 1e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_tensor": 3.0,
        },
        # Kernels of standard deviation 0.02 are too small for this width: blocks would start next to nothing.
        encoder={
            "width": 64,
            "depth": 3,
            "heads": 2,
            "pool": "mean",
            "init": "xavier",
            "position": "sincos",
            "mask_token": True,
        },
        freeze_epochs=(("head/prototypes", 0.25),),
    ),
    "cifar10": Recipe(
        source=(
            "No reference recipe: the ImageNet one with patches of 4 pixels, 4 local crops of 16 pixels and K "
            "4096."
        ),
        backbone="vit_tiny",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=10,
        method={
            "head": {"norm_last_layer": False, "prototypes": 4096},
            "temperatures": {"teacher_start": 0.04, "teacher": 0.07, "patch_start": 0.04, "patch": 0.07},
        },
        views={
            "preset": "dino",
            "local_count": 4,
            "global_area": (0.25, 1.0),
            "local_area": (0.05, 0.25),
            "local_size": 16,
            "blur_prob": (0.0, 0.0),
            "local_blur_prob": 0.0,
        },
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
        encoder={"drop_path": 0.1, "init": "trunc_normal", "mask_token": True},
        freeze_epochs=(("head/prototypes", 1),),
        method_epochs={"temperatures.teacher_steps": 30},
    ),
    "imagenet": Recipe(
        source=(
            "The code's ViT-S/16: batch 1024, AdamW 5e-4 x B/256, 800 epochs, 10 local crops, K 8192, prototypes' "
            "norm trained, both temperatures 0.04 to 0.07 over 30 epochs, last layer frozen for one epoch, "
            "gradients clipped tensor by tensor."
        ),
        backbone="vit_small",
        batch_size=1024,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=10,
        method={
            "head": {"norm_last_layer": False},
            "temperatures": {"teacher_start": 0.04, "teacher": 0.07, "patch_start": 0.04, "patch": 0.07},
        },
        views={"preset": "dino", "local_count": 10, "global_area": (0.25, 1.0), "local_area": (0.05, 0.25)},
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
        encoder={"drop_path": 0.1, "init": "trunc_normal", "mask_token": True},
        freeze_epochs=(("head/prototypes", 1),),
        method_epochs={"temperatures.teacher_steps": 30},
    ),
    "folder": Recipe(
        source=(
            "Your own images at 64 pixels: the ImageNet views with 4 local crops, fashion_mnist's optimizer, a "
            "larger ViT."
        ),
        backbone="vit_micro",
        batch_size=64,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"head": {"prototypes": 256, "hidden_dim": 128, "bottleneck": 64}, "teacher": {"decay": 0.99}},
        views={
            "preset": "dino",
            "local_count": 4,
            "global_area": (0.25, 1.0),
            "local_area": (0.05, 0.25),
            "local_size": 32,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "end_learning_rate": 1e-6,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_tensor": 3.0,
        },
        encoder={"pool": "mean", "init": "trunc_normal", "mask_token": True},
        freeze_epochs=(("head/prototypes", 0.25),),
    ),
}
RECIPES["color32"] = in_color(RECIPES)
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"head.hidden_dim": 32, "head.bottleneck": 16, "head.prototypes": 64}
get_config = entry("ibot", RECIPES, smoke=SMOKE)
