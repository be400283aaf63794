"""The table of a study and its page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.cli.study import OF_UNTRAINED, Measurements, Results, Study, is_complete, untrained
from ssl_jax.core.rows import Row
from ssl_jax.core.table import table
from ssl_jax.evaluate.knn import NEIGHBORS

KINDS = {
    "convnet": "convolutional network",
    "ladder": "ladder network",
    "mlp": "perceptron",
    "vit_micro": "vision transformer",
}
"""What the docs call an encoder."""


def study_table(study: Study, results: Results, *, markdown: bool = False) -> str:
    """Set the paper's numbers beside ours, mean ± deviation over seeds."""
    rows: list[dict[str, Any]] = []
    names = {heading: f"random_{name}" for heading, name in study.columns.items() if name in OF_UNTRAINED}
    for start, initial in untrained(results).items():
        rows.append({"variant": start, study.published_as: None, **_cells(initial, names)})
    for variant in study.variants:
        if variant.name in results:
            measurements = results[variant.name]
            measured = {heading: name for heading, name in study.columns.items() if measurements.has(name)}
            cells = _cells(measurements, measured)
            rows.append({"variant": variant.name, study.published_as: variant.published, **cells})
    if not rows:
        return "no results"
    digits = 2 if any("std" in name for name in study.columns.values()) else 1
    published = [study.published_as] if any(v.published is not None for v in study.variants) else []
    columns = ["variant", *published, *study.columns, "seeds"]
    return table(rows, columns=columns, markdown=markdown, digits=digits)


def _cells(measurements: Measurements, names: Mapping[str, str]) -> dict[str, Any]:
    cells = {heading: (measurements.mean(name), measurements.spread(name)) for heading, name in names.items()}
    return {**cells, "seeds": len(measurements.rows)}


def study_findings(study: Study, results: Results, *, folder: str = "") -> list[str]:
    """Write what a complete study says, in lines: each claim, whether it holds here, and the figure in ``folder``."""
    verdicts = [
        f"- {'**Holds here.**' if c.holds else '**Does not hold here.**'} {c.text} ({c.evidence})"
        for c in study.claims(results)
    ]
    return [*verdicts, "", f"![{study.title}]({folder}{study.name}.svg)"]


def describe_runs(study: Study, rows: Sequence[Row]) -> str:
    """Say what was measured on which images, at what cost."""
    configs = [row["config"] for row in rows]
    steps = {
        size: [c["steps"] for c in configs if c["batch_size"] == size]
        for size in _distinct(configs, "batch_size")
    }
    lengths = " or ".join(
        f"{min(counts)}{f' to {max(counts)}' if max(counts) > min(counts) else ''} steps of {size}"
        for size, counts in steps.items()
    )
    encoders = " or ".join(
        f"a small {KINDS[name]}" for name in _distinct([c["encoder"] for c in configs], "name")
    )
    spent = np.mean([row["cpu_seconds"] for row in rows])
    scale = "A scale on which the published percentages, of ImageNet, are not to be expected: only the pattern is compared."
    sentences = [
        f"Ours: {study.images}, {lengths} images, {encoders}; kNN (k = {NEIGHBORS}) and linear (ridge) accuracy in percent on "
        "the test images, ± the deviation over seeds.",
        "`random encoder`: the same encoders before training.",
        f"One core of {rows[0]['machine']['device']}, {spent:.0f} CPU seconds a run.",
        *([scale] if any(variant.published is not None for variant in study.variants) else []),
    ]
    return " ".join(sentences)


def _distinct(tables: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return sorted({table[name] for table in tables})


def study_page(study: Study, results: Results) -> str:
    """Write the docs page of a study."""
    lines = [f"# {study.title}", "", study.question, "", f"Published: {study.source}.", ""]
    if is_complete(study, results):
        lines += [*study_findings(study, results), ""]
    rows = [row for measurements in results.values() for row in measurements.rows]
    if rows:
        lines += [study_table(study, results, markdown=True), "", describe_runs(study, rows), ""]
    if study.notes:
        lines += [study.notes, ""]
    lines += [f"Run it again: `python -m experiments.studies.{study.name}`.", ""]
    return "\n".join(lines)
