"""Results as tables."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_jax import models
from ssl_jax.config.datasets import DATASETS
from ssl_jax.core.table import table
from ssl_jax.evaluate.correlation import rank_correlation

DATASET = "fashion_mnist"
ELSEWHERE = {"colorization": "embedded_color", "time_contrastive": "moving", "triplet_frames": "moving"}
"""Datasets of methods that find nothing to learn in Fashion-MNIST, which has neither colours nor clips."""

HEADINGS = {
    "knn": "kNN",
    "linear": "linear",
    "ridge": "ridge",
    "logistic": "logistic",
    "retrieval_map": "retrieval mAP",
    "rotation": "rotation",
    "finetune_1_percent": "fine-tuned, 1 %",
    "finetune_10_percent": "fine-tuned, 10 %",
    "classifier": "own classifier",
    "student": "its student's",
}
"""Measures in [0, 1] in the order of the columns; the few-label probes (``linear_<n>``) come after ``logistic``."""


def dataset_of(method: str) -> str:
    """The dataset on which a method is measured, a word of its config."""
    return ELSEWHERE.get(method, DATASET)


def evaluation(result: Mapping[str, Any], *, markdown: bool = False) -> str:
    """The measured rows as a table, accuracies in percent, and a line that says what was measured."""
    rows = [{"accuracy in %": row["features"], **cells(row)} for row in result["rows"]]
    train, test = result["examples"]
    what = (
        f"{result['source']}: {train:,} training and {test:,} test images; ± is the deviation over draws of the labels. "
        "The linear probe's learning rate and weight decay are chosen on held-out training images."
    )
    return table(rows, markdown=markdown) + f"\n\n{what}"


def cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """The measures of a row as cells, in percent, by heading."""
    found: dict[str, Any] = {}
    few = sorted(int(m[1]) for name in row if (m := re.fullmatch(r"linear_(\d+)", name)))
    for name, heading in HEADINGS.items():
        if name in row:
            found[heading] = 100 * row[name]
        if name == "logistic":
            for count in few:
                mean, std = row[f"linear_{count}"], row[f"linear_{count}_std"]
                found[f"linear, {count} a class"] = (100 * mean, 100 * std)
    return found


def layers_table(result: Mapping[str, Any], *, markdown: bool = False) -> str:
    """kNN and ridge accuracy in percent of each layer and pooling."""
    rows = [
        {"layer and pooling": r["layer"], "dims": r["dims"], "kNN": 100 * r["knn"], "ridge": 100 * r["ridge"]}
        for r in result["layers"]
    ]
    return table(rows, markdown=markdown)


CLUSTERS = {
    "purity": "purity",
    "nmi_classes": "NMI with the classes",
    "nmi_before": "NMI with the clusters before",
    "changed": "images that changed cluster",
}
"""Scores of a clustering in [0, 1] by heading."""


def clusters_table(result: Mapping[str, Any], *, markdown: bool = False) -> str:
    """Scores of the clusters of each head, in percent, and how they changed in the last refresh."""
    rows = [
        {
            "clusters": f"head {r['head']}",
            "used": r["used"],
            **{heading: None if r[name] is None else 100 * r[name] for name, heading in CLUSTERS.items()},
        }
        for r in result["clusters"]
    ]
    return table(rows, markdown=markdown)


LABEL_FREE = ("rankme", "effective_rank", "alpha", "lidar", "spread", "alignment", "uniformity", "rotation")
"""Measures that read no label, correlated with accuracy over runs."""


def load_results(folder: Path) -> list[dict[str, Any]]:
    """The result files of ``experiments.results`` in a folder, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*-*.json"))]


def results_table(folder: Path, *, markdown: bool = False) -> str:
    """Yardsticks and methods, accuracies in percent as mean ± deviation over seeds, and what was measured how.

    Args:
      folder: of result files.
      markdown: as Markdown.

    Returns:
      Table and a line on hardware and seeds; a sentence that there is nothing if the folder has no result.
    """
    results = load_results(folder)
    if not results:
        return f"no results in {folder.name}"
    groups = _groups(results)
    order = sorted(groups, key=lambda name: (_place(groups[name][0]), name))
    rows = [{"accuracy in %": name, **_mean_cells(groups[name])} for name in order]
    return f"{_ordered(rows, markdown)}\n\n{_how(results)}"


def method_table(folder: Path, method: str, *, markdown: bool = False) -> str:
    """The row of one method beside the yardsticks of its encoder; nothing if it has no result."""
    results = load_results(folder)
    groups = _groups(results)
    own = [name for name, rows in groups.items() if rows[0]["role"] != "yardstick"]
    mine = [name for name in own if name.startswith(f"{method} (")]
    encoders = {f"random {encoder_name(r['config'])}" for r in results if r["method"] == method}
    others = [
        name for name in groups if name not in own and (not name.startswith("random ") or name in encoders)
    ]
    rows = [{"accuracy in %": name, **_mean_cells(groups[name])} for name in sorted(others) + mine]
    return _ordered(rows, markdown) if mine else ""


