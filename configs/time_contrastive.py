"""Time-contrastive networks. Numbers: Sermanet et al. 2018 and tensorflow/models ``research/tcn``.

The clips of a folder: ``folder`` with ``--config.data.source=frames:PATH``.
"""

from ssl_jax.config import Recipe, entry

RECIPES = {
    "moving": Recipe(
        source=(
            "Garments that move over 40 x 40 pixels, minutes on two CPU cores: whole frames, sixteen windows in a "
            "batch."
        ),
        backbone="convnet",
        batch_size=256,
        epochs={"short": 1, "paper": 10},
        warmup_epochs=0.1,
        method={"near": 2, "far": 4},
        views={
            "preset": "mae",
            "area": (1.0, 1.0),
            "ratio": (1.0, 1.0),
            "interpolation": "bilinear",
            "flip_prob": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 3e-3,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 1e-4,
        },
        data={"window": 16, "stride": 1},
        evaluate={"train_split": "train[:5%]", "test_split": "test[:25%]"},
    ),
    "folder": Recipe(
        source="Your own clips at 64 pixels: the code's radii, windows of 32 frames, Adam 1e-3.",
        backbone="resnet18",
        batch_size=256,
        epochs={"short": 50, "paper": 200},
        warmup_epochs=5,
        method={},
        views={"preset": "mae", "area": (0.8, 1.0), "flip_prob": 0.0},
        optimizer={"name": "adamw", "learning_rate": 1e-3, "scaling": "none", "schedule": "cosine"},
        data={"window": 32, "stride": 1},
    ),
}
SMOKE = {"embedding": 16}
get_config = entry("time_contrastive", RECIPES, smoke=SMOKE, dataset="moving")
