"""A ViT in timm's names for images of one channel: a teacher that ``load_pretrained`` reads."""

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ssl_jax import models
from ssl_jax.interop import load_pretrained
from ssl_jax.models.torch_names_vit import vit_to_torch


def save_foreign_vit(folder, *, width=16, depth=2, patch=4, image_size=28, channels=1):
    """Write the file; returns its path and what ``load_pretrained`` makes of it."""
    options = {"width": width, "depth": depth, "heads": 2, "patch": patch, "image_size": image_size}
    network = models.build("vit_micro", **options)
    params, state = network.init(jax.random.key(3), jnp.zeros((1, image_size, image_size, channels)))
    params = jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), params)
    path = folder / "vit.safetensors"
    safetensors.numpy.save_file(vit_to_torch(params, state, network), str(path))
    return str(path), load_pretrained(str(path))


def expected_pixels(loaded, view, crops, size):
    """Crops as a teacher expects them: resized, and with its mean and standard deviation in place of the view's."""
    resized = jax.image.resize(crops, (len(crops), size, size, crops.shape[-1]), "linear")
    pixels = resized * np.asarray(view.std) + np.asarray(view.mean)
    return (pixels - np.asarray(loaded.preprocessing.mean)) / np.asarray(loaded.preprocessing.std)


def loop_resample(grid, rows, columns):
    """Bilinear, half-pixel, by loops over the target's positions: ``[r, s, d]`` to ``[rows, columns, d]``."""
    height, width, features = grid.shape
    found = np.zeros((rows, columns, features))
    for i in range(rows):
        for j in range(columns):
            y = min(max((i + 0.5) * height / rows - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / columns - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            b, a = y - top, x - left
            upper = (1 - a) * grid[top, left] + a * grid[top, right]
            lower = (1 - a) * grid[bottom, left] + a * grid[bottom, right]
            found[i, j] = (1 - b) * upper + b * lower
    return found


def standardized(x):
    """Mean 0 and variance 1 over features."""
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
