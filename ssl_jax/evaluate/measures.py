"""All measures by name. Another probe is a file with a ``MEASURE``, and an entry here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_jax.core import check
from ssl_jax.evaluate import (
    classifier,
    clusters,
    few_labels,
    finetune,
    health,
    knn,
    layers,
    logistic,
    retrieval,
    ridge,
    rotation,
    sweep,
)
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject, offers

ON_REQUEST = {
    measure.name: measure
    for measure in (
        knn.MEASURE,
        sweep.MEASURE,
        ridge.MEASURE,
        logistic.MEASURE,
        few_labels.MEASURE,
        retrieval.MEASURE,
        rotation.MEASURE,
        finetune.MEASURE,
        health.MEASURE,
        layers.MEASURE,
    )
}
"""Measures that are taken where they are named."""
ALWAYS = {measure.name: measure for measure in (classifier.MEASURE, clusters.MEASURE)}
"""What a method brings along, which is measured of every method that does."""
MEASURES: Mapping[str, Measure] = {**ON_REQUEST, **ALWAYS}
"""All of them, in the order of their columns."""


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


def run_measures(subject: Subject, measures: Sequence[Measure]) -> Row:
    """Take those of the measures for which a subject has what they need.

    Returns:
      Values by key; accuracies and other shares are in [0, 1].

    Raises:
      ValueError: what a measure finds wrong.
    """
    available = offers(subject)
    row: Row = {}
    for measure in measures:
        if measure.needs <= available:
            row |= measure.run(subject)
    return row


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
