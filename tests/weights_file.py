"""Small random encoders in files, to start from and to measure."""

import jax
import numpy as np

from ssl_jax.models import build
from ssl_jax.models.serialize import save_encoder
from tests.models.fill import random_variables

VIT = {"name": "vit_micro", "width": 32, "depth": 2, "heads": 2, "patch": 7, "image_size": 28}
RESNET = {"name": "resnet18", "width": 0.125, "stem": "small"}


def write_weights(path, *, channels=3, size=28, seed=0, **options):
    """Write an encoder with random weights everywhere; return ``(network, params, state)``."""
    network = build(**{**VIT, **options} if options.get("name", "vit").startswith("vit") else options)
    params, state = random_variables(network, np.zeros((1, size, size, channels), np.float32), seed)
    state = jax.tree.map(lambda x: np.abs(x) + 0.5, state)
    facts = {
        "image_shape": [size, size, channels],
        "mean": [0.4, 0.5, 0.6][:channels],
        "std": [0.2, 0.25, 0.3][:channels],
        "crop_ratio": 0.875,
    }
    save_encoder(path, network, params, state, metadata=facts)
    return network, params, state
