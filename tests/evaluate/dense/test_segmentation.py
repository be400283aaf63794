"""Segmentation of frozen patches: each way against brute force, and on images whose patches tell the class."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.masks import VOID, MaskSource
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.dense.features import map_features, pixel_maps
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.dense.metrics import confusion, mean_iou
from ssl_jax.evaluate.dense.retrieval import Patches, collect_patches, patch_shares, retrieve
from ssl_jax.evaluate.dense.segmentation import (
    MEASURE,
    SegmentationOptions,
    _train,
    linear_head,
    predict_mask,
    segment,
)
from ssl_jax.evaluate.dense.unsupervised import (
    cluster_patches,
    match_clusters,
    matched_confusion,
    nearest_cluster,
    spectral_cut,
)
from ssl_jax.evaluate.encoder import encoder_method
from ssl_jax.evaluate.measure import Candidate, Options, PixelTargets, Subject, offers
from ssl_jax.evaluate.measures import parse_measures, row_columns, run_measures
from ssl_jax.train.features import Features

RNG = np.random.default_rng(0)
COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])


def scenes(count, *, classes=3, seed=0, side=24, stretch=1):
    """Images of colored squares, with some void, whose masks may be smaller than they are."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes, (count, side // 8, side // 8))
    masks = np.kron(blocks, np.ones((1, 8, 8), int))
    images = np.clip(COLORS[masks] + rng.normal(0, 8, (*masks.shape, 3)), 0, 255).astype(np.uint8)
    masks = np.where(rng.random(masks.shape) < 0.05, 255, masks)
    return MaskSource(ArraySource(images), [mask[::stretch, ::stretch] for mask in masks])


PIXELS = pixel_maps(View(mean=(0.5,) * 3, std=(0.5,) * 3), channels=3, patch=4)


@pytest.mark.parametrize(
    ("shape", "grid", "covered"),
    [((12, 16), (3, 4), (1.0, 1.0)), ((10, 7), (3, 4), (1.0, 1.0)), ((10, 13), (3, 4), (10 / 12, 13 / 16))],
)
def test_shares_of_a_patch_equal_a_loop_over_its_pixels(shape, grid, covered):
    target = RNG.integers(-1, 3, shape)
    counts, pixels = np.zeros((*grid, 3)), np.zeros(grid)
    for i in range(shape[0]):
        for j in range(shape[1]):
            row = min(int((i + 0.5) / shape[0] * grid[0] * covered[0]), grid[0] - 1)
            column = min(int((j + 0.5) / shape[1] * grid[1] * covered[1]), grid[1] - 1)
            pixels[row, column] += 1
            if target[i, j] != VOID:
                counts[row, column, target[i, j]] += 1
    expected = counts / np.maximum(pixels, 1)[..., None]
    np.testing.assert_allclose(patch_shares(target, grid, 3, covered), expected, atol=1e-6)


def test_a_memory_is_bounded_and_draws_from_every_image_alike():
    source = scenes(10)
    whole = collect_patches(PIXELS, source, classes=3, memory=10_000)
    part = collect_patches(PIXELS, source, classes=3, memory=105, batch_size=3)
    assert len(whole.features) == 10 * 36 and np.bincount(part.images).tolist() == [10] * 10
    table = {tuple(row): tuple(share) for row, share in zip(whole.features, whole.shares, strict=True)}
    assert all(table[tuple(f)] == tuple(s) for f, s in zip(part.features, part.shares, strict=True))
    few = collect_patches(PIXELS, source, classes=3, memory=4)
    assert few.images.tolist() == [0, 3, 6, 9]
    again = collect_patches(PIXELS, source, classes=3, memory=105, batch_size=7)
    np.testing.assert_array_equal(part.features, again.features)


