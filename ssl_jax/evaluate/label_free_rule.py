"""A rule that ranks encoders without a label: how it is chosen on runs with labels, how sure it is, how it does elsewhere."""

import importlib.resources
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from ssl_jax.core import check
from ssl_jax.evaluate.correlation import LEAST_GROUPS, BootstrapCorrelation, bootstrap_correlation

FILE = "label_free.json"
"""The committed rule, beside this file."""
UNTRAINED = "untrained"
"""Method of runs that are encoders before training."""
TRAINED_ON_ROTATIONS = ("rotation", "essl")
"""Methods that learn to tell rotations, of which the rotation proxy says nothing."""
TARGETS = ("knn", "linear")
"""Accuracies that a rule is chosen by."""
HEADLINE = "linear"
"""Accuracy whose order the certainty of a rule is about."""
CLIP = 1e-3
"""Values below are set to it before a logarithm."""
STEEPEST = 50.0
"""Largest slope of a fit to pairs."""

ORIENT: Mapping[str, Callable[[float], float]] = {
    "rankme": lambda value: math.log(max(value, CLIP)),
    "effective_rank": lambda value: math.log(max(value, CLIP)),
    "lidar": lambda value: math.log(max(value, CLIP)),
    "alpha": lambda value: -abs(value - 1.0),
    "spread": lambda value: value,
    "alignment": lambda value: -value,
    "uniformity": lambda value: -value,
    "rotation": lambda value: float(scipy.special.logit(min(max(value, CLIP), 1.0 - CLIP))),
    "silhouette": lambda value: value,
    "agreement": lambda value: value,
}
"""Measures that read no label, and how each is turned into a number of which more is better, in the direction that its paper
states: ranks by their logarithm, α by its distance from 1, accuracies by their log odds."""
RULES: tuple[tuple[str, ...], ...] = (
    *((name,) for name in ORIENT),
    ("alignment", "uniformity"),
    ("rankme", "lidar", "alpha"),
    ("rotation", "rankme"),
    ("rotation", "lidar"),
    ("rotation", "alpha"),
    ("rotation", "uniformity"),
    ("rotation", "agreement"),
    ("rotation", "rankme", "agreement"),
)
"""Rules among which one is chosen: one measure, or the mean of several in units of their deviation. The list was written before
the runs on natural images were made."""


class Measured(NamedTuple):
    """What was measured of one checkpoint of one run, or of an encoder before training.

    Attributes:
      method: method; :data:`UNTRAINED` for an encoder before training.
      encoder: name of its encoder: only runs with the same one are compared.
      seed: seed of the run.
      step: updates made.
      last: whether it is the last checkpoint of the run.
      values: measures without labels, by the names of :data:`ORIENT`.
      accuracy: accuracies in [0, 1], or other scores of which more is better, by name.
    """

    method: str
    encoder: str
    seed: int
    step: int
    last: bool
    values: Mapping[str, float]
    accuracy: Mapping[str, float]


