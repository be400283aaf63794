"""SimSiam. Numbers: Chen & He 2021, facebookresearch/simsiam."""

from ssl_jax.config import Recipe, at_64_pixels, entry, in_color

RECIPES = {
    "fashion_mnist": Recipe(
        source=(
            "28-pixel gray images, minutes on two CPU cores: AdamW, and smaller batches for more steps, by the "
            "online probes."
        ),
        backbone="convnet",
        batch_size=128,
        epochs={"short": 10, "paper": 200},
        warmup_epochs=1,
        method={"heads": {"projector_layers": 2, "projection": 512, "predictor_width": 128}},
        views={
            "preset": "moco_v2",
            "area": (0.3, 1.0),
            "interpolation": "bilinear",
            "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
            "grayscale_prob": 0.0,
            "blur_prob": 0.0,
        },
        # The predictor keeps its learning rate (--fix-pred-lr of the authors' code, their default).
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "constant_lr": ("predictor",),
        },
    ),
    "cifar10": Recipe(
        source=(
            "Paper, appendix D: ResNet-18, two layers of projector, SGD 0.03 x B/256, batch 512, weight decay "
            "5e-4, 800 epochs, no blur, no warm-up."
        ),
        backbone="resnet18",
        batch_size=512,
        epochs={"short": 200, "paper": 800},
        warmup_epochs=0,
        method={"heads": {"projector_layers": 2}},
        views={"preset": "moco_v2", "blur_prob": 0.0},
        # The predictor keeps its learning rate (--fix-pred-lr of the authors' code, their default).
        optimizer={
            "name": "sgd",
            "learning_rate": 0.03,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 5e-4,
            "exclude": "none",
            "constant_lr": ("predictor",),
        },
    ),
    "imagenet": Recipe(
        source=(
            "Paper, section 3: ResNet-50, SGD 0.05 x B/256, batch 512, weight decay 1e-4 on all parameters, no "
            "warm-up, a cosine that moves once an epoch (code). The table of the paper's section 6 has 100 to 800 "
            "epochs."
        ),
        backbone="resnet50",
        batch_size=512,
        epochs={"short": 100, "paper": 800},
        warmup_epochs=0,
        method={},
        views={"preset": "moco_v2"},
        # The predictor keeps its learning rate (--fix-pred-lr of the authors' code, their default).
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "exclude": "none",
            "constant_lr": ("predictor",),
        },
        encoder={"zero_init_residual": True},
        hold_each_epoch=True,
    ),
    "folder": Recipe(
        source="Your own images at 64 pixels: the ImageNet views, fashion_mnist's optimizer.",
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=1,
        method={"heads": {"projector_layers": 2, "projection": 512, "predictor_width": 128}},
        views={"preset": "moco_v2"},
        # The predictor keeps its learning rate (--fix-pred-lr of the authors' code, their default).
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
            "constant_lr": ("predictor",),
        },
    ),
}
RECIPES["color32"] = in_color(RECIPES)
RECIPES["color64"] = at_64_pixels(RECIPES)
SMOKE = {"heads.projector_width": 32, "heads.predictor_width": 32, "heads.projection": 16}
get_config = entry("simsiam", RECIPES, smoke=SMOKE)