def test_maps_are_not_kept_however_many_images_there_are(monkeypatch):
    alive, most = [], []

    def counted(*arguments, **options):
        for found in map_features(*arguments, **options):
            alive.append(found.features.nbytes)
            most.append(sum(alive))
            yield found
            alive.pop()

    monkeypatch.setattr("ssl_jax.evaluate.dense.retrieval.map_features", counted)
    sizes = [
        sum(column.nbytes for column in collect_patches(PIXELS, scenes(count), classes=3, memory=60))
        for count in (6, 60)
    ]
    assert sizes[0] == sizes[1] == 60 * 4 * (48 + 3 + 1) and max(most) == 36 * 48 * 4


@pytest.mark.parametrize("k", [1, 5])
def test_retrieval_equals_brute_force(k):
    bank, queries = RNG.normal(size=(40, 6)), RNG.normal(size=(13, 6))
    shares = RNG.dirichlet(np.ones(3), 40) * RNG.random((40, 1))
    expected = []
    for query in queries:
        cosines = [query @ f / np.linalg.norm(query) / np.linalg.norm(f) for f in bank]
        nearest = np.argsort(cosines)[::-1][:k]
        weights = [np.exp(cosines[i] / 0.1) for i in nearest]
        expected.append(sum(w * shares[i] for w, i in zip(weights, nearest, strict=True)) / sum(weights))
    arrays = (part.astype(np.float32) for part in (queries, bank, shares))
    found = retrieve(*arrays, k=k, temperature=0.1, block=4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_retrieval_of_the_memory_itself_returns_its_classes_and_a_cold_one_that_of_the_nearest():
    bank = RNG.normal(size=(30, 8)).astype(np.float32)
    shares = RNG.dirichlet(np.ones(4), 30).astype(np.float32)
    np.testing.assert_allclose(retrieve(bank, bank, shares, k=1), shares, atol=1e-6)
    queries = RNG.normal(size=(9, 8)).astype(np.float32)
    cold = retrieve(queries, bank, shares, k=20, temperature=1e-4)
    np.testing.assert_allclose(cold, retrieve(queries, bank, shares, k=1), atol=1e-4)
    with pytest.raises(ValueError, match=r"k=31: allowed is in \[1, 30\]"):
        retrieve(queries, bank, shares, k=31)


def loop_train(order, features, shares, cell, epochs, batch_size):
    """The same updates in numpy, for one head."""
    rate, decay = cell
    weights, bias = np.zeros((features.shape[1], shares.shape[1])), np.zeros(shares.shape[1])
    momentum, steps = [0.0, 0.0], len(features) // batch_size
    for epoch in range(epochs):
        for step in range(steps):
            rows = order[epoch][step * batch_size : (step + 1) * batch_size]
            x, s = features[rows], shares[rows]
            logits = x @ weights + bias
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            slope = [np.zeros_like(weights), np.zeros_like(bias)]
            for i in range(batch_size):  # of - Σ_c s_c log p_c
                error = sum(s[i, c] * (p[i] - np.eye(len(bias))[c]) for c in range(len(bias)))
                slope[0] += np.outer(x[i], error) / batch_size
                slope[1] += error / batch_size
            time = epoch * steps + step
            now = rate * 0.5 * (1 + np.cos(np.pi * time / (epochs * steps)))
            momentum = [
                0.9 * momentum[0] + slope[0] + decay * weights,
                0.9 * momentum[1] + slope[1],
            ]
            weights, bias = weights - now * momentum[0], bias - now * momentum[1]
    return weights, bias


def test_heads_trained_together_are_those_of_a_loop():
    features = RNG.normal(size=(20, 4)).astype(np.float32)
    shares = (RNG.dirichlet(np.ones(3), 20) * RNG.random((20, 1))).astype(np.float32)
    cells = np.array([[0.1, 0.0], [0.5, 0.01], [1.0, 0.1]], np.float32)
    key = jax.random.key(0)
    order = [np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), 20)) for epoch in range(2)]
    weights, biases = _train(key, jnp.asarray(features), jnp.asarray(shares), jnp.asarray(cells), 2, 6)
    for i, cell in enumerate(cells):
        expected = loop_train(order, features, shares, cell, 2, 6)
        np.testing.assert_allclose(weights[i], expected[0], atol=2e-5)
        np.testing.assert_allclose(biases[i], expected[1], atol=2e-5)


