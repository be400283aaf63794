"""The table of a study and its page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.cli.study import (
    CONFIDENCE,
    OF_UNTRAINED,
    Claim,
    Measurements,
    Results,
    Study,
    Verdict,
    is_complete,
    smallest_difference,
    untrained,
)
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
    for start, initial in untrained(results).items() if names else ():
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
    verdicts = [claim_line(claim) for claim in study.claims(results)]
    return [*verdicts, "", f"![{study.title}]({folder}{study.name}.svg)"]


SAID = {
    Verdict.HOLDS: "Holds here",
    Verdict.FAILS: "Does not hold here",
    Verdict.OPEN: "Cannot be told here",
}
"""What a page says of a verdict."""


def claim_line(claim: Claim) -> str:
    """Write a claim, its verdict and its evidence as an item of a list.

    >>> claim_line(Claim("Water is wet.", Verdict.HOLDS, "3 of 3 wet"))
    '- **Holds here.** Water is wet. (3 of 3 wet)'
    """
    reason = f", because {claim.because}" if claim.because and claim.verdict is Verdict.FAILS else ""
    return f"- **{SAID[claim.verdict]}{reason}.** {claim.text} ({claim.evidence})"


def describe_power(study: Study, results: Results) -> str:
    """Say which differences so many seeds can show, of each accuracy in the table."""
    shown = []
    for heading, name in study.columns.items():
        if name not in (*OF_UNTRAINED, "classifier") and not name.endswith(("_knn", "_linear")):
            continue
        values = [m.values(name) for m in results.values() if m.has(name)]
        pairs = [smallest_difference([of_variant, of_variant]) for of_variant in values]
        if pairs and np.isfinite(pairs).all():
            shown.append(f"{np.median(pairs):.1f} points of {heading}")
    if not shown:
        return ""
    return (
        "The smallest difference between two variants that these seeds can show (median over the variants): "
        f"{', '.join(shown)}. "
        f"In the claims, what stands behind a difference is half of its interval of {CONFIDENCE:.0%}."
    )


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
        lines += [power, ""] if (power := describe_power(study, results)) else []
    if study.notes:
        lines += [study.notes, ""]
    lines += [f"Run it: `python -m experiments.studies.{study.name}`.", ""]
    return "\n".join(lines)
