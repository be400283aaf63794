"""Triplets of frames. Numbers: Wang & Gupta 2015 and xiaolonw/caffe-video_triplet."""

from ml_collections import ConfigDict

from configs import time_contrastive
from ssl_jax.config import recipe as base


def get_config(arg: str = "") -> ConfigDict:
    """``arg``: dataset, backbone, budget, such as ``folder,resnet34,short``; default ``moving,convnet,short``. The clips of a
    folder: ``--config.data.source=frames:PATH``."""
    choice = base.parse(arg, base.CONVOLUTIONAL, dataset="moving")
    config = base.make("triplet_frames", choice, RECIPES.get(choice.dataset, moving)(choice.budget))
    time_contrastive.evaluate_frames(config, choice)
    return config


def moving(budget: str) -> base.Recipe:
    """Garments that move over 40 x 40 pixels, minutes on two CPU cores: two whole frames of a clip, 8 apart."""
    recipe = time_contrastive.moving(budget)
    return recipe._replace(method={"embedding": 128}, data={"window": 2, "stride": 8})


def folder(budget: str) -> base.Recipe:
    """Your own clips at 64 pixels: two frames 29 apart, the first and the last of the paper's tracks."""
    recipe = time_contrastive.folder(budget)
    return recipe._replace(views={"preset": "mae", "area": (0.5, 1.0)}, data={"window": 2, "stride": 29})


RECIPES = {"folder": folder}