def test_a_head_is_chosen_on_held_out_images_by_the_overlap_of_their_pixels():
    signal, noise = RNG.normal(size=400), 5 * RNG.normal(size=400)
    features = np.stack([signal + noise, noise], -1).astype(np.float32)
    shares = np.stack([signal > 0, signal <= 0], -1).astype(np.float32)
    patches = Patches(features, shares, np.arange(400) // 20)
    given = {"weight_decays": (0.0, 1e4), "epochs": 8, "batch_size": 32}
    head = linear_head(patches, learning_rates=(1e-6, 3.0), **given)
    assert (head.learning_rate, head.weight_decay) == (3.0, 0.0) and head.at_edge == ("learning_rate",)
    assert head.validation == head.grid.max() == head.grid[1, 0]
    assert head.grid.shape == (2, 2) and head.grid[0, 0] < 0.6 < 0.7 < head.grid[1, 0]
    assert head.grid[1, 1] == 0
    assert (head.scores(features).argmax(1) == shares.argmax(1)).mean() > 0.85
    alone = linear_head(patches, learning_rates=(3.0,), **{**given, "weight_decays": (0.0,)})
    np.testing.assert_allclose(head.weights, alone.weights, rtol=1e-5)


def test_patches_of_one_image_choose_nothing():
    patches = collect_patches(PIXELS, scenes(1), classes=3, memory=100)
    with pytest.raises(ValueError, match="training images=1"):
        linear_head(patches)


def test_masks_are_predicted_at_their_own_size():
    scores = np.array([[[1.0, 0.0], [0.2, 0.8]]])
    assert predict_mask(scores, (2, 2)).tolist() == [[0, 1]] * 2
    values = 1 - 0.8 * np.clip((np.arange(16) + 0.5 - 4) / 8, 0, 1)
    others = 0.8 * np.clip((np.arange(16) + 0.5 - 4) / 8, 0, 1)
    assert predict_mask(scores, (1, 16))[0].tolist() == (others > values).astype(int).tolist()


def test_clusters_are_those_of_scikit_learn_where_they_are_clear():
    centers = np.eye(5)[:4] * 3
    features = (centers[RNG.integers(0, 4, 200)] + RNG.normal(0, 0.1, (200, 5))).astype(np.float32)
    ours = nearest_cluster(features, cluster_patches(features, 4))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    theirs = KMeans(4, n_init=5, random_state=0).fit_predict(unit)
    assert len({*zip(ours.tolist(), theirs.tolist(), strict=True)}) == 4


def test_clusters_are_matched_to_classes_by_the_best_assignment():
    for clusters in (2, 4):
        counts = RNG.integers(0, 50, (4, clusters))
        best = max(
            sum(counts[c, k] for k, c in enumerate(chosen))
            for chosen in itertools.permutations(range(4), clusters)
        )
        matched = match_clusters(counts)
        assert sum(counts[c, k] for k, c in enumerate(matched)) == best and len(set(matched)) == clusters
        assert np.trace(matched_confusion(counts)) == best
        assert (matched_confusion(counts).sum(1) == counts.sum(1)).all()
    many = RNG.integers(0, 50, (3, 8))
    assert np.trace(matched_confusion(many)) == many.max(0).sum()


def test_a_spectral_cut_is_the_second_eigenvector_of_the_normalized_laplacian():
    features = RNG.normal(size=(5, 6, 3)) + 0.5
    features[1:4, 2:5] += 2 * np.array([1.0, -1.0, 0.0])
    unit = features.reshape(-1, 3) / np.linalg.norm(features.reshape(-1, 3), axis=1, keepdims=True)
    affinity = np.array([[1.0 if a @ b > 0.2 else 1e-5 for b in unit] for a in unit])
    root = 1 / np.sqrt(affinity.sum(1))
    laplacian = np.eye(30) - root[:, None] * affinity * root
    _, vectors = np.linalg.eigh(laplacian)
    y = root * vectors[:, 1]
    side = y > y.mean()
    expected = side == side[np.abs(y).argmax()]
    np.testing.assert_array_equal(spectral_cut(features).ravel(), expected)


def test_large_maps_are_averaged_before_they_are_cut(monkeypatch):
    monkeypatch.setattr("ssl_jax.evaluate.dense.unsupervised.MAX_CELLS", 100)
    expected = np.zeros((16, 18), bool)
    expected[4:8, 8:14] = True
    features = np.stack([~expected, expected], -1).astype(float)
    np.testing.assert_array_equal(spectral_cut(features), expected)
    with pytest.raises(ValueError, match="two patches"):
        spectral_cut(np.ones((1, 1, 2)))


def test_segmentation_of_colors_is_right_in_every_way_and_below_the_ceiling():
    options = SegmentationOptions(neighbors=5)
    train, test = scenes(24), scenes(6, seed=1, stretch=2)
    results = segment(PIXELS, train, test, options=options)
    for way in ("linear", "retrieval", "kmeans"):
        assert results[way]["miou"] > 0.8, way
    assert results["ceiling"]["miou"] > 0.8 > 0.4 > results["majority"]["miou"]
    assert results["facts"] == {
        "grid": [6, 6],
        "patches": 24 * 36,
        "memory": 24 * 36,
        "classes": ["0", "1", "2"],
    }
    assert "cut" not in results and 0 < results["linear"]["boundary_f"] <= 1
    ceiling = np.zeros((3, 3), int)
    for i in range(6):
        target = test[i]["target"]
        shares = patch_shares(target, (6, 6), 3)
        ceiling += confusion(predict_mask(shares, target.shape), target, 3)
    assert results["ceiling"]["miou"] == pytest.approx(mean_iou(ceiling), abs=1e-12)


@pytest.mark.long
def test_two_classes_have_a_cut():
    train, test = scenes(12, classes=2), scenes(4, classes=2, seed=1)
    framing = Framing(size=32, align="pad")
    results = segment(PIXELS, train, test, framing=framing)
    assert 0 <= results["cut"]["iou"] <= 1 and results["cut"]["images"] == 4
    assert results["facts"]["grid"] == [8, 8]


def test_masks_of_one_class_are_refused():
    one = scenes(4, classes=1)
    with pytest.raises(ValueError, match="mask classes=1"):
        segment(PIXELS, one, one)


def subject(candidate=None, targets=True):
    train, test = scenes(12), scenes(4, seed=1)
    none = Features(np.zeros((0, 1), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))
    options = Options(k=3, temperature=0.07, per_class=(1,), draws=1, crop_ratio=1.0)
    pixels = PixelTargets((train, test)) if targets else None
    return Subject(none, none, (train.images, test.images), options, candidate, pixel_targets=pixels)


@pytest.mark.long
def test_the_measure_is_taken_of_pixels_and_encoders_where_there_are_masks():
    network = models.build("convnet", widths=(8,), norm="batch")
    variables = network.init(jax.random.key(0), jnp.zeros((1, 24, 24, 3)))
    view = View(size=24, mean=(0.5,) * 3, std=(0.5,) * 3)
    candidate = Candidate("x", "encoder", encoder_method(network, view), *variables)
    rows = [run_measures(subject(c), parse_measures(["segmentation"])) for c in (None, candidate)]
    for row in rows:
        assert {"miou_linear", "miou_retrieval", "miou_kmeans", "pixel_accuracy", "boundary_f"} <= set(row)
        assert row["miou_linear"] == row["segmentation"]["linear"]["miou"] > 0.5
        assert list(row_columns(row)) == [c.key for c in MEASURE.columns if c.key != "cut_iou"]
    without = subject(candidate, targets=False)
    assert not offers(without) & MEASURE.needs
    assert run_measures(without, [MEASURE]) == {}
