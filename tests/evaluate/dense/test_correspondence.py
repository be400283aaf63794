"""Correspondence against loops over patches, and views whose answer is known."""

import jax
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.dense.correspondence import MEASURE, RADIUS, correspondence, project_centers
from ssl_jax.evaluate.measure import Candidate, Options, Subject
from ssl_jax.methods.method import Method
from ssl_jax.train.features import Features

WHOLE = [0.0, 0.0, 16.0, 16.0]
MIRRORED = [0.0, 16.0, 16.0, 0.0]


def measure_by_hand(first, second, boxes, radius):
    """Share, chance and ceiling, patch by patch, with the pixels of the image as the common ground."""
    hits, chances, best = [], [], []
    for one, other, (a, b) in zip(first, second, boxes, strict=True):
        rows, columns, _ = one.shape
        for i, j in np.ndindex(rows, columns):
            y = a[0] + (i + 0.5) / rows * (a[2] - a[0])
            x = a[1] + (j + 0.5) / columns * (a[3] - a[1])
            inside = min(b[0], b[2]) <= y <= max(b[0], b[2]) and min(b[1], b[3]) <= x <= max(b[1], b[3])
            if not inside:
                continue
            away, cosine = {}, {}
            for p, q in np.ndindex(rows, columns):
                v = b[0] + (p + 0.5) / rows * (b[2] - b[0])
                u = b[1] + (q + 0.5) / columns * (b[3] - b[1])
                away[p, q] = np.hypot((v - y) / (b[2] - b[0]), (u - x) / (b[3] - b[1]))
                cosine[p, q] = (
                    one[i, j] @ other[p, q] / np.linalg.norm(one[i, j]) / np.linalg.norm(other[p, q])
                )
            hits.append(away[max(cosine, key=cosine.get)] <= radius)
            chances.append(np.mean([distance <= radius for distance in away.values()]))
            best.append(min(away.values()) <= radius)
    return np.mean(hits), np.mean(chances), np.mean(best)


def test_shares_chance_and_ceiling_are_those_of_loops_over_patches():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    corners = rng.uniform(0, 8, size=(3, 2, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 9, size=(3, 2, 2))], axis=-1)
    boxes[1, 0] = boxes[1, 0, [0, 3, 2, 1]]
    radii = (0.11, 0.3, 0.7)
    found = correspondence(first, second, boxes, radii=radii)
    expected = [measure_by_hand(first, second, boxes, radius) for radius in radii]
    np.testing.assert_allclose(np.array(found[:3]).T, expected, atol=1e-6)
    assert 0 < found.visible < 1


def test_features_that_say_where_in_the_image_they_are_are_matched_however_the_views_lie():
    """A patch of the second view has the features of the point of the image at its center."""

    def encode(boxes, side=12):
        """Place on a sphere: the nearest cosine is the nearest place."""
        y, x = ((boxes[k] + (np.arange(side) + 0.5) / side * (boxes[k + 2] - boxes[k])) / 16 for k in (0, 1))
        y, x = np.meshgrid(y, x, indexing="ij")
        return np.stack([y, x, np.sqrt(4 - y**2 - x**2)], axis=-1).astype(np.float32)[None]

    for second in (WHOLE, MIRRORED, [2.0, 14.0, 16.0, 1.0]):
        found = correspondence(encode(WHOLE), encode(second), np.array([[WHOLE, second]]), radii=(0.08,))
        assert found.shares == found.ceiling == (1.0,)
    # Read without the flip, only the middle fits.
    wrong = correspondence(encode(WHOLE), encode(MIRRORED), np.array([[WHOLE, WHOLE]]), radii=(0.08,))
    assert wrong.shares[0] < 0.3


def test_constant_features_are_at_chance_and_views_apart_are_refused():
    same = np.ones((1, 4, 4, 2), np.float32)
    found = correspondence(same, same, np.array([[WHOLE, WHOLE]]), radii=(0.1,))
    assert found.shares == found.chance == (1 / 16,)
    with pytest.raises(ValueError, match="no patch of a first view lies in the second"):
        correspondence(same, same, np.array([[WHOLE, [20.0, 0.0, 36.0, 16.0]]]))
    with pytest.raises(ValueError, match="radii="):
        correspondence(same, same, np.array([[WHOLE, WHOLE]]), radii=(0.0,))


def test_a_point_on_the_border_is_seen():
    _, visible = project_centers(np.array([[WHOLE, [2.0, 2.0, 14.0, 14.0]]], np.float32), (4, 4))
    assert visible.all()
    _, visible = project_centers(np.array([[WHOLE, [3.0, 2.0, 14.0, 14.0]]], np.float32), (4, 4))
    assert visible.sum() == 12


def make_subject(network, *, size, images):
    variables = network.init(jax.random.key(0), np.zeros((1, size, size, 3), np.float32))
    method = Method(
        views=(View(size=size, mean=(0.5,), std=(0.25,)),),
        init=lambda key, batch: variables,
        loss=None,
        encoder=network,
        encoder_variables=lambda params, state: (params, state),
    )
    source = ArraySource(images)
    options = Options(k=5, temperature=0.07, per_class=(1,), draws=1, crop_ratio=1.0)
    features = Features(np.zeros((len(images), 1)), np.full(len(images), -1), np.arange(len(images)))
    return Subject(
        features, features, (source, source), options, Candidate("e", "encoder", method, *variables)
    )


def test_the_measure_needs_no_label():
    images = np.random.default_rng(0).integers(0, 256, size=(5, 24, 24, 3), dtype=np.uint8)
    network = models.build("convnet", widths=(8,), grid=1)
    row = MEASURE.run(make_subject(network, size=24, images=images))
    radii = row["correspondence_radii"]
    assert radii["images"] == 5
    assert row["correspondence"] == radii["share"][str(RADIUS)] > 2 * radii["chance"][str(RADIUS)]
    assert radii["ceiling"][str(RADIUS)] == 1
