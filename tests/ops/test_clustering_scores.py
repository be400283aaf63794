"""Scores of a clustering: scikit-learn, all matchings of small cases, bounds."""

import inspect
import itertools

import numpy as np
import pytest
from sklearn import metrics

from ssl_jax.ops.clustering_scores import changed_share, normalized_mutual_information, purity

SCORES = [purity, normalized_mutual_information, changed_share]


def labels(seed, count=60, names=5):
    return np.random.default_rng(seed).integers(0, names, count)


@pytest.mark.parametrize("seed", range(3))
def test_mutual_information_is_scikit_learn_s_and_symmetric(seed):
    a, b = labels(seed), labels(seed + 10, names=3)
    b[:30] = a[:30] % 3
    expected = metrics.normalized_mutual_info_score(a, b)
    assert normalized_mutual_information(a, b) == pytest.approx(expected, abs=1e-12)
    assert normalized_mutual_information(b, a) == pytest.approx(expected, abs=1e-12)


def test_purity_is_that_of_scikit_learn_s_contingency_table():
    a, b = labels(0), labels(1)
    table = metrics.cluster.contingency_matrix(a, b)
    assert purity(a, b) == pytest.approx(table.max(axis=1).sum() / len(a))


@pytest.mark.parametrize("names", [3, 4])
def test_changed_is_the_least_over_all_matchings(names):
    a, b = labels(0, names=names), labels(1, names=4)
    best = max(np.mean(np.array(order)[a] == b) for order in itertools.permutations(range(4), names))
    assert changed_share(a, b) == pytest.approx(1 - best)


def test_names_of_clusters_do_not_matter():
    a, b = labels(0), labels(1)
    renamed = np.array([70, 3, 9, 12, 1])[a]
    assert changed_share(a, renamed) == 0.0
    assert normalized_mutual_information(a, renamed) == pytest.approx(1.0)
    for score in SCORES:
        assert score(renamed, b) == pytest.approx(score(a, b))


def test_images_without_a_label_do_not_count():
    a, b = labels(0), labels(1)
    for score in SCORES:
        expected = score(a[10:40], b[10:40])
        first, second = a.copy(), b.copy()
        first[:10], second[40:] = -1, -1
        assert score(first, second) == pytest.approx(expected)
        assert np.isnan(score(np.full(3, -1), np.zeros(3, int)))


def test_one_cluster_says_nothing_about_classes():
    assert normalized_mutual_information(np.zeros(60, int), labels(0)) == pytest.approx(0.0, abs=1e-12)
    assert normalized_mutual_information(np.zeros(4, int), np.ones(4, int)) == 1.0


@pytest.mark.parametrize("score", SCORES)
def test_labels_of_other_lengths_are_refused(score):
    with pytest.raises(ValueError, match=r"labels=\(\(3,\), \(4,\)\)"):
        inspect.unwrap(score)(np.zeros(3, int), np.zeros(4, int))