def _ordered(rows: Sequence[Mapping[str, Any]], markdown: bool) -> str:
    """A table with what was measured first and how it came about last."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    last = [name for name in ("rotation", "seeds", "epochs", "core-minutes") if name in names]
    columns = [name for name in names if name not in last] + last
    return table(rows, columns=columns, markdown=markdown)


def _groups(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of all seeds by the name that the table gives them; a yardstick that two runs measured with one seed counts once,
    as the run has it that measured more."""
    groups: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {}
    for result in results:
        encoder = encoder_name(result["config"])
        for row in result["evaluation"]["rows"]:
            name = {"random encoder": f"random {encoder}"}.get(row["features"], row["features"])
            own = row["role"] != "yardstick"
            group = groups.setdefault(f"{result['method']} ({encoder})" if own else name, {})
            key = (result["method"] if own else "", result["seed"])
            if key not in group or len(cells(row)) > len(cells(group[key])):
                group[key] = {**row, "result": result if own else None}
    return {name: list(group.values()) for name, group in groups.items()}


REMARKS: tuple[tuple[str, Any, str], ...] = (
    ("freeze_patch", True, "with frozen patches"),
    ("init", "beit", "with BEiT's start"),
    ("position", "relative", "with relative positions"),
    ("class_token", False, "without class token"),
)
"""Options that make another untrained encoder, by value, and how a row says so."""


def encoder_name(config: Mapping[str, Any]) -> str:
    """Name of an encoder with the sizes in which it differs from the usual ones.

    >>> encoder_name({"encoder": {"name": "convnet", "widths": (16, 32, 64)}})
    'convnet 16-32-64'
    """
    options = config["encoder"]
    usual = models.BUILDERS[options["name"]]().config
    words = [options["name"]]
    for key in ("widths", "width", "depth"):
        found = options.get(key, usual.get(key))
        if list(np.ravel(found)) != list(np.ravel(usual.get(key, found))):
            words.append("-".join(map(str, np.ravel(found))))
    for option, value, remark in REMARKS:
        if options.get(option) == value:
            words.append(remark)
    return " ".join(words)


def _place(row: Mapping[str, Any]) -> int:
    """Yardsticks first, then self-supervised encoders, then the supervised one."""
    return {"yardstick": 0, "encoder": 1}.get(row["role"], 2)


def _mean_cells(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cells of several seeds: mean and deviation (n − 1) over them, of what was measured of all; of one, its own deviation."""
    each = [cells(row) for row in rows]
    found: dict[str, Any] = {}
    for heading in (name for name in each[0] if all(name in cell for cell in each)):
        values = [cell[heading][0] if isinstance(cell[heading], tuple) else cell[heading] for cell in each]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        found[heading] = each[0][heading] if spread is None else (float(np.mean(values)), spread)
    found["seeds"] = len(rows)
    if rows[0]["result"] is not None:
        spent = [row["result"]["cpu_seconds"]["pretrain"] / 60 for row in rows]
        found["epochs"] = f"{_epochs(rows[0]['result']['config']):.0f}"
        found["core-minutes"] = float(np.median(spent))
    return found


def _epochs(config: Mapping[str, Any]) -> float:
    """Passes over the training images, of clips over their frames."""
    examples = {dataset.source: dataset.examples for dataset in DATASETS.values()}
    return config["steps"] * config["batch_size"] / examples[config["data"]["source"]]


def _how(results: Sequence[Mapping[str, Any]]) -> str:
    machines = {(r["evaluation"]["machine"]["device"], r["evaluation"]["machine"]["cores"]) for r in results}
    train, test = results[0]["evaluation"]["examples"]
    where = "; ".join(f"{cores} core(s) a run of {device}" for device, cores in sorted(machines))
    return (
        f"`{results[0]['evaluation']['source']}`: probes of {train:,} training images, {test:,} test images. ± is the "
        "deviation over seeds (for rows with one seed, over draws of the labels). kNN: k = 20. The linear probe's learning "
        "rate and weight decay are chosen on held-out training images; recipes were tuned on training images only. "
        f"Core-minutes: processor time of training, the median over seeds, on {where}. "
        "Command: `python -m experiments.results`."
    )


def correlations(folder: Path, *, markdown: bool = False) -> str:
    """Rank correlation of each label-free measure with kNN and linear accuracy over self-supervised runs."""
    own = [
        row
        for result in load_results(folder)
        for row in result["evaluation"]["rows"]
        if row["role"] == "encoder"
    ]
    if len(own) < 3:
        return "fewer than three runs: no correlation"
    nan = float("nan")
    measures = {
        name: [row.get("health", {}).get(name, row.get(name, nan)) for row in own] for name in LABEL_FREE
    }
    found = {target: rank_correlation(measures, [row[target] for row in own]) for target in ("knn", "linear")}
    rows = [
        {
            "measure": name,
            **{f"Spearman, {HEADINGS[target]}": of[name].spearman for target, of in found.items()},
            **{f"Kendall, {HEADINGS[target]}": of[name].kendall for target, of in found.items()},
            "runs": found["knn"][name].runs,
        }
        for name in LABEL_FREE
    ]
    return table(rows, markdown=markdown, digits=2)
