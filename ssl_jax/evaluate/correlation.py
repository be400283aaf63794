"""Whether a measure without labels ranks runs as their accuracy does."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

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
