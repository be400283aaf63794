"""Invariance: changes are what they say, distances and readouts are those of independent libraries, extremes are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.invariance import (
    CHANGES,
    MEASURE,
    change_images,
    crop_planes,
    feature_movement,
    measure_changes,
    readout_r2,
    rotate_planes,
)
from ssl_jax.evaluate.measure import Candidate, Options, Subject
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.features import Features

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (140, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", CHANGES)
def test_no_strength_is_no_change_and_numbers_grow_with_the_strength(name):
    change = CHANGES[name]
    made = jax.jit(lambda low, high: change_images(jax.random.key(1), IMAGES, change, low=low, high=high))
    same, numbers = made(0.0, 0.0)
    np.testing.assert_allclose(same, IMAGES / 255, atol=2e-6)
    assert numbers.shape == (len(IMAGES), len(change.parameters))
    most = change.strengths[-1]
    strong, numbers = made(most, most)
    assert np.abs(strong - IMAGES / 255).max() > 0.05 and strong.min() >= 0 and strong.max() <= 1 + 1e-6
    np.testing.assert_allclose(np.abs(numbers[:, 0]), most, rtol=1e-6)
    drawn = np.abs(made(0.0, most)[1][:, 0])
    assert 0 <= drawn.min() < 0.1 * most and 0.9 < drawn.max() / most <= 1 + 1e-6


@pytest.mark.parametrize("degrees", [90.0, -90.0, 30.0, -17.0])
def test_rotation_is_that_of_scipy_and_of_quarter_turns(degrees):
    plane = RNG.random((9, 9)).astype(np.float32)
    turned = np.asarray(rotate_planes(jnp.asarray(plane[None]), degrees))[0]
    expected = ndimage.rotate(plane, degrees, reshape=False, order=1, mode="mirror")
    np.testing.assert_allclose(turned, expected, atol=1e-5)
    if abs(degrees) == 90:
        np.testing.assert_allclose(turned, np.rot90(plane, 1 if degrees > 0 else 3), atol=1e-5)


def test_crop_is_bilinear_reading_of_a_window():
    plane, removed, down, right = RNG.random((6, 6)).astype(np.float32), 0.4, 0.1, -0.2
    expected = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            y = (removed / 2 + down) * 6 + (i + 0.5) * 0.6 - 0.5
            x = (removed / 2 + right) * 6 + (j + 0.5) * 0.6 - 0.5
            y, x = np.clip(y, 0, 5), np.clip(x, 0, 5)
            top, left = min(int(y), 4), min(int(x), 4)
            b, r = y - top, x - left
            corners = plane[top : top + 2, left : left + 2]
            expected[i, j] = (np.outer([1 - b, b], [1 - r, r]) * corners).sum()
    cropped = crop_planes(jnp.asarray(plane[None]), removed, down, right)[0]
    np.testing.assert_allclose(cropped, expected, atol=1e-5)


def test_blur_is_that_of_scipy():
    image = RNG.random((32, 32, 1)).astype(np.float32)
    blurred, numbers = change_images(jax.random.key(0), image[None], CHANGES["blur"], low=1 / 32, high=1 / 32)
    expected = ndimage.gaussian_filter(image[..., 0], 1.0, radius=6, mode="mirror")
    np.testing.assert_allclose(blurred[0, ..., 0], expected, atol=1e-5)
    assert float(numbers[0, 0]) == pytest.approx(1 / 32)


def test_movement_is_the_ratio_of_two_mean_distances():
    original, changed = RNG.normal(size=(2, 7, 4))
    u = original / np.linalg.norm(original, axis=1, keepdims=True)
    v = changed / np.linalg.norm(changed, axis=1, keepdims=True)
    between = [((u[i] - u[j]) ** 2).sum() for i in range(7) for j in range(7) if i != j]
    within = [((u[i] - v[i]) ** 2).sum() for i in range(7)]
    expected = np.mean(within) / np.mean(between)
    assert feature_movement(original, changed) == pytest.approx(expected, rel=1e-9)
    assert feature_movement(original * 5, changed * 0.1) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("original", "message"), [(np.ones((3, 2)), "one vector"), (np.ones((1, 2)), "two images")]
)
def test_features_without_a_distance_are_refused(original, message):
    with pytest.raises(ValueError, match=message):
        feature_movement(original, original)


@pytest.mark.parametrize("width", [5, 60])
def test_readout_is_the_ridge_regression_of_sklearn(width):
    x = RNG.normal(size=(80, width))
    y = x[:, :2] @ [[2.0, -1.0], [0.5, 1.0]] + RNG.normal(size=(80, 2)) + 3
    (train, test), (fitted, judged) = np.split(x, [50]), np.split(y, [50])
    scaled = [(part - train.mean(0)) / train.std(0) for part in (train, test)]
    expected = r2_score(
        judged, Ridge(alpha=50 * 0.1).fit(scaled[0], fitted).predict(scaled[1]), multioutput="raw_values"
    )
    np.testing.assert_allclose(readout_r2(train, fitted, test, judged, l2=(0.1,)), expected, atol=1e-4)


def test_readout_chooses_the_penalty_of_each_target_on_training_rows():
    x = RNG.normal(size=(120, 40))
    y = np.stack([x[:, 0], RNG.normal(size=120)], axis=1)
    exact, noise = readout_r2(x[:60], y[:60], x[60:], y[60:], l2=(1e-4, 1e3))
    assert exact > 0.99 and -0.2 < noise < 0.1
    assert np.isnan(readout_r2(x, y, x[:4], np.ones((4, 2)))).all()
    with pytest.raises(ValueError, match="l2="):
        readout_r2(x, y, x, y, l2=(0.0,))


@pytest.mark.parametrize("names", [["color"], pytest.param(list(CHANGES), marks=pytest.mark.long)])
def test_a_blind_encoder_is_invariant_and_pixels_are_not(names):
    """All pixels, whose mean tells the brightness; and numbers that have nothing to do with the image."""
    changes = {name: CHANGES[name] for name in names}
    smooth = np.repeat(np.repeat(IMAGES[:, ::4, ::4], 4, axis=1), 4, axis=2)

    def encode(images):
        pixels = images.reshape(len(images), -1)
        return pixels, jnp.eye(pixels.shape[1])[jnp.arange(len(pixels)) % 7]

    view = View(mean=(0.5,), std=(0.5,))
    (pixels, read), (blind, guessed) = measure_changes(encode, (), view, smooth, smooth, changes=changes)
    assert measure_changes(encode, (), view, smooth, smooth, changes=changes)[0] == (pixels, read)
    assert set(blind.values()) == {0.0}
    assert list(pixels) == [f"{n} {s:g}" for n, change in changes.items() for s in change.strengths]
    for name, change in changes.items():
        values = [pixels[f"{name} {strength:g}"] for strength in change.strengths]
        assert 0 < values[0] < values[1] < values[2]
    assert read["color brightness"] > 0.5 and max(guessed.values()) < 0.1
    assert list(read) == [f"{n} {p}" for n, change in changes.items() for p in change.parameters]


@pytest.mark.long
def test_measure_reads_backbone_and_projector():
    method = simclr.build(models.build("convnet", widths=(4,)), views=(View(size=8), View(size=8)))
    params, state = method.init(jax.random.key(0), {"views": (jnp.zeros((2, 2, 8, 8, 1)),)})
    source = ArraySource(IMAGES[..., :1])
    none = Features(np.zeros((0, 1)), np.zeros(0, np.int32), np.zeros(0, np.int32))
    options = Options(k=1, temperature=1.0, per_class=(), draws=1, crop_ratio=1.0)
    subject = Subject(none, none, (source, source), options, Candidate("a", "encoder", method, params, state))
    row = MEASURE.run(subject)
    assert set(row) == {"invariance", "equivariance", "projector_invariance", "projector_equivariance"}
    assert "color contrast" in row["equivariance"] and "color hue" not in row["equivariance"]
    assert all(isinstance(value, float) for part in row.values() for value in part.values())
    with pytest.raises(ValueError, match="one training or test image"):
        MEASURE.run(subject._replace(sources=(source, ArraySource(IMAGES[:1, ..., :1]))))
