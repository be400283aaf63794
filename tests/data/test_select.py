import itertools

import jax
import numpy as np
import pytest

from ssl_jax.data.select import (
    Hierarchy,
    balance,
    even_quotas,
    hierarchical_kmeans,
    k_center,
    sample_hierarchy,
)


def radius(points, chosen):
    apart = np.linalg.norm(points[:, None] - points[list(chosen)][None], axis=2)
    return apart.min(axis=1).max()


def test_k_center_is_farthest_first():
    points = np.random.default_rng(0).normal(size=(60, 5))
    found = k_center(points, 60)
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    while len(chosen) < 60:
        apart = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1)
        apart[chosen] = -1
        chosen.append(int(apart.argmax()))
    assert found.indices.tolist() == chosen
    radii = [radius(points, chosen[:k]) for k in range(1, 61)]
    np.testing.assert_allclose(found.radii, radii, atol=1e-5)


def test_k_center_is_within_twice_the_best_radius():
    rng = np.random.default_rng(1)
    for _ in range(10):
        points = rng.normal(size=(9, 2))
        for count in (1, 2, 3):
            best = min(radius(points, chosen) for chosen in itertools.combinations(range(9), count))
            assert radius(points, k_center(points, count).indices) <= 2 * best + 1e-5


def test_k_center_leaves_planted_duplicates_to_the_end():
    rng = np.random.default_rng(2)
    originals = rng.normal(size=(20, 8))
    order = rng.permutation(60)
    points, of = np.tile(originals, (3, 1))[order], np.tile(np.arange(20), 3)[order]
    chosen = k_center(points, 60).indices
    assert sorted(of[chosen[:20]]) == list(range(20))
    assert sorted(chosen) == list(range(60)), "none twice"


def pour(sizes, total):
    """One at a time to the cluster with the fewest so far that has one left; of these to the largest, then the first."""
    quotas = [0] * len(sizes)
    for _ in range(min(total, sum(sizes))):
        open_ones = [i for i, size in enumerate(sizes) if quotas[i] < size]
        quotas[min(open_ones, key=lambda i: (quotas[i], -sizes[i], i))] += 1
    return quotas


def test_quotas_are_those_of_giving_one_at_a_time():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(0, 9, rng.integers(1, 7)).tolist()
        for total in (0, 1, 5, sum(sizes), sum(sizes) + 3):
            assert even_quotas(sizes, total).tolist() == pour(sizes, total)


def test_balance_takes_the_quota_of_each_cluster_at_random():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, -1], [50, 5, 20, 7]))
    taken = balance(labels, total=30, seed=1)
    assert np.bincount(labels[taken]).tolist() == pour([50, 5, 20], 30)
    assert len(set(taken.tolist())) == 30 and (np.diff(taken) > 0).all()
    assert taken.tolist() == balance(labels, total=30, seed=1).tolist()
    assert taken.tolist() != balance(labels, total=30, seed=2).tolist()
    counts = sum(np.isin(np.arange(82), balance(labels, total=30, seed=s)) for s in range(400))
    first = counts[labels == 0]
    expected = 400 * pour([50, 5, 20], 30)[0] / 50
    assert abs(first - expected).max() < 5 * np.sqrt(expected)


def test_the_median_size_bounds_every_cluster():
    labels = np.repeat([0, 1, 2], [9, 4, 2])
    assert np.bincount(labels[balance(labels)]).tolist() == [4, 4, 2]


@pytest.fixture(scope="module")
def long_tail():
    """200 points about one center, and few about 15 others, far apart."""
    rng = np.random.default_rng(0)
    centers = 20 * rng.normal(size=(16, 6))
    of = np.repeat(np.arange(16), [200] + [6] * 15)
    return centers[of] + rng.normal(size=(len(of), 6)), of


def test_levels_are_nested(long_tail):
    points, _ = long_tail
    fine, middle, coarse = hierarchical_kmeans(jax.random.key(0), points, (32, 16, 4), resamples=0).labels
    for small, large in ((fine, middle), (middle, coarse)):
        for cluster in np.unique(small):
            assert len(np.unique(large[small == cluster])) == 1


def test_what_is_rare_is_taken_more_often_than_at_random(long_tail):
    points, of = long_tail
    hierarchy = hierarchical_kmeans(jax.random.key(1), points, (32, 16), resamples=3)
    taken = sample_hierarchy(hierarchy, 64)
    counts = np.bincount(of[taken], minlength=16)
    assert len(taken) == 64 == len(set(taken.tolist()))
    assert counts.min() >= 2, "at random a rare group gives 1.3 of 64"
    assert counts[0] < 0.35 * 64, "at random the large one gives 44 of 64"


def test_the_quotas_of_a_hierarchy_are_divided_from_the_top():
    coarse = np.repeat([0, 1], [12, 3])
    fine = np.concatenate([np.repeat([0, 1, 2], [8, 3, 1]), np.full(3, 3)])
    for total in range(1, 16):
        taken = sample_hierarchy(Hierarchy((fine, coarse)), total, seed=total)
        top = pour([12, 3], total)
        inner = [*pour([8, 3, 1], top[0]), top[1]]
        assert np.bincount(fine[taken], minlength=4).tolist() == inner


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: k_center(np.zeros((3, 2)), 4), "count"),
        (lambda: k_center(np.full((3, 2), np.inf), 1), "points"),
        (lambda: even_quotas([-1], 1), "sizes"),
        (lambda: balance(np.array([-1])), "labels"),
        (lambda: hierarchical_kmeans(jax.random.key(0), np.zeros((3, 2)), (2, 3)), "clusters"),
        (lambda: sample_hierarchy(Hierarchy((np.zeros(3, int),)), 4), "total"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        call()
