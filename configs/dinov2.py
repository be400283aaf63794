"""DINOv2. Numbers: Oquab et al. 2023 and facebookresearch/dinov2."""

from ssl_jax.config import Recipe, at_64_pixels, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "ibot",
        "fashion_mnist",
        source="28-pixel gray images, minutes on two CPU cores: iBOT's recipe with balancing and KoLeo.",
        # At 0.07 the balanced distributions stay almost uniform. 4 x 4 patches: the least rectangle is one patch.
        method={
            "head": {"prototypes": 256, "hidden_dim": 128, "bottleneck": 64},
            "teacher": {"decay": 0.99},
            "temperatures": {"teacher": 0.04},
            "masking": {"min_area": 1},
        },
    ),
    "cifar10": derive(
        "ibot",
        "cifar10",
        source="No reference recipe: iBOT's with the losses and the balancing of DINOv2.",
        method={"head": {"prototypes": 4096}, "temperatures": {"teacher_start": 0.04, "teacher": 0.07}},
    ),
    "imagenet": Recipe(
        source=(
            "The code's short configuration, ViT-L/16: batch 2048, AdamW 4e-3 x √(B/1024), 125,000 steps (200 "
            "epochs), centres instead of Sinkhorn, one head of 65,536 prototypes, layer decay 0.9, stochastic "
            'depth 0.3, LayerScale 1e-5. "paper": balancing and untied heads of 131,072 prototypes as in the runs '
            "on ImageNet-22k, over as many steps as those (625,000). Their epochs of 1250 steps are 2 of ours. "
            "Deviations: gradients are clipped by one norm over all parameters, theirs by one a sub-module "
            "(encoder, each head); stochastic depth rises from block to block, theirs is the same in all; the "
            "patch embedding has no learning rate of its own (theirs 0.2 of the others'); where theirs has "
            "learning rate 0 for the last layer in the first epoch, here its moments stand still too."
        ),
        backbone="vit_large",
        batch_size=2048,
        epochs={"short": 200, "paper": 1000},
        warmup_epochs=20,
        method={"temperatures": {"teacher_start": 0.04, "teacher": 0.07}, "centering": "center"},
        views={"preset": "dino", "global_area": (0.32, 1.0), "local_area": (0.05, 0.32)},
        optimizer={
            "name": "adamw",
            "learning_rate": 4e-3,
            "end_learning_rate": 1e-6,
            "scaling": "sqrt",
            "reference_batch": 1024,
            "schedule": "cosine",
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip_norm": 3.0,
            "layer_decay": 0.9,
        },
        encoder={"drop_path": 0.3, "layer_scale": 1e-5, "init": "trunc_normal", "mask_token": True},
        freeze_epochs=(("head/prototypes", 2),),
        method_epochs={"temperatures.teacher_steps": 60},
        by_budget={
            "paper": {
                "method": {
                    "temperatures": {"teacher_start": 0.04, "teacher": 0.07},
                    "head": {"prototypes": 131_072, "patches": "separate"},
                }
            }
        },
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
        method={
            "head": {"prototypes": 256, "hidden_dim": 128, "bottleneck": 64},
            "teacher": {"decay": 0.99},
            "temperatures": {"teacher": 0.04},
            "masking": {"min_area": 4},
        },
        views={
            "preset": "dino",
            "global_area": (0.32, 1.0),
            "local_area": (0.05, 0.32),
            "local_size": 32,
            "local_count": 4,
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
get_config = entry("dinov2", RECIPES, smoke=SMOKE)
