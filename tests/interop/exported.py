"""Random encoders on their way out, and the lines of use that an export shows, run on a picture."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ssl_jax import models
from ssl_jax.core import trees
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.interop.write_files import encoder_of, settled

VIT = {"width": 32, "depth": 2, "heads": 4, "patch": 8, "image_size": 32}


def random_encoder(name, *, channels=3, size=32, crop_ratio=1.0, seed=0, **options):
    """Build an encoder whose arrays are random everywhere, also those that start at 0 or 1."""
    network = models.build(name, **options)
    variables = network.init(jax.random.key(seed), jnp.zeros((1, 32, 32, channels)))
    rng = np.random.default_rng(seed)

    def perturb(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        return jnp.abs(leaf + 0.2 * noise) + 0.5 if path.endswith("var") else leaf + 0.1 * noise

    params, state = trees.map_with_path(perturb, variables)
    mean, std = (0.4, 0.45, 0.5), (0.2, 0.3, 0.25)
    numbers = {"mean": (mean * channels)[:channels], "std": (std * channels)[:channels]}
    preprocessing = Preprocessing((size, size), crop_ratio=crop_ratio, interpolation="bicubic", **numbers)
    return encoder_of(network, params, state, preprocessing)


def draw_picture(encoder, folder, *, shape=None, seed=0):
    """Write a random picture, of the encoder's size or of another; returns what the encoder makes of it."""
    height, width = shape or encoder.preprocessing.size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, encoder.channels), np.uint8)
    if encoder.channels in (1, 3):
        Image.fromarray(pixels.squeeze()).save(folder / "photo.png")
    else:
        np.save(folder / "photo.npy", (pixels / 255).astype(np.float32))
    images = encoder.preprocessing.apply(pixels)[None]
    return np.asarray(encoder.network.apply(encoder.params, encoder.state, images)[0])


def run_use(code, folder):
    """Run lines of use in a folder; returns the features that they make."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        names: dict = {}
        exec(code, names)
    finally:
        os.chdir(before)
    return np.asarray(names["features"])


def difference(found, expected):
    """Return the largest difference as a share of the largest entry."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def assert_same_arrays(loaded, encoder):
    """Compare params and state bit by bit, but for biases of keys that have no effect or do not count.

    What was loaded may have more: LayerScale and mask tokens that a class of transformers always has.
    """
    encoder = settled(encoder)
    given = trees.flatten((encoder.params, encoder.state))
    found = trees.flatten((loaded.params, loaded.state))
    extra = {path.split("/")[-1] for path in found.keys() - given.keys()}
    assert not given.keys() - found.keys() and extra <= {"gamma", "mask_token"}, extra
    for path, array in given.items():
        ours, theirs = np.asarray(array), np.asarray(found[path])
        if path.endswith("qkv/bias") and encoder.network.config["position"] in ("rope", "relative"):
            ours, theirs = (value.reshape(3, -1)[[0, 2]] for value in (ours, theirs))
        np.testing.assert_array_equal(theirs, ours, err_msg=path)
