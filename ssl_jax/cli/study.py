"""What a study is: variants of a method, what a paper reports of each, and claims that measurements decide.

A study is data. :mod:`ssl_jax.cli.study_runs` trains and measures its variants, :mod:`ssl_jax.cli.study_pages` writes its table
and its page, :mod:`ssl_jax.cli.study_figure` draws it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.config import build
from ssl_jax.core.rows import Row

OF_UNTRAINED = ("knn", "linear", "few", "finetune")
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


class Claim(NamedTuple):
    """What a paper says, and whether it holds here.

    Attributes:
      text: The claim.
      holds: Whether the measurements agree.
      evidence: The measurements.
    """

    text: str
    holds: bool
    evidence: str


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
      notes: What a reader should know about the differences from the paper.
      arguments: Arguments of the config of every variant: dataset, encoder, budget.
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
    notes: str = ""
    arguments: str = "embedded,short"
    images: str = "the 10,000 Fashion-MNIST images of `embedded` and its 2,000 test images"
    prepare: Callable[[int], None] | None = None


def is_better(first: Measurements, second: Measurements, name: str = "knn", *, by: float = 0.0) -> bool:
    """Tell whether a measure is higher by more than ``by`` and by more than the two deviations over seeds together."""
    band = first.spread(name) + second.spread(name)
    return first.mean(name) - second.mean(name) > max(by, band)


def is_complete(study: Study, results: Results) -> bool:
    """Tell whether every variant was measured: only then are there claims and a figure."""
    return len(results) == len(study.variants)


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
