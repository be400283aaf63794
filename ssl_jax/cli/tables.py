"""Results as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax import models
from ssl_jax.core.rows import Row
from ssl_jax.core.table import table
from ssl_jax.evaluate.knn import NEIGHBORS
from ssl_jax.evaluate.measure import BASELINE, Measure
from ssl_jax.evaluate.measures import left_out_lines, row_columns
from ssl_jax.report.invariance import heat_map, named_rows

DATASET = "fashion_mnist"
ELSEWHERE = {"colorization": "embedded_color", "time_contrastive": "moving", "triplet_frames": "moving"}
"""Datasets of methods that find nothing to learn in Fashion-MNIST, which has neither colours nor clips."""


def dataset_of(method: str) -> str:
    """Name the dataset on which a method is measured, an argument of its config."""
    return ELSEWHERE.get(method, DATASET)


def evaluation_table(result: Mapping[str, Any], *, markdown: bool = False) -> str:
    """Tabulate the measured rows, accuracies in percent, with what was measured, and what could not be, below."""
    rows = [{"accuracy in %": row["features"], **cells(row)} for row in result["rows"]]
    train, test = result["examples"]
    what = (
        f"{result['source']}: {train:,} training and {test:,} test images; ± is the deviation over draws of the labels. "
        "The linear probe's learning rate and weight decay are chosen on held-out training images."
    )
    notes = result.get("notes", [])
    left_out = [f"- {line}" for line in left_out_lines(result)]
    below = [
        what,
        *(["\n".join(notes)] if notes else []),
        *(["\n".join(["Not measured:", *left_out])] if left_out else []),
    ]
    return "\n\n".join([table(rows, markdown=markdown), *below])


def cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the measures of a row into cells by heading, in percent, with the deviation where there is one."""
    percents: dict[str, Any] = {}
    for key, column in row_columns(row).items():
        std = row.get(f"{key}_std")
        percents[column.heading] = 100 * row[key] if std is None else (100 * row[key], 100 * std)
    return percents


