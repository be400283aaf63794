"""Ranks with the uncertainty of seeds, against scipy's own test and drawn groups."""

import numpy as np
import pytest
from scipy import stats

from ssl_jax.evaluate.ranks import rank_groups


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (3, 2, 5, 3)])
def test_groups_differ_where_tukeys_test_of_scipy_says_so(sizes):
    random = np.random.default_rng(0)
    for _ in range(5):
        means = random.normal(size=len(sizes)) * 2
        groups = [random.normal(mean, 0.5, size=n) for mean, n in zip(means, sizes, strict=True)]
        significant = stats.tukey_hsd(*groups).pvalue < 0.05
        ranking = rank_groups(dict(zip("abcd", map(list, groups), strict=True)))
        for i, name in enumerate("abcd"):
            above = sum(significant[i, j] and groups[j].mean() > groups[i].mean() for j in range(4) if j != i)
            below = sum(significant[i, j] and groups[j].mean() < groups[i].mean() for j in range(4) if j != i)
            assert ranking.intervals[name] == (1 + above, 4 - below)


def test_equal_groups_share_all_ranks_with_the_stated_probability():
    random = np.random.default_rng(1)
    alike = 0
    for _ in range(200):
        ranking = rank_groups({name: list(random.normal(size=3)) for name in "abcde"}, level=0.9)
        alike += all(interval == (1, 5) for interval in ranking.intervals.values())
    # 200 draws at 0.9: three standard deviations are 0.064.
    assert abs(alike / 200 - 0.9) < 0.064


def test_the_pooled_deviation_and_the_smallest_difference():
    ranking = rank_groups({"a": [1.0, 3.0], "b": [10.0, 14.0]})
    assert ranking.deviation == pytest.approx(((1 + 1 + 4 + 4) / 2) ** 0.5)
    # Of two groups the studentized range is t times the root of two.
    t = stats.t.ppf(0.975, 2)
    assert ranking.difference == pytest.approx(t * ranking.deviation, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"a": [1.0, 2.0]}, "two groups or more"),
        ({"a": [1.0, 2.0], "b": []}, "one run or more in each group"),
        ({"a": [1.0], "b": [2.0]}, "two runs or more in at least one group"),
    ],
)
def test_groups_that_cannot_be_ranked_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        rank_groups(values)
    with pytest.raises(ValueError, match="level"):
        rank_groups({"a": [1.0, 2.0], "b": [1.0]}, level=1.0)