class Standard(NamedTuple):
    """Where a measure lies among the runs that a rule was chosen on, after :data:`ORIENT`.

    Attributes:
      mean: mean over methods.
      std: deviation of methods from the mean of their encoder.
    """

    mean: float
    std: float


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval over methods."""

    value: float
    low: float
    high: float


class Rule(NamedTuple):
    """A rule that ranks encoders without labels.

    Attributes:
      measures: what it is made of, and the standard of each.
      fixed_on: name of the runs that it was chosen on.
      methods: their methods.
      encoders: their encoders.
      correlation: Spearman's ρ with each target there, within an encoder.
      slope: ``b`` of :meth:`certainty`.
    """

    measures: Mapping[str, Standard]
    fixed_on: str
    methods: int
    encoders: int
    correlation: Mapping[str, Estimate]
    slope: Estimate

    @property
    def name(self) -> str:
        """Name, made of the measures' names."""
        return rule_name(tuple(self.measures))

    def score(self, values: Mapping[str, float]) -> float:
        """Score an encoder: ``s = mean_j (t_j − mean_j) / std_j`` over the rule's measures t, as :data:`ORIENT` turns them.

        0 is a method in the middle of those that the rule was chosen on, 1 one standard deviation better.

        Args:
          values: measures by name.

        Returns:
          s; NaN where a measure lacks or is not finite.

        >>> Rule({"spread": Standard(0.5, 0.25)}, "runs", 3, 1, {}, Estimate(2.0, 1.0, 3.0)).score({"spread": 1.0})
        2.0
        """
        terms = [
            (orient(name, values.get(name, math.nan)) - standard.mean) / standard.std
            for name, standard in self.measures.items()
        ]
        return float(np.mean(terms))

    def certainty(self, difference: float) -> Estimate:
        """Estimate the probability that the encoder with the higher score is the better one by the linear probe.

        ``P = 1 / (1 + exp(−b |Δs|))``: .5 where scores are equal; b is the maximum-likelihood fit to the pairs of methods of
        one encoder that the rule was chosen on.

        Args:
          difference: Δs of the two scores.

        >>> Rule({}, "runs", 3, 1, {}, Estimate(1.0, 0.5, 2.0)).certainty(0.0)
        Estimate(value=0.5, low=0.5, high=0.5)
        """
        return Estimate(*(float(scipy.special.expit(slope * abs(difference))) for slope in self.slope))

    def share(self, values: Mapping[str, float]) -> float:
        """Map a score s to [0, 1] in the same order, ``(1 + s / (1 + |s|)) / 2``: .5 is the middle of the rule's own runs.

        It never comes to 0 or 1, so that encoders on images far from those are still told apart.

        Args:
          values: measures by name.

        >>> rule = Rule({"spread": Standard(0.5, 0.25)}, "runs", 3, 1, {}, Estimate(2.0, 1.0, 3.0))
        >>> rule.share({"spread": 0.5}), rule.share({"spread": 0.75}), rule.share({"spread": 0.0})
        (0.5, 0.75, 0.16666666666666669)
        """
        score = self.score(values)
        return (1.0 + score / (1.0 + abs(score))) / 2.0


def rule_name(measures: Sequence[str]) -> str:
    """Name a rule.

    >>> rule_name(("rotation", "rankme"))
    'rotation + rankme'
    """
    return " + ".join(measures)


def orient(name: str, value: float | None) -> float:
    """Turn a measure into a number of which more is better, as :data:`ORIENT` says; NaN where it is not finite.

    >>> orient("alpha", 1.5), orient("alignment", 0.25), orient("rankme", 1.0)
    (-0.5, -0.25, 0.0)
    """
    check.choice("measure", name, ORIENT)
    return ORIENT[name](float(value)) if value is not None and math.isfinite(value) else math.nan


def invalid_reason(method: str, measures: Iterable[str]) -> str:
    """Say why a rule means nothing for a method; empty if it does.

    >>> invalid_reason("simclr", ["rotation"]), invalid_reason("rotation", ["rankme"])
    ('', '')
    >>> invalid_reason("rotation", ["rotation"])
    'rotation learns to tell rotations: the rotation probe says nothing about it'
    """
    if method in TRAINED_ON_ROTATIONS and "rotation" in measures:
        return f"{method} learns to tell rotations: the rotation probe says nothing about it"
    return ""


class Points(NamedTuple):
    """Methods as points: means over seeds.

    Attributes:
      methods: method of each point.
      encoders: encoder of each point.
      values: oriented measures, by name.
      accuracy: accuracies, by name.
    """

    methods: tuple[str, ...]
    encoders: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    accuracy: Mapping[str, np.ndarray]

    def select(self, chosen: np.ndarray) -> "Points":
        """Take some points by position."""
        return Points(
            tuple(self.methods[i] for i in chosen),
            tuple(self.encoders[i] for i in chosen),
            {name: column[chosen] for name, column in self.values.items()},
            {name: column[chosen] for name, column in self.accuracy.items()},
        )


def average_seeds(runs: Sequence[Measured]) -> Points:
    """Average the last checkpoints of each method and encoder over seeds; what a method lacks is NaN.

    >>> runs = [Measured("a", "net", s, 9, True, {"spread": 0.5 + s}, {"knn": 0.25}) for s in (0, 1)]
    >>> points = average_seeds(runs)
    >>> points.methods, points.values["spread"].tolist(), points.accuracy["knn"].tolist()
    (('a',), [1.0], [0.25])
    """
    groups: dict[tuple[str, str], list[Measured]] = {}
    for run in runs:
        if run.last:
            groups.setdefault((run.method, run.encoder), []).append(run)
    accuracies = dict.fromkeys(name for run in runs for name in run.accuracy)

    def column(numbers: Sequence[Sequence[float]]) -> np.ndarray:
        return np.array([np.mean(of_seeds) for of_seeds in numbers])

    return Points(
        tuple(method for method, _ in groups),
        tuple(encoder for _, encoder in groups),
        {
            name: column([[orient(name, run.values.get(name)) for run in group] for group in groups.values()])
            for name in ORIENT
        },
        {
            name: column([[run.accuracy.get(name, math.nan) for run in group] for group in groups.values()])
            for name in accuracies
        },
    )


