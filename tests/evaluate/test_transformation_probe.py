"""The probe of transformations: each transformation by hand, perfect and useless features, what gray images lack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.encoder import encoder_method
from ssl_jax.evaluate.measure import Candidate
from ssl_jax.evaluate.transformations import (
    CORNER,
    FACTORS,
    TRANSFORMATIONS,
    transformation_accuracies,
    transformation_probe,
    transformed,
)

IMAGES = np.float32(np.random.default_rng(0).uniform(0.3, 0.6, (3, 10, 10, 3)))


def versions(name, images=IMAGES):
    return np.asarray(jax.jit(TRANSFORMATIONS[name].apply)(jnp.asarray(images)))


@pytest.mark.parametrize("name", list(TRANSFORMATIONS))
def test_every_value_makes_an_image_of_the_same_shape_in_range(name):
    made = versions(name)
    assert made.shape == (3, len(TRANSFORMATIONS[name].values), 10, 10, 3)
    assert made.min() >= 0 and made.max() <= 1
    # No two values do the same.
    flat = made.reshape(3, made.shape[1], -1)
    assert all(np.abs(flat[:, i] - flat[:, j]).max() > 1e-3 for i in range(len(flat[0])) for j in range(i))


def test_transformations_by_hand():
    np.testing.assert_array_equal(versions("flip")[:, 1], IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(versions("rotation")[:, 2], IMAGES[:, ::-1, ::-1])
    np.testing.assert_allclose(
        versions("brightness"), np.stack([np.clip(f * IMAGES, 0, 1) for f in FACTORS], axis=1), atol=1e-6
    )
    gray = (IMAGES * [0.2989, 0.587, 0.114]).sum(axis=-1)
    np.testing.assert_allclose(versions("color")[:, 1], gray[..., None].repeat(3, axis=-1), atol=1e-3)
    # A crop in a corner shows nothing of what lies beyond it.
    seen = round(CORNER * 10)
    other = IMAGES.copy()
    other[:, seen:], other[:, :, seen:] = 0, 0
    np.testing.assert_array_equal(versions("crop's corner", other)[:, 0], versions("crop's corner")[:, 0])


def test_noise_of_an_image_is_its_own_whatever_batch_it_is_in():
    alone = np.concatenate([versions("noise", IMAGES[i : i + 1]) for i in range(3)])
    np.testing.assert_array_equal(versions("noise"), alone)
    noise = alone[:, 1] - alone[:, 0]
    assert np.std(noise) == pytest.approx(0.1, rel=0.1)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2


def test_normalisation_is_undone_and_done_again():
    view = View(size=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.3))
    given = (IMAGES - np.float32(view.mean)) / np.float32(view.std)
    made = np.asarray(transformed(TRANSFORMATIONS["flip"], jnp.asarray(given), view))
    np.testing.assert_allclose(made[:, 1], given[:, :, ::-1], atol=1e-5)


def test_features_of_the_transformation_are_exact_and_others_are_at_chance():
    rng = np.random.default_rng(0)
    told = np.tile(np.eye(4, dtype=np.float32), (60, 1, 1)) + 0.05 * rng.normal(size=(60, 4, 4)).astype(
        np.float32
    )
    assert transformation_probe(told[:40], told[40:]).accuracy == 1.0
    # The image alone, the same whatever was done to it: one version of each is right.
    silent = rng.normal(size=(60, 1, 4)).astype(np.float32).repeat(4, axis=1)
    assert transformation_probe(silent[:40], silent[40:]).accuracy == pytest.approx(0.25)


@pytest.mark.long
def test_an_encoder_has_a_row_for_each_parameter_that_its_images_have():
    network = models.build("convnet", widths=(4,), grid=2)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    candidate = Candidate("tiny", "encoder", encoder_method(network, View(size=8)), *variables)
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    sources = ArraySource(images[:20]), ArraySource(images[20:])
    reads = {
        "backbone": candidate.method.encode,
        "nothing": lambda params, state, images: jnp.zeros((len(images), 1)),
    }
    rows = transformation_accuracies(candidate, sources, reads, images=(16, 8))
    names = [row["transformation"] for row in rows]
    assert set(TRANSFORMATIONS) - set(names) == {"hue", "color"}  # gray images have neither
    for row in rows:
        assert row["nothing"] == pytest.approx(row["chance"])
        assert 0 <= row["backbone"] <= 1
