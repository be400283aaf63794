"""What a study is: variants of a method, what a paper reports of each, and claims that measurements decide.

A study is data. :mod:`ssl_jax.cli.study_runs` trains and measures its variants, :mod:`ssl_jax.cli.study_pages` writes its table
and its page, :mod:`ssl_jax.cli.study_figure` draws it.

The rule of a claim is written before the runs. A difference counts where it exceeds the smallest one that so many seeds can
show (:class:`Difference`); where they can show neither the published direction nor its absence, the verdict is
:attr:`Verdict.OPEN`.
"""

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from ssl_jax.config import build
from ssl_jax.core.rows import Row

OF_UNTRAINED = ("knn", "linear", "few", "finetune", "rotation")
"""Measures that are taken of the encoder before training too."""


class Variant(NamedTuple):
    """One row of a study.

    Attributes:
      name: Name in the table.
      method: Method whose config it starts from.
      changes: Dotted config names and values, such as ``{"method.decay": 0.9}``.
      published: Number that the paper reports, in percent; ``None``: it reports none.
      line: Line of the figure to which the variant belongs, at ``x``; ``""``: a bar of its own.
      x: Position on the horizontal axis.
    """

    name: str
    method: str
    changes: Mapping[str, Any] = {}
    published: float | None = None
    line: str = ""
    x: float = 0.0