def _trained(points: Points, measures: Iterable[str]) -> Points:
    """Points that a rule may be judged by: trained encoders of which it says something."""
    measures = tuple(measures)
    return points.select(
        np.array(
            [
                i
                for i, method in enumerate(points.methods)
                if method != UNTRAINED and not invalid_reason(method, measures)
            ],
            int,
        )
    )


def _comparable(points: Points) -> Points:
    """Points whose encoder has enough methods to rank."""
    counts = Counter(points.encoders)
    return points.select(
        np.array([i for i, name in enumerate(points.encoders) if counts[name] >= LEAST_GROUPS], int)
    )


def standards_of(points: Points, measures: Sequence[str]) -> dict[str, Standard]:
    """Compute mean and within-encoder deviation of oriented measures over methods.

    Raises:
      ValueError: a measure that does not vary within any encoder.
    """
    found = {}
    for name in measures:
        column = points.values[name]
        usable = np.isfinite(column)
        deviations = [
            part - part.mean()
            for encoder in dict.fromkeys(points.encoders)
            if len(part := column[usable & (np.array(points.encoders) == encoder)]) > 1
        ]
        freedom = sum(len(part) - 1 for part in deviations)
        std = math.sqrt(sum(float(part @ part) for part in deviations) / freedom) if freedom else 0.0
        check.require(
            std > 0, name, "the same value for all methods", "a measure that varies within an encoder"
        )
        found[name] = Standard(float(column[usable].mean()), std)
    return found


def combine(points: Points, standards: Mapping[str, Standard]) -> np.ndarray:
    """Score every point by the mean of its standardised measures, as :meth:`Rule.score` does."""
    terms = [(points.values[name] - standard.mean) / standard.std for name, standard in standards.items()]
    return np.mean(terms, axis=0)


