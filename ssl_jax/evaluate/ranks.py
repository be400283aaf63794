"""Ranks of methods with the uncertainty of their seeds."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from ssl_jax.core import check


class Ranking(NamedTuple):
    """Ranks of several groups of runs.

    Attributes:
      intervals: best and worst rank of each group that the runs allow, 1 the highest mean.
      deviation: pooled standard deviation of a run within its group.
      difference: smallest difference of two means that counts, between groups of the usual number of runs.
    """

    intervals: Mapping[str, tuple[int, int]]
    deviation: float
    difference: float


def rank_groups(values: Mapping[str, Sequence[float]], *, level: float = 0.95) -> Ranking:
    """Rank groups of runs by their means, with simultaneous intervals.

    Two means differ where ``|ȳ_i − ȳ_j| > q s √((1/n_i + 1/n_j) / 2)``, with s² the variance of a run within its group, pooled
    over groups of ν = Σ (n_i − 1) degrees of freedom, and q the quantile of the studentized range of k groups and ν. All
    differences that are called so are right together with probability ``level``, if runs are normal with one variance. A
    group's best rank is 1 + the number of groups above it that differ, its worst rank k − the number below it that differ.

    Args:
      values: two groups or more, of two runs or more in at least one.
      level: probability.

    Raises:
      ValueError: fewer than two groups, an empty group, no group of two runs, or ``level`` outside (0, 1).

    >>> rank_groups({"a": [60.0, 60.2], "b": [59.9, 60.1], "c": [40.0, 40.2]}).intervals
    {'a': (1, 2), 'b': (1, 2), 'c': (3, 3)}

    Reference: Tukey (1949), Kramer (1956); ranks from pairwise differences as in Mogstad et al., Inference for Ranks (2024).
    """
    check.require(0.0 < level < 1.0, "level", level, "a number between 0 and 1")
    check.require(len(values) > 1, "values", list(values), "two groups or more")
    counts = {name: len(runs) for name, runs in values.items()}
    check.require(min(counts.values()) > 0, "values", counts, "one run or more in each group")
    freedom = sum(count - 1 for count in counts.values())
    check.require(freedom > 0, "values", counts, "two runs or more in at least one group")
    means = {name: float(np.mean(runs)) for name, runs in values.items()}
    squares = sum(float(np.sum((np.asarray(runs) - means[name]) ** 2)) for name, runs in values.items())
    deviation = (squares / freedom) ** 0.5
    quantile = _range_quantile(level, len(values), freedom)

    def margin(first: int, second: int) -> float:
        return quantile * deviation * ((1 / first + 1 / second) / 2) ** 0.5

    intervals = {}
    for name, mean in means.items():
        gaps = [
            (other - mean) / max(margin(counts[name], counts[key]), 1e-300)
            for key, other in means.items()
            if key != name
        ]
        above, below = sum(gap > 1 for gap in gaps), sum(gap < -1 for gap in gaps)
        intervals[name] = (1 + above, len(values) - below)
    usual = int(np.median(list(counts.values())))
    return Ranking(intervals, deviation, margin(usual, usual))


@functools.lru_cache
def _range_quantile(level: float, groups: int, freedom: int) -> float:
    """Quantile of the studentized range; its integral takes a tenth of a second."""
    return float(scipy.stats.studentized_range.ppf(level, groups, freedom))
