"""Sobel filters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from ssl_jax import models
from ssl_jax.models.sobel import sobel


def test_equals_scipys_correlation_of_the_gray_image():
    images = np.random.default_rng(0).normal(size=(3, 7, 5, 3)).astype(np.float32)
    across = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    found = sobel(jnp.asarray(images))
    assert found.shape == (3, 7, 5, 2)
    for image, one in zip(images.mean(-1), found, strict=True):
        for channel, kernel in enumerate((across, across.T)):
            expected = scipy.signal.correlate2d(image, kernel, mode="same")
            np.testing.assert_allclose(one[..., channel], expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_an_encoder_with_it_does_not_see_brightness_or_hue(name):
    options = {"widths": (4, 8)} if name == "convnet" else {"width": 0.0625, "stem": "small"}
    network = models.build(name=name, sobel=True, **options)
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    params, state = network.init(jax.random.key(1), images)
    first = params["block_0"]["conv"] if name == "convnet" else params["conv1"]
    assert first["kernel"].shape[:3] == (3, 3, 2)
    features, _ = network.apply(params, state, images)
    turned, _ = network.apply(params, state, images[..., ::-1])
    np.testing.assert_allclose(turned, features, rtol=1e-4, atol=1e-6)
    assert models.build(**network.config).config == network.config