class Verdict(enum.StrEnum):
    """What measurements say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot be told here"


class Claim(NamedTuple):
    """What a paper says, and whether it holds here.

    Attributes:
      text: The claim.
      verdict: What the measurements say of it.
      evidence: The measurements.
      because: Why it does not hold, as far as further measurements show; ``""``: unknown.
    """

    text: str
    verdict: Verdict
    evidence: str
    because: str = ""


class Measurements(NamedTuple):
    """What was measured of a variant.

    Attributes:
      rows: One a seed.
    """

    rows: Sequence[Row]

    def values(self, name: str) -> np.ndarray:
        """Look up a measure of every seed.

        Args:
          name: ``knn`` and ``linear`` (in percent), ``few`` (:data:`FEW` labels a class, if it is a column of the study),
            ``random_knn`` and the like of the encoder before training,
            ``classifier`` of what was learnt from labels (of methods with a classifier its own; of others, in runs with few
            labels, logistic regression of the features on them), ``rank`` (the effective rank of the features' covariance), or
            a curve, whose last value counts.
        """
        return np.array([_value(row, name) for row in self.rows])

    def has(self, name: str) -> bool:
        """Tell whether every seed has a measure: encoders differ in their number of layers."""
        return all(name in row["measures"] or name in row["curves"] for row in self.rows)

    def mean(self, name: str) -> float:
        """Average a measure over seeds."""
        return float(self.values(name).mean())

    def spread(self, name: str) -> float:
        """Compute the standard deviation (n − 1) of a measure over seeds, 0 of one seed."""
        values = self.values(name)
        return float(values.std(ddof=1)) if len(values) > 1 else 0.0

    def text(self, name: str, digits: int = 1) -> str:
        """Format mean ± deviation of a measure."""
        return f"{self.mean(name):.{digits}f} ± {self.spread(name):.{digits}f}"


def _value(row: Row, name: str) -> float:
    if name in row["measures"]:
        return row["measures"][name] * (1 if name.endswith("rank") else 100)
    return row["curves"][name][-1]


Results = Mapping[str, Measurements]
Extra = Callable[[build.Config], dict[str, Callable[..., Any]]]
Measured = Callable[[build.Config, Any], dict[str, float]]
FEW = 10
"""Labels a class of the measure ``few``."""


class Study(NamedTuple):
    """A published claim, small.

    Attributes:
      name: Name of its module.
      title: Title of its page.
      question: What it asks, in a sentence or two.
      source: Paper and table of the published numbers.
      published_as: Heading of their column.
      variants: Rows.
      claims: Function of the measurements by the variant's name.
      columns: Measures of the table by heading; see :meth:`Measurements.values`.
      curves: Curves to draw: name and heading.
      watched: Names of further curves, which only the claims read.
      common: Config changes of all variants.
      x_label: Label of the horizontal axis of lines.
      x_scale: ``"log"`` or ``"linear"``.
      extra: ``config -> {name: encode}``: further features of a run, measured as ``<name>_knn``, ``<name>_linear`` and
        ``<name>_rank``.
      spectra: Spectra to draw: name of the features (``""`` the encoder's, or one of ``extra``) and heading.
      layers: Names of ``extra`` from the first layer to the last, whose linear accuracy is drawn as a line a variant; they are
        measured of the untrained encoder too. Variants may have fewer.
      finetune: Options of :func:`ssl_jax.evaluate.finetune.finetune`, whose accuracy is then measured as ``finetune``, of the
        encoder before training too; ``None``: it is not.
      rotation: Whether a linear head on each of the features is asked by how much an image was turned, measured as
        ``rotation`` and ``<name>_rotation``.
      measured: Further measures of a trained run by the name of their function, ``(config, trained) -> {name: value}``, of the
        config and the :class:`ssl_jax.cli.study_runs.TrainedVariant`; shares are in [0, 1].
      notes: What a reader should know about the differences from the paper.
      arguments: Arguments of the config of every variant: dataset, encoder, budget.
      data: Source of the images, for :func:`ssl_jax.data.open.open_source`; ``""``: that of the config.
      images: Images of training and test, in words.
      prepare: Function of a seed that makes what its runs need and that is not there, such as weights to start from, which a
        change names with ``{seed}`` in the place of the seed; ``None``: they need nothing.
    """

    name: str
    title: str
    question: str
    source: str
    published_as: str
    variants: tuple[Variant, ...]
    claims: Callable[[Results], list[Claim]]
    columns: Mapping[str, str]
    curves: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()
    common: Mapping[str, Any] = {}
    x_label: str = ""
    x_scale: str = "log"
    extra: Extra | None = None
    spectra: tuple[tuple[str, str], ...] = ()
    layers: tuple[str, ...] = ()
    finetune: Mapping[str, Any] | None = None
    rotation: bool = False
    measured: Mapping[str, Measured] = {}
    notes: str = ""
    arguments: str = "color32,short"
    data: str = ""
    images: str = "the 50,000 training images of CIFAR-10 (JPEG q75), probes on 20,000 of them, and its 10,000 test images"
    prepare: Callable[[int], None] | None = None


MEASURES = {
    "knn": "kNN",
    "linear": "linear",
    "few": "few labels",
    "finetune": "fine-tuned",
    "rank": "rank",
    "rotation": "rotation",
}
"""What evidence calls a measure."""
MARGIN = 1.0
"""The smallest difference of interest, in points of accuracy."""
CONFIDENCE = 0.95
"""Of the intervals of differences, two-sided."""


class Difference(NamedTuple):
    """A weighted sum of means over seeds, such as the mean of one variant less that of another, and what seeds can show.

    Attributes:
      value: The sum.
      smallest: Half of its confidence interval: the smallest difference from a number that as many seeds can show.
    """

    value: float
    smallest: float

    @property
    def text(self) -> str:
        """The difference and half of its interval."""
        return f"{self.value:+.1f} ± {self.smallest:.1f}"

    def exceeds(self, bound: float = 0.0, *, margin: float = MARGIN) -> Verdict:
        """Decide that the difference is larger than ``bound``.

        It holds where the whole interval lies above the bound. It does not hold where the whole interval lies below
        ``bound + margin``: then it is not larger by as much as would be of interest.
        """
        if self.value - self.smallest > bound:
            return Verdict.HOLDS
        return Verdict.FAILS if self.value + self.smallest < bound + margin else Verdict.OPEN

    def stays_above(self, bound: float = -MARGIN) -> Verdict:
        """Decide that the difference is not below ``bound``: that a variant is as good, up to a margin.

        It holds where the whole interval lies above the bound, and does not hold where the whole interval lies below it.
        """
        if self.value - self.smallest > bound:
            return Verdict.HOLDS
        return Verdict.FAILS if self.value + self.smallest < bound else Verdict.OPEN

    def is_within(self, margin: float = MARGIN) -> Verdict:
        """Decide that the difference is smaller than ``margin`` in either direction.

        It holds where the whole interval lies within, and does not hold where the whole interval lies outside.
        """
        if abs(self.value) + self.smallest < margin:
            return Verdict.HOLDS
        return Verdict.FAILS if abs(self.value) - self.smallest > margin else Verdict.OPEN


def contrast(terms: Iterable[tuple[float, Measurements]], name: str) -> Difference:
    r"""Sum the means of a measure over seeds, each with a weight.

    With variants i of n_i seeds and weights w_i the value is ``Σ w_i mean_i``. Half of its interval is
    ``t(0.975, ν) s √(Σ w_i² / n_i)`` with the pooled deviation ``s² = Σ (n_i − 1) s_i² / ν`` and ``ν = Σ (n_i − 1)``: Student's
    t with equal variances. A variant that stands in several terms counts once, with the sum of its weights.

    Args:
      terms: Weights and what they weigh.
      name: The measure, see :meth:`Measurements.values`.

    Returns:
      The difference; ``smallest`` is infinite where no variant has two seeds.

    Source: Snedecor & Cochran, Statistical Methods, chapter on comparisons among means.
    """
    weights: dict[int, float] = {}
    of_id: dict[int, Measurements] = {}
    for weight, measured in terms:
        weights[id(measured)] = weights.get(id(measured), 0.0) + weight
        of_id[id(measured)] = measured
    kept = [(weight, of_id[key].values(name)) for key, weight in weights.items() if weight]
    value = sum(weight * float(values.mean()) for weight, values in kept)
    error = sum(weight**2 / len(values) for weight, values in kept)
    return Difference(value, smallest_difference([values for _, values in kept], error))


def smallest_difference(values: Sequence[np.ndarray], error: float | None = None) -> float:
    """Compute the smallest difference that seeds can show: the pooled deviation times a quantile of Student's t.

    Args:
      values: A measure of every seed, an array a variant.
      error: ``Σ w² / n`` of the difference, see :func:`contrast`; ``None``: of two variants, each with as many seeds as the
        variants have on average.

    Returns:
      The difference, infinite where no variant has two seeds.

    >>> round(smallest_difference([np.array([50.0, 51.0, 52.0]), np.array([60.0, 61.0, 62.0])]), 2)
    2.27
    """
    freedom = sum(len(of_variant) - 1 for of_variant in values)
    if not freedom:
        return math.inf if values else 0.0
    error = 2 * len(values) / sum(map(len, values)) if error is None else error
    squares = sum(float(((of_variant - of_variant.mean()) ** 2).sum()) for of_variant in values)
    quantile = float(scipy.special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return quantile * math.sqrt(squares / freedom * error)


def difference(first: Measurements, second: Measurements, name: str = "knn") -> Difference:
    """Compute how much higher a measure of the first is; see :func:`contrast`."""
    return contrast([(1.0, first), (-1.0, second)], name)


def within_runs(measured: Measurements, first: str, second: str) -> Difference:
    """Compute how much higher one measure of the same runs is than another one, seed by seed: paired differences."""
    gaps = measured.values(first) - measured.values(second)
    return Difference(float(gaps.mean()), smallest_difference([gaps], 1 / len(gaps)))


def gain(measured: Measurements, name: str = "knn") -> Difference:
    """Compute how much higher a measure is than that of the same encoders before training."""
    return within_runs(measured, name, f"random_{name}")


def differences(first: Measurements, second: Measurements, name: str, other: str) -> Difference:
    """Compute by how much more two variants differ in one measure than in another one: ``(a₁ − a₂) − (b₁ − b₂)``.

    The two measures of a run are paired, the variants are not.
    """
    gaps = [measured.values(name) - measured.values(other) for measured in (first, second)]
    error = sum(1 / len(of_variant) for of_variant in gaps)
    return Difference(float(gaps[0].mean() - gaps[1].mean()), smallest_difference(gaps, error))


def compare(first: Measurements, second: Measurements, name: str = "knn") -> str:
    """Write a measure of two variants and their difference, as the evidence of a claim."""
    return f"{first.text(name)} against {second.text(name)}: {difference(first, second, name).text}"


def higher(text: str, first: Measurements, second: Measurements, name: str = "knn") -> Claim:
    """Claim that a measure of the first is higher, with the numbers as evidence."""
    return Claim(
        text,
        difference(first, second, name).exceeds(),
        f"{MEASURES.get(name, name)} {compare(first, second, name)}",
    )


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Decide that every one of some claims holds.

    >>> all_of([Verdict.HOLDS, Verdict.OPEN]).value, all_of([Verdict.OPEN, Verdict.FAILS]).value
    ('cannot be told here', 'does not hold')
    """
    said = set(verdicts)
    if Verdict.FAILS in said:
        return Verdict.FAILS
    return Verdict.OPEN if Verdict.OPEN in said else Verdict.HOLDS


def opposite(verdict: Verdict) -> Verdict:
    """Decide that a claim does not hold."""
    return {Verdict.HOLDS: Verdict.FAILS, Verdict.FAILS: Verdict.HOLDS}.get(verdict, verdict)


def every_seed(facts: Iterable[bool]) -> Verdict:
    """Decide a claim that is plain in each run, such as a collapse: it holds if it does with every seed, and fails with none.

    >>> every_seed([True, True]).value, every_seed([True, False]).value
    ('holds', 'cannot be told here')
    """
    told = [bool(fact) for fact in facts]
    if all(told):
        return Verdict.HOLDS
    return Verdict.OPEN if any(told) else Verdict.FAILS


def is_complete(study: Study, results: Results) -> bool:
    """Tell whether every variant was measured with as many seeds: only then are there claims and a figure."""
    return len(results) == len(study.variants) and len({len(m.rows) for m in results.values()}) == 1


def untrained(results: Results) -> dict[str, Measurements]:
    """Select one row of each seed and kind of start, for what was measured before training, by what that was.

    Variants with the same seed start from the same encoder: a random one, or that of the weights that they are given.
    """
    rows = [row for measurements in results.values() for row in measurements.rows]
    kinds = {"random encoder": False, "weights as they come": True}
    starts = {
        name: {
            row["seed"]: row
            for row in reversed(rows)
            if bool(row["config"]["encoder"].get("weights")) == given
        }
        for name, given in kinds.items()
    }
    return {name: Measurements(list(of_seed.values())) for name, of_seed in starts.items() if of_seed}
