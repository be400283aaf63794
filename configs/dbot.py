"""dBOT, one stage. Numbers: Liu et al. 2022, appendix, and liuxingbin/dbot.

``--config.method.teacher=NAME`` chooses the teacher, such as the run of the stage before; without it its weights are random.
"""

from ssl_jax.config import derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "mae",
        "fashion_mnist",
        source="28-pixel gray images: MAE's recipe.",
        method={"mask_ratio": 0.5, "decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4},
    ),
    "cifar10": derive(
        "mae",
        "cifar10",
        source=(
            "No reference recipe: MAE's here, with drop path and the gradient's norm cut as on ImageNet, a stage of half "
            "as long."
        ),
        epochs={"short": 100, "paper": 800},
        warmup_epochs=20,
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
            "clip_norm": 3.0,
        },
        encoder={"position": "sincos", "drop_path": 0.1},
    ),
    "imagenet": derive(
        "mae",
        "imagenet",
        source=(
            "ViT-B/16: MAE's recipe with drop path 0.2 (ViT-L 0.3) and gradients of norm 3 at most; a stage of 800 epochs "
            "with 40 of warm-up, two of them (ViT-L and ViT-H two or three); 84.5 fine-tuned."
        ),
        epochs={"short": 100, "paper": 800},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
            "clip_norm": 3.0,
        },
        encoder={"position": "sincos", "drop_path": 0.2},
    ),
    "folder": derive(
        "mae",
        "folder",
        source="Your own images at 64 pixels: MAE's recipe, a stage of half as long.",
        epochs={"short": 50, "paper": 200},
    ),
}
RECIPES["color32"] = in_color(RECIPES, method={"mask_ratio": 0.75})
SMOKE = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
get_config = entry("dbot", RECIPES, smoke=SMOKE)
