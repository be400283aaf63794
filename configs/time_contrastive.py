"""Time-contrastive networks. Numbers: Sermanet et al. 2018 and tensorflow/models ``research/tcn``."""

from ml_collections import ConfigDict

from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``folder,resnet34,short``; default ``moving,convnet,short``. The clips of a
    folder: ``--config.data.source=frames:PATH``."""
    choice = base.parse(arg, base.CONVOLUTIONAL, dataset="moving")
    config = base.make("time_contrastive", choice, RECIPES.get(choice.dataset, moving)(choice.budget))
    evaluate_frames(config, choice)
    return config


def evaluate_frames(config: ConfigDict, choice: base.Choice) -> None:
    """Of the moving clips some are enough: frames of one are alike."""
    if choice.dataset == "moving":
        config.watch.evaluate.train_split, config.watch.evaluate.test_split = "train[:5%]", "test[:25%]"


def moving(budget: str) -> base.Recipe:
    """Garments that move over 40 x 40 pixels, minutes on two CPU cores: whole frames, sixteen windows in a batch."""
    return base.Recipe(
        batch_size=256,
        epochs={"short": 1, "paper": 10}.get(budget, 1),
        warmup_epochs=0.1,
        method={"near": 2, "far": 4},
        views={
            "preset": "mae",
            "area": (1.0, 1.0),
            "ratio": (1.0, 1.0),
            "interpolation": "bilinear",
            "flip_prob": 0.0,
        },
        optimizer=base.GRAY_OPTIMIZER,
        data={"window": 16, "stride": 1},
    )


def folder(budget: str) -> base.Recipe:
    """Your own clips at 64 pixels: the code's radii, windows of 32 frames, Adam 1e-3."""
    return moving(budget)._replace(
        epochs={"short": 50, "paper": 200}.get(budget, 1),
        warmup_epochs=5,
        method={},
        views={"preset": "mae", "area": (0.8, 1.0), "flip_prob": 0.0},
        optimizer={"name": "adamw", "learning_rate": 1e-3, "scaling": "none"},
        data={"window": 32, "stride": 1},
    )


RECIPES = {"folder": folder}
