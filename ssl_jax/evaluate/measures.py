"""All measures by name. Another probe is a file with a ``MEASURE``, and an entry here."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssl_jax.core import check
from ssl_jax.evaluate import (
    attentive,
    classifier,
    clusters,
    few_labels,
    finetune,
    health,
    invariance,
    knn,
    label_free,
    layers,
    logistic,
    retrieval,
    ridge,
    rotation,
    sweep,
)
from ssl_jax.evaluate.dense import correspondence, propagation, regression, segmentation
from ssl_jax.evaluate.measure import LEFT_OUT, WANT_LABELS, Column, Measure, Row, Subject, offers

ON_REQUEST = {
    measure.name: measure
    for measure in (
        knn.MEASURE,
        sweep.MEASURE,
        attentive.MEASURE,
        ridge.MEASURE,
        logistic.MEASURE,
        few_labels.MEASURE,
        retrieval.MEASURE,
        rotation.MEASURE,
        finetune.MEASURE,
        health.MEASURE,
        invariance.MEASURE,
        label_free.MEASURE,
        correspondence.MEASURE,
        segmentation.MEASURE,
        propagation.MEASURE,
        regression.MEASURE,
        layers.MEASURE,
    )
}
"""Measures that are taken where they are named."""
ALWAYS = {measure.name: measure for measure in (classifier.MEASURE, clusters.MEASURE)}
"""What a method brings along, which is measured of every method that does."""
MEASURES: Mapping[str, Measure] = {**ON_REQUEST, **ALWAYS}
"""All of them, in the order of their columns."""
NO_LABELS = f"no image has a label, {WANT_LABELS}"


def parse_measures(names: Sequence[str]) -> tuple[Measure, ...]:
    """Look up measures by name; ``all`` stands for every one. Those of ``ALWAYS`` come along.

    Raises:
      ValueError: an unknown name; names the nearest.

    >>> [measure.name for measure in parse_measures(["knn"])]
    ['knn', 'classifier', 'clusters']
    """
    for name in names:
        check.choice("measures", name, (*ON_REQUEST, "all"))
    chosen = ON_REQUEST if "all" in names else dict.fromkeys(names)
    return tuple(MEASURES[name] for name in (*chosen, *ALWAYS))


def run_measures(
    subject: Subject, measures: Sequence[Measure], *, after: Callable[[Row], None] = lambda row: None
) -> Row:
    """Take those of the measures for which a subject has what they need.

    What cannot be measured of these images is left out with the reason: a measure that raises a ValueError, one that needs
    labels where no image has any, a number that is not finite. Any other error is raised.

    Args:
      subject: what to measure.
      measures: measures, in order.
      after: function that is called with the row so far after each measure.

    Returns:
      Values by key; accuracies and other shares are in [0, 1]. ``left_out``, where there is something, has the reason by the
      name of the measure.
    """
    available = offers(subject)
    row: Row = {}
    for measure in measures:
        missing = measure.needs - available
        if missing and missing != {"labels"}:
            continue
        values, reasons = take_measure(measure, subject)
        row |= values
        if reasons:
            row[LEFT_OUT] = {**row.get(LEFT_OUT, {}), **reasons}
        after(row)
    return row


def take_measure(measure: Measure, subject: Subject) -> tuple[Row, dict[str, str]]:
    """Take a measure, and say why where it, or a part of it, cannot be taken.

    Returns:
      Finite values by key, and reasons by the name of the measure.
    """
    if "labels" in measure.needs and not subject.classes:
        return {}, {measure.name: NO_LABELS}
    try:
        row = measure.run(subject)
    except ValueError as error:
        return {}, {measure.name: str(error)}
    reasons = row.pop(LEFT_OUT, {})
    finite, broken = {}, []
    for name, value in row.items():
        if isinstance(value, Mapping):
            finite[name] = {key: part for key, part in value.items() if _is_finite(part)}
            broken += sorted(value.keys() - finite[name].keys())
        elif _is_finite(value):
            finite[name] = value
        else:
            broken.append(name)
    if broken:
        images = f"{len(subject.train.labels)} training and {len(subject.test.labels)} test images"
        reasons = {measure.name: f"not a finite number: {', '.join(broken)} of {images}", **reasons}
    return finite, reasons


def _is_finite(value: Any) -> bool:
    """Whether JSON has a value: only NaN and infinite numbers are not."""
    return not isinstance(value, float) or math.isfinite(value)


def left_out_lines(result: Mapping[str, Any]) -> list[str]:
    """Say what an evaluation could not measure, in a line for each reason.

    Args:
      result: content of ``evaluation.json``.

    >>> rows = [{"features": "raw pixels", "left_out": {"knn": "no labels"}}, {"features": "simclr", "knn": 0.5}]
    >>> left_out_lines({"rows": rows, "left_out": {"layers": "one image"}})
    ['knn (raw pixels): no labels', 'layers: one image']
    """
    rows = result.get("rows", [])
    owners: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row.get(LEFT_OUT, {}).items():
            owners.setdefault((name, reason), []).append(str(row.get("features", "?")))
    names: dict[tuple[str, str], list[str]] = {}
    for (name, reason), owned in owners.items():
        whose = "" if len(owned) == len(rows) else f" ({', '.join(owned)})"
        names.setdefault((whose, reason), []).append(name)
    for name, reason in result.get(LEFT_OUT, {}).items():
        names.setdefault(("", reason), []).append(name)
    return [f"{', '.join(measures)}{whose}: {reason}" for (whose, reason), measures in names.items()]


def row_columns(row: Mapping[str, Any]) -> dict[str, Column]:
    """List the measured keys of a row in the order of the tables, each with its column, the numbers filled in.

    >>> {key: column.heading for key, column in row_columns({"linear_10": 0.8, "linear_5": 0.7, "knn": 0.9}).items()}
    {'knn': 'kNN', 'linear_5': 'linear, 5 a class', 'linear_10': 'linear, 10 a class'}
    """
    columns = {}
    for measure in MEASURES.values():
        for column in () if measure.own_table else measure.columns:
            pattern = re.compile(re.escape(column.key).replace(r"\{\}", r"(\d+)"))
            matches = [match for key in row if (match := pattern.fullmatch(key))]
            for match in sorted(matches, key=lambda match: [int(number) for number in match.groups()]):
                columns[match[0]] = Column(*(text.format(*match.groups()) for text in column))
    return columns
