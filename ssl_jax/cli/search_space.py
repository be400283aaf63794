"""The runs of a sweep: what they differ in, their folders, their results as a table."""

import copy
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssl_jax.config import build
from ssl_jax.core.check import require
from ssl_jax.core.files import write_atomically
from ssl_jax.core.table import table
from ssl_jax.train.workdir import CONFIG, read_config
from ssl_jax.train.writers import read_jsonl

SEED = "seed"
RESULT = "result.json"
SHOWN = {
    "online/knn": ("kNN", 100),
    "online/linear": ("linear", 100),
    "health/effective_rank": ("effective rank", 1),
    "loss": ("loss", 1),
}
"""Scalars of the table, in order of preference for sorting: heading and factor."""


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
      folder: its workdir, of the form that ``experiments.pretrain`` leaves.
      point: dotted names and values in which it differs from the others.
      config: all of its config.
    """

    folder: Path
    point: Mapping[str, Any]
    config: build.Config


class Range(NamedTuple):
    """Values that a random search draws from: uniformly, or uniformly in the logarithm."""

    low: float
    high: float
    log: bool

    def draw(self, rng: np.random.Generator) -> float:
        """A value, to four digits."""
        ends = np.log([self.low, self.high]) if self.log else (self.low, self.high)
        value = rng.uniform(*ends)
        return float(f"{np.exp(value) if self.log else value:.4g}")


Choices = Mapping[str, Sequence[Any] | Range]


def choices(text: str) -> tuple[str, Sequence[Any] | Range]:
    """The name and the values of one ``--over``.

    >>> choices("method.temperature=0.1,0.2"), choices("seed=0:3")[1]
    (('method.temperature', [0.1, 0.2]), Range(low=0.0, high=3.0, log=False))

    Raises:
      ValueError: not of that form.
    """
    name, equals, values = text.partition("=")
    require(bool(name and equals and values), "over", text, "NAME=value,value or NAME=low:high[:log]")
    if ":" not in values:
        return name, [value_of(word) for word in values.split(",")]
    low, _, rest = values.partition(":")
    high, _, scale = rest.partition(":")
    try:
        ends = Range(float(low), float(high), scale == "log")
    except ValueError:
        ends = Range(1.0, 0.0, False)
    right = ends.low < ends.high and scale in ("", "log") and (ends.low > 0 or not ends.log)
    require(right, "over", text, "NAME=low:high or, with 0 < low, NAME=low:high:log, two numbers")
    return name, ends


def value_of(word: str) -> Any:
    """A number, True, False, None or else the word itself.

    >>> [value_of(word) for word in ("1", "0.5", "true", "mlp")]
    [1, 0.5, True, 'mlp']
    """
    words = {"true": True, "false": False, "none": None}
    if word.lower() in words:
        return words[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def points(over: Choices, *, draws: int, seed: int) -> list[dict[str, Any]]:
    """What the runs differ in: every combination, or so many draws; the first draws are the same for any number of them.

    >>> points({"a": [1, 2], "b": [3]}, draws=0, seed=0)
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]

    Raises:
      ValueError: a range without draws.
    """
    if not draws:
        for name, values in over.items():
            require(
                not isinstance(values, Range), "over", name, "a list of values; a range goes with --random=N"
            )
        return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    rng = np.random.default_rng(seed)

    def draw(values: Any) -> Any:
        return values.draw(rng) if isinstance(values, Range) else values[int(rng.integers(len(values)))]

    found = [{name: draw(values) for name, values in over.items()} for _ in range(draws)]
    return [point for number, point in enumerate(found) if point not in found[:number]]


def run_of(given: ConfigDict, point: Mapping[str, Any], root: Path) -> Run:
    """A run: its folder, its point with values of the config's types, its config.

    Raises:
      ValueError: an option that the config does not have, or a value of another type.
    """
    config, typed = copy.deepcopy(given).lock(), {}
    for path, value in point.items():
        *parents, last = path.split(".")
        try:
            part = functools.reduce(lambda inner, name: inner[name], parents, config)
            part[last] = value
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"over={path}={value}: {error}") from error
        typed[path] = part[last]
    words = [f"{path.rpartition('.')[2]}={value}" for path, value in typed.items()]
    return Run(root / ",".join(words).replace("/", "_"), typed, build.plain(config))


def done(run: Run) -> bool:
    """Whether the result of a run is there.

    Raises:
      ValueError: the folder holds a run of another config.
    """
    if (run.folder / CONFIG).exists():
        there = read_config(run.folder)
        now = build.changed(run.config, {"data.channels": there["data"]["channels"]})
        if not build.same(there, now):
            raise ValueError(f"{run.folder} holds a run of another config: use another workdir or remove it")
    return (run.folder / RESULT).exists()


def final(run: Run) -> dict[str, Any]:
    """The last value of each scalar of a run."""
    last: dict[str, Any] = {}
    for record in read_jsonl(run.folder / "metrics.jsonl"):
        last |= record
    return last


def finish(run: Run, *, diverged: bool) -> None:
    """Write the result of a run that is complete or has diverged: from then on it is not made again."""
    result = {"run": run.folder.name, "point": dict(run.point), "diverged": diverged, "scalars": final(run)}
    write_atomically(run.folder / RESULT, json.dumps(result, indent=1) + "\n")


def results_table(rows: Sequence[Mapping[str, Any]], *, markdown: bool = False) -> str:
    """One row a point, the best first; mean and deviation (n − 1) over seeds, of the runs that did not diverge.

    >>> def row(t, seed, loss):
    ...     return {"point": {"method.t": t, "seed": seed}, "diverged": False, "scalars": {"loss": loss}}
    >>> print(results_table([row(0.1, 0, 3.0), row(0.1, 1, 5.0), row(0.2, 0, 2.0), row(0.2, 1, 2.0)]))
    method.t         loss  runs  diverged
    0.20      2.00 ± 0.00     2         0
    0.10      4.00 ± 1.41     2         0
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        point = {path: value for path, value in row["point"].items() if path != SEED}
        groups.setdefault(json.dumps(point), []).append(row)
    shown = [name for name in SHOWN if any(name in row["scalars"] for row in rows)]
    found = []
    for key, group in groups.items():
        cells = dict(json.loads(key)) or {"": "all"}
        whole = [row for row in group if not row["diverged"]]
        for name in shown:
            heading, factor = SHOWN[name]
            values = [factor * row["scalars"][name] for row in whole if row["scalars"].get(name) is not None]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            mean = float(np.mean(values)) if values else None
            cells[heading] = mean if spread is None else (mean, spread)
        found.append(cells | {"runs": len(group), "diverged": len(group) - len(whole)})
    heading, sign = (SHOWN[shown[0]][0], 1 if shown[0] == "loss" else -1) if shown else ("runs", 1)

    def order(cells: Mapping[str, Any]) -> float:
        value = cells[heading][0] if isinstance(cells[heading], tuple) else cells[heading]
        return np.inf if value is None else sign * value

    return table(sorted(found, key=order), markdown=markdown, digits=2)
