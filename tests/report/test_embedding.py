"""Maps and neighbours against numpy, and clusters that must stay together."""

import numpy as np
import pytest

from ssl_jax.evaluate.retrieval import nearest
from ssl_jax.report import embedding

rng = np.random.default_rng(0)


def clusters(n=150, classes=3, d=20):
    labels = np.arange(n) % classes
    return (6 * np.eye(classes, d)[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


def test_pca_equals_the_eigenvectors_of_the_covariance():
    x = rng.normal(size=(50, 8)) * np.arange(1, 9)
    points, share = embedding.pca(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    expected = (x - x.mean(0)) @ vectors[:, :-3:-1]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(share, values[:-3:-1] / values.sum(), rtol=1e-4)


def test_pca_has_a_fixed_sign_and_stands_what_has_no_variance():
    x = rng.normal(size=(20, 5))
    np.testing.assert_allclose(embedding.pca(x)[0], embedding.pca(x[::-1])[0][::-1], atol=1e-5)
    np.testing.assert_array_equal(embedding.pca(np.ones((4, 1)))[0], np.zeros((4, 2)))


def test_affinities_are_a_symmetric_distribution_of_the_perplexity_asked_for():
    x, _ = clusters(90)
    p = np.asarray(embedding.affinities(x, 10.0), np.float64)
    np.testing.assert_allclose(p, p.T, atol=1e-9)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(np.diag(p), 0)
    # The independent oracle: rows of a Gaussian whose width numpy finds by bisection of the entropy.
    squares = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(-1)
    rows = []
    for i in range(len(x)):
        others = np.delete(squares[i], i)
        low, high = 1e-9, 1e3
        for _ in range(200):
            beta = np.sqrt(low * high)
            q = np.exp(-beta * (others - others.min()))
            q /= q.sum()
            entropy = -np.sum(q * np.log(np.maximum(q, 1e-300)))
            low, high = (beta, high) if entropy > np.log(10) else (low, beta)
        rows.append(np.insert(q, i, 0))
    expected = (np.array(rows) + np.array(rows).T) / (2 * len(x))
    np.testing.assert_allclose(p, expected, rtol=2e-3, atol=1e-8)


def test_tsne_keeps_clusters_apart_and_is_the_same_each_time():
    x, labels = clusters()
    found = embedding.project(x)
    assert found.name == "t-SNE"
    assert np.isfinite(found.points).all()
    distances = np.linalg.norm(found.points[:, None] - found.points, axis=-1)
    same = labels[:, None] == labels
    within = distances[same & (distances > 0)].mean()
    assert distances[~same].mean() > 3 * within
    assert (labels[distances.argsort(axis=1)[:, 1:6]] == labels[:, None]).mean() > 0.97
    np.testing.assert_array_equal(embedding.project(x).points, found.points)


def test_features_that_collapsed_still_give_a_finite_map():
    for method in ("pca", "tsne"):
        assert np.isfinite(embedding.project(np.ones((12, 4), np.float32), method=method).points).all()


def test_map_says_which_one_it_is_and_refuses_what_it_cannot_do():
    many = np.zeros((embedding.MOST + 1, 2), np.float32)
    many[:, 0] = np.arange(len(many))
    assert embedding.project(many).name == "PCA"
    with pytest.raises(ValueError, match="at most 2500 for t-SNE"):
        embedding.project(many, method="tsne")
    with pytest.raises(ValueError, match="allowed"):
        embedding.project(many, method="umap")


def test_extremes_are_the_best_and_worst_of_different_classes():
    x, labels = clusters(60)
    labels = labels.copy()
    labels[0] = 1  # stands among the examples of class 0
    found = embedding.extremes(nearest(x, x, 4, exclude_self=True), labels, count=3)
    assert len(set(labels[found.best])) == 3
    assert 0 in found.worst
    assert 0.8 < found.agreement < 1


def test_extremes_without_labels_go_by_distance():
    x, _ = clusters(30)
    x[7] = -x.mean(0)
    found = embedding.extremes(nearest(x, x, 4, exclude_self=True), np.full(30, -1), count=2)
    assert found.worst[0] == 7
    assert np.isnan(found.agreement)
