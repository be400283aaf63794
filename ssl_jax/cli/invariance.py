"""Invariance of the encoders of many runs: a row a run, and tables of them."""

import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ssl_jax.cli.evaluate import measure_options, random_candidate, run_candidate
from ssl_jax.cli.tables import encoder_name
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core.rows import Row, read_rows, write_row
from ssl_jax.core.table import table
from ssl_jax.evaluate import invariance
from ssl_jax.evaluate.measure import Candidate, Subject
from ssl_jax.report.invariance import READ, HeatMap, heat_map, named_rows
from ssl_jax.train.checkpoint import steps
from ssl_jax.train.features import Features

ROW_KEY = operator.itemgetter("source", "method", "encoder", "seed", "step")
UNTRAINED = "untrained"
"""Method of the row of an encoder before training."""
MIDDLE = 1
"""Which of the strengths of a change stands in the table; the figure has all."""


def measure_runs(
    workdirs: Sequence[Path],
    out: Path,
    *,
    minutes: float = math.inf,
    report: Callable[[str], None] = print,
) -> int:
    """Measure the last checkpoint of each run, and each encoder before training; rows that are there stay.

    Args:
      workdirs: folders of runs.
      out: file of the rows.
      minutes: no run is begun after so many.
      report: given a line for each row.

    Returns:
      Number of runs that were not measured for lack of time.

    Raises:
      ValueError: images that cannot be opened, or too few.
    """
    start, left = time.monotonic(), 0
    done = {ROW_KEY(row) for row in read_rows(out)}
    for workdir in workdirs:
        config = build.read_config(workdir)
        facts = {
            "source": config["data"]["source"],
            "method": config["method"]["name"],
            "encoder": encoder_name(config),
            "seed": config["seed"],
            "step": max(steps(workdir / "checkpoints")),
        }
        before = {**facts, "method": UNTRAINED, "step": 0}
        missing = [which for which in (facts, before) if ROW_KEY(which) not in done]
        if missing and time.monotonic() - start > 60 * minutes:
            left += 1
            continue
        for which in missing:
            config, method, model = build.restore(workdir, str(facts["step"]))
            trained = which is facts
            candidate = run_candidate(config, method, model) if trained else random_candidate(config, method)
            began = time.process_time()
            row = measure_candidate(config, candidate)
            spent = {"date": datetime.now(UTC).date().isoformat(), "cpu_seconds": time.process_time() - began}
            write_row(out, {**which, **spent, **row}, ROW_KEY)
            done.add(ROW_KEY(which))
            report(
                f"{which['method']}, {which['encoder']}, seed {which['seed']}: {spent['cpu_seconds']:.0f} CPU seconds"
            )
    return left


def measure_candidate(config: build.Config, candidate: Candidate) -> Row:
    """Take the measure ``invariance`` of a candidate, on the evaluation's images of its run.

    Raises:
      ValueError: too few images.
    """
    evaluation = config["watch"]["evaluate"]
    train, test = (
        open_images(config, config["data"]["source"], evaluation[split])
        for split in ("train_split", "test_split")
    )
    none = Features(np.zeros((0, 1), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))
    subject = Subject(
        none, none, (candidate.see(train), candidate.see(test)), measure_options(config), candidate
    )
    return invariance.MEASURE.run(subject)


def mean_maps(rows: Sequence[Row]) -> dict[str, HeatMap]:
    """Average rows over seeds: ``{"invariance": ..., "equivariance": ...}``, a line a method and its projector.

    Untrained encoders come first, then methods by their movement, the least first.

    Args:
      rows: rows of :func:`measure_runs` of one source.

    >>> row = {"source": "s", "method": "mae", "encoder": "vit", "step": 9, "invariance": {"crop 0.1": 0.25}}
    >>> mean_maps([{**row, "seed": 0}, {**row, "seed": 1, "invariance": {"crop 0.1": 0.75}}])["invariance"]
    HeatMap(rows=['mae (vit)'], columns=['crop 0.1'], values=array([[0.5]]))
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row['method']} ({row['encoder']})", []).append(row)
    keys = [key for pair in READ for key in pair]
    means = {
        name: {key: _mean([row[key] for row in group]) for key in keys if all(key in row for row in group)}
        for name, group in groups.items()
    }
    order = sorted(
        means,
        key=lambda name: (not name.startswith(UNTRAINED), np.mean(list(means[name]["invariance"].values()))),
    )
    named = named_rows([(name, means[name]) for name in order])
    return {key: heat_map(named, key) for key in ("invariance", "equivariance")}


def _mean(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in numbers])) for name in numbers[0]}


def invariance_rows_table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate rows as means over seeds: movement at the middle strengths, and the mean R² of the parameters of a change.

    Args:
      rows: rows of :func:`measure_runs` of one source.
      markdown: whether the table is in Markdown.

    Returns:
      Table, and a line on what it is of; a sentence that there is nothing where there is no row.
    """
    if not rows:
        return "not measured yet"
    maps = mean_maps(rows)
    moved, read = maps["invariance"], maps["equivariance"]
    lines = []
    for name, values in zip(moved.rows, moved.values, strict=True):
        line: Row = {"encoder": name}
        for change in invariance.CHANGES.values():
            column = f"{change.name} {change.strengths[MIDDLE]:g}"
            line[f"moves by {change.name}"] = float(values[moved.columns.index(column)])
        for kind in invariance.CHANGES:
            chosen = [i for i, column in enumerate(read.columns) if column.startswith(f"{kind} ")]
            line[f"R² of {kind}"] = float(np.nanmean(read.values[read.rows.index(name), chosen]))
        lines.append(line)
    seeds = len({row["seed"] for row in rows})
    strengths = ", ".join(f"{c.name} {c.strengths[MIDDLE]:.2g}" for c in invariance.CHANGES.values())
    below = (
        f"`{rows[0]['source']}`: means over seeds ({seeds}); the movement at the middle strengths ({strengths}). 0: features "
        "stand still, 1: they move as far as another image is. R²: of a linear readout of the change, the mean over its "
        "parameters. Command: `python -m experiments.invariance --runs=FOLDER`."
    )
    return f"{table(lines, markdown=markdown, digits=2)}\n\n{below}"