def correlate(
    points: Points,
    score: np.ndarray,
    target: str,
    *,
    within: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> BootstrapCorrelation:
    """Correlate a score with an accuracy over methods, within each encoder or across all, with bootstrap intervals.

    Args:
      points: methods.
      score: one number a point.
      target: name of the accuracy.
      within: whether methods are compared with others of their encoder only.
      resamples: draws.
      seed: seed of the draws.
    """
    names = [f"{method} ({encoder})" for method, encoder in zip(points.methods, points.encoders, strict=True)]
    return bootstrap_correlation(
        score,
        points.accuracy[target],
        groups=names,
        strata=points.encoders if within else None,
        resamples=resamples,
        seed=seed,
    )


def usable_rules(points: Points, rules: Sequence[tuple[str, ...]] = RULES) -> list[tuple[str, ...]]:
    """List the rules all of whose measures were taken of the points and vary."""
    chosen = []
    for measures in rules:
        kept = _trained(points, measures)
        try:
            standards = standards_of(kept, measures) if kept.methods else {}
        except ValueError:
            continue
        if standards and np.isfinite(combine(kept, standards)).sum() >= LEAST_GROUPS:
            chosen.append(measures)
    return chosen


def choose_rule(
    runs: Sequence[Measured],
    *,
    fixed_on: str,
    targets: Sequence[str] = TARGETS,
    rules: Sequence[tuple[str, ...]] = RULES,
    resamples: int = 1000,
    seed: int = 0,
) -> Rule:
    """Choose a rule on runs with labels.

    A rule is worth the mean over targets of Spearman's ρ within an encoder. Of the rules whose worth is within one bootstrap
    standard error of the best one's, that with the fewest measures is taken, then the best of these. Methods that learn to
    tell rotations are left out of all rules, so that all are judged by the same methods.

    Args:
      runs: checkpoints, of which the last ones count.
      fixed_on: name of the runs.
      targets: accuracies.
      rules: rules to choose from.
      resamples: bootstrap draws over methods.
      seed: seed of the draws.

    Raises:
      ValueError: too few methods, or no rule that could be measured.

    >>> runs = [Measured(f"m{i}", "net", 0, 9, True, {"spread": i / 9}, {"knn": i / 9, "linear": i / 9}) for i in range(6)]
    >>> rule = choose_rule(runs, fixed_on="toy", rules=[("spread",)], resamples=20)
    >>> rule.name, rule.correlation["linear"].value
    ('spread', 1.0)

    Reference: the rule of one standard error is of Breiman et al., Classification and Regression Trees (1984).
    """
    trained = _trained(average_seeds(runs), ("rotation",))
    points, methods = _comparable(trained), f"{len(trained.methods)} methods"
    missing = [target for target in targets if target not in points.accuracy]
    check.require(not missing, "runs", f"no {', '.join(missing)}", f"runs with {', '.join(targets)}")
    usable = usable_rules(points, rules)
    allowed = f"runs of {LEAST_GROUPS} methods or more with one encoder, with measures without labels"
    check.require(bool(usable), "runs", methods, allowed)
    standards = {measures: standards_of(points, measures) for measures in usable}
    found = {
        measures: [
            correlate(points, combine(points, standards[measures]), target, resamples=resamples, seed=seed)
            for target in targets
        ]
        for measures in usable
    }
    worth = {measures: float(np.mean([each.value for each in found[measures]])) for measures in usable}
    check.require(
        any(math.isfinite(value) for value in worth.values()),
        "runs",
        f"{len(points.methods)} methods",
        allowed,
    )
    best = max(usable, key=lambda measures: (np.nan_to_num(worth[measures], nan=-2.0), -len(measures)))
    near = [
        measures
        for measures in usable
        if worth[best] - worth[measures] <= _standard_error(found[best], found[measures])
    ]
    chosen = min(near, key=lambda measures: (len(measures), -worth[measures]))
    score = combine(points, standards[chosen])
    headline = HEADLINE if HEADLINE in targets else targets[0]
    return Rule(
        standards[chosen],
        fixed_on,
        len(set(points.methods)),
        len(set(points.encoders)),
        {
            target: Estimate(each.value, each.low, each.high)
            for target, each in zip(targets, found[chosen], strict=True)
        },
        fit_slope(points, score, headline, resamples=min(resamples, 300), seed=seed),
    )


def _standard_error(first: Sequence[BootstrapCorrelation], second: Sequence[BootstrapCorrelation]) -> float:
    """Bootstrap standard error of the difference of two worths, paired by draw."""
    draws = np.mean([a.samples - b.samples for a, b in zip(first, second, strict=True)], axis=0)
    finite = draws[np.isfinite(draws)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else 0.0


class Pairs(NamedTuple):
    """Pairs of points of one encoder, the one with the higher score first.

    Attributes:
      gap: how much higher its score is, 0 or more.
      right: whether its accuracy is higher too; of equal accuracies it is half right.
      members: positions of the two points.
    """

    gap: np.ndarray
    right: np.ndarray
    members: np.ndarray


def pair_up(points: Points, score: np.ndarray, target: str) -> Pairs:
    """List all pairs of points of one encoder with finite score and accuracy.

    >>> points = Points(("a", "b"), ("net", "net"), {}, {"knn": np.array([0.5, 0.75])})
    >>> pairs = pair_up(points, np.array([3.0, 1.0]), "knn")
    >>> pairs.gap.tolist(), pairs.right.tolist()
    ([2.0], [0.0])
    """
    accuracy = points.accuracy[target]
    usable = np.isfinite(score) & np.isfinite(accuracy)
    members = [
        (i, j)
        for i, j in itertools.combinations(np.flatnonzero(usable), 2)
        if points.encoders[i] == points.encoders[j]
    ]
    first, second = np.array(members, int).reshape(-1, 2).T
    gap = score[first] - score[second]
    order = np.sign(gap) * np.sign(accuracy[first] - accuracy[second])
    return Pairs(np.abs(gap), (order + 1) / 2, np.stack([first, second], axis=1))


def fit_slope(
    points: Points, score: np.ndarray, target: str, *, resamples: int = 300, seed: int = 0
) -> Estimate:
    """Fit b of ``P(right) = 1 / (1 + exp(−b |Δs|))`` to all pairs of methods of one encoder by maximum likelihood, b ≥ 0.

    The interval is of methods drawn anew: a pair counts as often as both of its members were drawn together. b stops at
    :data:`STEEPEST`, where all pairs are in order.

    Args:
      points: methods.
      score: one number a point.
      target: name of the accuracy.
      resamples: bootstrap draws.
      seed: seed of the draws.
    """
    pairs = pair_up(points, score, target)
    if not len(pairs.gap):
        return Estimate(0.0, 0.0, 0.0)
    rng = np.random.default_rng(seed)
    slopes = []
    for _ in range(resamples):
        drawn = np.bincount(
            rng.integers(0, len(points.methods), len(points.methods)), minlength=len(points.methods)
        )
        weights = drawn[pairs.members].prod(axis=1)
        if weights.any():
            slopes.append(_slope(pairs, weights))
    low, high = np.quantile(slopes, [0.025, 0.975]) if slopes else (0.0, 0.0)
    return Estimate(_slope(pairs, np.ones(len(pairs.gap))), float(low), float(high))


def _slope(pairs: Pairs, weights: np.ndarray) -> float:
    def loss(slope: float) -> float:
        wrong = np.logaddexp(0.0, slope * pairs.gap)  # −log P(wrong); P(right) differs by the gap
        return float(weights @ (wrong - pairs.right * slope * pairs.gap))

    return float(scipy.optimize.minimize_scalar(loss, bounds=(0.0, STEEPEST), method="bounded").x)


class Check(NamedTuple):
    """How a rule does on runs that it was not chosen on.

    Attributes:
      methods: methods that were ranked.
      within: ρ with each target within an encoder.
      across: ρ over all encoders together.
      right: share of the pairs of methods of one encoder that it orders as :data:`HEADLINE` does.
      expected: the share that :meth:`Rule.certainty` promised.
      untrained: share of methods that it orders rightly against their encoder before training; NaN: not measured.
      regret: mean over encoders of the accuracy of the best method less that of the method with the highest score.
    """

    methods: int
    within: Mapping[str, Estimate]
    across: Mapping[str, Estimate]
    right: float
    expected: float
    untrained: float
    regret: float


def check_rule(
    rule: Rule,
    runs: Sequence[Measured],
    *,
    targets: Sequence[str] = TARGETS,
    resamples: int = 1000,
    seed: int = 0,
) -> Check:
    """Measure how a rule orders runs, such as those that it has not seen.

    Args:
      rule: the rule.
      runs: checkpoints, of which the last ones count.
      targets: accuracies; the one named :data:`HEADLINE`, else the first, counts for pairs and regret.
      resamples: bootstrap draws over methods.
      seed: seed of the draws.

    Raises:
      ValueError: no method that the rule can score, or a target that was not measured.
    """
    everything = average_seeds(runs)
    for target in targets:
        check.choice("targets", target, everything.accuracy)
    points = _trained(everything, rule.measures)
    score = combine(points, rule.measures) if points.methods else np.zeros(0)
    check.require(
        bool(np.isfinite(score).any()), "runs", f"{len(runs)} runs", f"runs with {', '.join(rule.measures)}"
    )
    headline = HEADLINE if HEADLINE in targets else targets[0]
    pairs = pair_up(points, score, headline)
    given = {"resamples": resamples, "seed": seed}
    estimates = {
        within: {
            target: Estimate(found.value, found.low, found.high)
            for target in targets
            for found in [correlate(points, score, target, within=within, **given)]
        }
        for within in (True, False)
    }
    return Check(
        int(np.isfinite(score).sum()),
        estimates[True],
        estimates[False],
        _mean(pairs.right),
        _mean(scipy.special.expit(rule.slope.value * pairs.gap)),
        _right_against_untrained(rule, everything, headline),
        _mean(
            [
                np.nanmax(points.accuracy[headline][inside])
                - points.accuracy[headline][inside][np.nanargmax(score[inside])]
                for encoder in dict.fromkeys(points.encoders)
                if np.isfinite(score[inside := np.array(points.encoders) == encoder]).any()
            ]
        ),
    )


def _right_against_untrained(rule: Rule, points: Points, target: str) -> float:
    kept = points.select(
        np.array(
            [i for i, method in enumerate(points.methods) if not invalid_reason(method, rule.measures)], int
        )
    )
    pairs = pair_up(kept, combine(kept, rule.measures), target)
    is_untrained = np.array(kept.methods) == UNTRAINED
    return _mean(pairs.right[is_untrained[pairs.members].any(axis=1)])


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


class CheckpointCheck(NamedTuple):
    """How a rule, or another number, chooses among the checkpoints of a run.

    Attributes:
      runs: runs of three checkpoints or more.
      correlation: mean over runs of ρ with the accuracy, over the checkpoints of a run; the interval is over methods.
      regret: mean accuracy of the best checkpoint less that of the chosen one.
      regret_of_last: the same of the last checkpoint.
    """

    runs: int
    correlation: Estimate
    regret: float
    regret_of_last: float


def check_checkpoints(
    runs: Sequence[Measured],
    score: Callable[[Measured], float],
    *,
    target: str = HEADLINE,
    resamples: int = 1000,
    seed: int = 0,
) -> CheckpointCheck:
    """Measure how a number chooses among the checkpoints of a run: ranks within each run, averaged over runs.

    Args:
      runs: checkpoints.
      score: number of which more is better; a checkpoint where it is not finite is left out.
      target: name of the accuracy.
      resamples: bootstrap draws over methods.
      seed: seed of the draws.

    Returns:
      The :class:`CheckpointCheck`; NaN where no run has three checkpoints with both numbers.
    """
    series: dict[tuple[str, str, int], list[tuple[int, float, float]]] = {}
    for run in runs:
        pair = (score(run), run.accuracy.get(target, math.nan))
        if run.method != UNTRAINED and all(map(math.isfinite, pair)):
            series.setdefault((run.method, run.encoder, run.seed), []).append((run.step, *pair))
    by_method: dict[tuple[str, str], list[float]] = {}
    regrets, last = [], []
    for (method, encoder, _), rows in series.items():
        if len(rows) < LEAST_GROUPS:
            continue
        _, numbers, accuracy = np.array(sorted(rows)).T
        found = bootstrap_correlation(
            numbers, accuracy, groups=[str(i) for i in range(len(rows))], resamples=1
        )
        regrets.append(accuracy.max() - accuracy[int(np.argmax(numbers))])
        last.append(accuracy.max() - accuracy[-1])
        if math.isfinite(found.value):
            by_method.setdefault((method, encoder), []).append(found.value)
    means = np.array([np.mean(values) for values in by_method.values()])
    if not len(means):
        return CheckpointCheck(0, Estimate(math.nan, math.nan, math.nan), math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = means[rng.integers(0, len(means), (resamples, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return CheckpointCheck(
        len(regrets), Estimate(float(means.mean()), float(low), float(high)), _mean(regrets), _mean(last)
    )


def rule_text(rule: Rule) -> str:
    """Write a rule as JSON."""
    facts = rule._asdict() | {
        "measures": {name: standard._asdict() for name, standard in rule.measures.items()},
        "correlation": {name: estimate._asdict() for name, estimate in rule.correlation.items()},
        "slope": rule.slope._asdict(),
    }
    return json.dumps({"rule": rule.name, **facts}, indent=2) + "\n"


def parse_rule(text: str) -> Rule:
    """Read a rule as :func:`rule_text` writes it.

    Raises:
      ValueError: no such JSON, or a measure that does not exist.

    >>> rule = Rule({"spread": Standard(0.5, 0.1)}, "runs", 3, 1, {}, Estimate(2.0, 1.0, 3.0))
    >>> parse_rule(rule_text(rule)) == rule
    True
    """
    try:
        facts: dict[str, Any] = json.loads(text)
        return Rule(
            {
                check.choice("measures", name, ORIENT): Standard(**each)
                for name, each in facts["measures"].items()
            },
            facts["fixed_on"],
            facts["methods"],
            facts["encoders"],
            {name: Estimate(**each) for name, each in facts["correlation"].items()},
            Estimate(**facts["slope"]),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"rule: allowed is what experiments.label_free --fix writes ({error!r})") from error


def read_rule() -> Rule:
    """Read the committed rule, :data:`FILE`."""
    return parse_rule((importlib.resources.files("ssl_jax.evaluate") / FILE).read_text(encoding="utf-8"))