def measure_table(measure: Measure, rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate the rows of a measure that has a table of its own; shares, which are floats, in percent."""
    headed = [
        {
            column.heading: 100 * value if isinstance(value, float) else value
            for column, value in ((column, row[column.key]) for column in measure.columns)
        }
        for row in rows
    ]
    return table(headed, markdown=markdown)


def invariance_table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate the measure ``invariance``: a line a change and strength, a column an encoder; nothing where it was not taken.

    Args:
      rows: rows of an evaluation.
      markdown: Whether the table is in Markdown.

    >>> print(invariance_table([{"features": "mae", "invariance": {"crop 0.1": 0.25}}], markdown=True).splitlines()[2])
    | crop 0.1             | 0.25 |
    """
    named = named_rows([(str(row["features"]), row) for row in rows])
    tables = []
    for key, title in (("invariance", "movement of features"), ("equivariance", "R² of a linear readout")):
        made = heat_map(named, key)
        lines = [
            {title: column, **dict(zip(made.rows, map(float, values), strict=True))}
            for column, values in zip(made.columns, made.values.T, strict=True)
        ]
        tables += [table(lines, markdown=markdown, digits=2)] if lines else []
    return "\n\n".join(tables)


def results_table(results: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate baselines and methods, accuracies in percent as mean ± deviation over seeds.

    Args:
      results: Rows of one dataset and budget, see :mod:`ssl_jax.cli.results`.
      markdown: Whether the table is in Markdown.

    Returns:
      Table and a line on hardware and seeds; a sentence that there is nothing if there is no row.
    """
    if not results:
        return "no results"
    groups = group_rows(results)
    order = sorted(groups, key=lambda name: (_rank(groups[name][0]), name))
    rows = [{"accuracy in %": name, **mean_cells(groups[name])} for name in order]
    return f"{_ordered(rows, markdown)}\n\n{conditions(results)}"


def method_table(results: Sequence[Row], method: str, *, markdown: bool = False) -> str:
    """Tabulate one method and the baselines of its encoder; nothing if it has no result."""
    groups = group_rows(results)
    methods = [name for name, rows in groups.items() if rows[0]["role"] != BASELINE]
    selected = [name for name in methods if name.startswith(f"{method} (")]
    encoders = {f"random {encoder_name(r['config'])}" for r in results if r["method"] == method}
    baselines = [
        name
        for name in groups
        if name not in methods and (not name.startswith("random ") or name in encoders)
    ]
    rows = [{"accuracy in %": name, **mean_cells(groups[name])} for name in sorted(baselines) + selected]
    return _ordered(rows, markdown) if selected else ""


def _ordered(rows: Sequence[Mapping[str, Any]], markdown: bool) -> str:
    """Measures first, then what a row is made of."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    last = [name for name in ("rotation", "seeds", "epochs", "core-minutes") if name in names]
    columns = [name for name in names if name not in last] + last
    return table(rows, columns=columns, markdown=markdown)


def group_rows(results: Sequence[Row]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of all seeds by the name that the table gives them; a baseline that two runs measured with one seed counts once,
    from the run that measured more."""
    groups: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {}
    for result in results:
        encoder = encoder_name(result["config"])
        for row in result["evaluation"]["rows"]:
            name = {"random encoder": f"random {encoder}"}.get(row["features"], row["features"])
            is_method = row["role"] != BASELINE
            group = groups.setdefault(f"{result['method']} ({encoder})" if is_method else name, {})
            key = (result["method"] if is_method else "", result["seed"])
            if key not in group or len(cells(row)) > len(cells(group[key])):
                group[key] = {**row, "result": result if is_method else None}
    return {name: list(group.values()) for name, group in groups.items()}


REMARKS: tuple[tuple[str, Any, str], ...] = (
    ("freeze_patch", True, "with frozen patches"),
    ("init", "beit", "with BEiT's start"),
    ("position", "relative", "with relative positions"),
    ("position", "rope", "with rotary positions"),
    ("position", "none", "without positions"),
    ("class_token", False, "without class token"),
    ("norm", "group", "with GroupNorm"),
)
"""Options that make another untrained encoder, by value, and how a row says so."""


def encoder_name(config: Mapping[str, Any]) -> str:
    """Name an encoder, with the sizes in which it differs from the usual ones.

    >>> encoder_name({"encoder": {"name": "convnet", "widths": (16, 32, 64)}})
    'convnet 16-32-64'
    """
    options = config["encoder"]
    usual = models.BUILDERS[options["name"]]().config
    words = [options["name"]]
    for key in ("widths", "width", "depth"):
        size = options.get(key, usual.get(key))
        if list(np.ravel(size)) != list(np.ravel(usual.get(key, size))):
            words.append("-".join(map(str, np.ravel(size))))
    for option, value, remark in REMARKS:
        if options.get(option) == value:
            words.append(remark)
    return " ".join(words)


def _rank(row: Mapping[str, Any]) -> int:
    """Baselines first, then self-supervised encoders, then the supervised one."""
    return {BASELINE: 0, "encoder": 1}.get(row["role"], 2)


def mean_cells(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cells of several seeds: mean and deviation (n − 1) over them, of what was measured of all; of one, its own deviation."""
    each = [cells(row) for row in rows]
    means: dict[str, Any] = {}
    for heading in (name for name in each[0] if all(name in cell for cell in each)):
        values = [cell[heading][0] if isinstance(cell[heading], tuple) else cell[heading] for cell in each]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        means[heading] = each[0][heading] if spread is None else (float(np.mean(values)), spread)
    means["seeds"] = len(rows)
    if rows[0]["result"] is not None:
        spent = [row["result"]["cpu_seconds"]["pretrain"] / 60 for row in rows]
        means["epochs"] = f"{_epochs(rows[0]['result']['config']):.0f}"
        means["core-minutes"] = float(np.median(spent))
    return means


def _epochs(config: Mapping[str, Any]) -> float:
    """Passes over the training images, of clips over their frames."""
    return config["steps"] * config["batch_size"] / config["data"]["num_examples"]


def is_transformer(config: Mapping[str, Any]) -> bool:
    """Tell whether the encoder of a config is a ViT.

    >>> is_transformer({"encoder": {"name": "vit_micro"}})
    True
    """
    return bool(config["encoder"]["name"].startswith("vit"))


def conditions(results: Sequence[Row]) -> str:
    """Say how a table was made: images, probes, seeds, hardware, command."""
    machines = {(r["evaluation"]["machine"]["device"], r["evaluation"]["machine"]["cores"]) for r in results}
    train, test = results[0]["evaluation"]["examples"]
    where = "; ".join(f"{cores} core(s) a run of {device}" for device, cores in sorted(machines))
    return (
        f"`{results[0]['evaluation']['source']}`: probes of {train:,} training images, {test:,} test images. ± is the "
        f"deviation over seeds (for rows with one seed, over draws of the labels). kNN: k = {NEIGHBORS}. The linear probe's "
        "learning rate and weight decay are chosen on held-out training images; recipes were tuned on training images only. "
        f"Core-minutes: processor time of training, the median over seeds, on {where}. "
        f"Command: `python -m experiments.results{_arguments(results[0])}`."
    )


def _arguments(row: Row) -> str:
    return "".join(f" --{name}={row[name]}" for name in ("dataset", "source") if row.get(name))
