"""Whether a measure without labels ranks runs as their accuracy does, and how sure that is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from ssl_jax.core import check


class RankCorrelation(NamedTuple):
    """How far a measure orders runs as their accuracy does.

    Attributes:
      spearman: Spearman's ρ in [-1, 1]; NaN where it is not defined.
      kendall: Kendall's τ-b in [-1, 1]; NaN where it is not defined.
      runs: number of runs with both numbers finite.
    """

    spearman: float
    kendall: float
    runs: int


def rank_correlation(
    measures: Mapping[str, Sequence[float] | np.ndarray], accuracy: Sequence[float] | np.ndarray
) -> dict[str, RankCorrelation]:
    """Correlate the ranks of each measure with those of the accuracy, over runs.

    ``ρ = corr(rank m, rank a)``; ``τ_b = (C − D) / √((C + D + T_m)(C + D + T_a))``, where C and D count the
    pairs of runs that both order alike and the other way round, T_m and T_a the pairs tied in one only. Tied
    values share their mean rank.

    With few runs such a number says little: of 5 runs, ρ of noise has a standard deviation of
    ``1/√(n − 1) = .5``, and ``|ρ| ≥ .9`` comes by chance in one case of twelve; of 20 runs it is .23. Runs of
    one sweep are no independent draws either, and a measure may order runs within one method but not
    across methods. Report ``runs`` beside the number.

    Args:
      measures: one number a run, by name, such as ``{"rankme": [...], "rotation": [...]}``.
      accuracy: accuracy of the same runs, in the same order; three or more.

    Returns:
      ``{name: RankCorrelation(spearman, kendall, runs)}``. A run where measure or accuracy is not finite is
      left out for that measure. With fewer than three runs left, or a constant, both correlations are NaN.

    Raises:
      ValueError: fewer than three runs with a finite accuracy, or a measure of another length.

    >>> correlations = rank_correlation({"rankme": [10.0, 30.0, 20.0, float("nan")]}, [0.5, 0.7, 0.6, 0.9])
    >>> correlations["rankme"]
    RankCorrelation(spearman=1.0, kendall=1.0, runs=3)

    Reference: Kendall, Rank Correlation Methods (1948); Garrido et al., RankMe (2023), and Reed et al.,
      SelfAugment (2021), who correlate such measures with accuracy.
    """
    heights = np.asarray(accuracy, np.float64)
    finite = np.isfinite(heights)
    runs = int(finite.sum())
    check.require(runs >= 3, "accuracy", f"{runs} finite runs", "three runs or more")
    correlations = {}
    for name, values in measures.items():
        measure = np.asarray(values, np.float64)
        allowed = f"one number a run, {len(heights)}"
        check.require(
            measure.shape == heights.shape, f"measures[{name!r}]", f"{measure.size} numbers", allowed
        )
        used = finite & np.isfinite(measure)
        correlations[name] = _correlate(measure[used], heights[used])
    return correlations


def _correlate(measure: np.ndarray, accuracy: np.ndarray) -> RankCorrelation:
    runs = len(measure)
    if runs < 3 or np.ptp(measure) == 0 or np.ptp(accuracy) == 0:
        return RankCorrelation(float("nan"), float("nan"), runs)
    spearman = scipy.stats.spearmanr(measure, accuracy).statistic
    return RankCorrelation(float(spearman), float(scipy.stats.kendalltau(measure, accuracy).statistic), runs)


class BootstrapCorrelation(NamedTuple):
    """Spearman's correlation of group means, with its bootstrap interval.

    Attributes:
      value: ρ in [-1, 1], the mean over strata weighted by their numbers of groups; NaN where it is not defined.
      low: lower end of the percentile interval.
      high: its upper end.
      groups: number of groups that count.
      samples: ρ of each resample.
    """

    value: float
    low: float
    high: float
    groups: int
    samples: np.ndarray


LEAST_GROUPS = 3
"""Groups below which a stratum has no correlation worth the name."""


def bootstrap_correlation(
    measure: Sequence[float] | np.ndarray,
    accuracy: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[str],
    strata: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> BootstrapCorrelation:
    """Correlate the ranks of a measure and of the accuracy, and draw the groups anew to see how sure that is.

    Runs of one group, such as the seeds of a method, are no independent draws: their means count as one point. With strata,
    such as encoders, ranks are compared within each alone, ``ρ = Σ_s n_s ρ_s / Σ_s n_s`` over strata of ``n_s`` ≥ 3 groups.
    Groups are drawn with replacement within their stratum; the interval has the quantiles ``(1 − level)/2`` and
    ``(1 + level)/2`` of ρ.

    Two measures with the same groups and seed see the same draws, so that the differences of their ``samples`` are paired.

    Args:
      measure: one number a run.
      accuracy: accuracy of the same runs, in the same order.
      groups: group of each run; a name in two strata is two groups.
      strata: stratum of each run; ``None``: all are in one.
      resamples: draws, 1 or more.
      level: coverage that the interval aims at, in (0, 1).
      seed: seed of the draws.

    Returns:
      The :class:`BootstrapCorrelation`. Runs where measure or accuracy is not finite are left out. Draws in which no stratum
      has two different values of both are left out of the interval. NaN where nothing is left.

    Raises:
      ValueError: arrays of different lengths, or an option out of range.

    >>> methods = ["a", "a", "b", "c", "d"]
    >>> ranks = bootstrap_correlation([1.0, 3.0, 3.0, 4.0, 5.0], [0.1, 0.3, 0.5, 0.6, 0.9], groups=methods)
    >>> ranks.value, ranks.groups, ranks.low <= ranks.high
    (1.0, 4, True)

    Reference: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; Davison & Hinkley, Bootstrap Methods and
      their Application (1997), section 3.8, draw groups rather than members.
    """
    x, y = np.asarray(measure, np.float64), np.asarray(accuracy, np.float64)
    layers = ["" for _ in groups] if strata is None else list(strata)
    sizes = (x.size, y.size, len(groups), len(layers))
    check.require(
        len(set(sizes)) == 1, "measure", sizes, "one number, accuracy, group and stratum for each run"
    )
    check.require(resamples >= 1, "resamples", resamples, "an integer of 1 or more")
    check.require(0 < level < 1, "level", level, "a number in (0, 1)")
    usable = np.isfinite(x) & np.isfinite(y)
    rng = np.random.default_rng(seed)
    values, samples, weights = [], [], []
    for layer in dict.fromkeys(layers):
        inside = usable & np.array([each == layer for each in layers], bool)
        names = np.array(groups, dtype=object)
        points = np.array(
            [
                (x[part].mean(), y[part].mean())
                for name in dict.fromkeys(names[inside])
                if (part := inside & (names == name)).any()
            ]
        ).reshape(-1, 2)
        if len(points) < LEAST_GROUPS:
            continue
        drawn = points[rng.integers(0, len(points), (resamples, len(points)))]
        values.append(float(_row_spearman(points[None])[0]))
        samples.append(_row_spearman(drawn))
        weights.append(len(points))
    if not values:
        nan = float("nan")
        return BootstrapCorrelation(nan, nan, nan, 0, np.full(resamples, nan))
    value = float(_weighted_mean(np.array(values)[:, None], np.array(weights))[0])
    spread = _weighted_mean(np.array(samples), np.array(weights))
    finite = spread[np.isfinite(spread)]
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2]) if finite.size else (np.nan, np.nan)
    return BootstrapCorrelation(value, float(low), float(high), sum(weights), spread)


def _row_spearman(points: np.ndarray) -> np.ndarray:
    """Spearman's ρ of each of ``[b, n, 2]`` sets of points; NaN where one of the two is constant."""
    ranks = scipy.stats.rankdata(points, axis=1)
    centered = ranks - ranks.mean(axis=1, keepdims=True)
    covariance = (centered[..., 0] * centered[..., 1]).sum(axis=1)
    scale = np.sqrt((centered**2).sum(axis=1).prod(axis=-1))
    return np.where(scale > 0, covariance / np.where(scale > 0, scale, 1.0), np.nan)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is finite; NaN where nothing is."""
    heavy = np.where(np.isfinite(values), weights[:, None], 0.0)
    total = heavy.sum(axis=0)
    sums = (np.where(np.isfinite(values), values, 0.0) * heavy).sum(axis=0)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)
