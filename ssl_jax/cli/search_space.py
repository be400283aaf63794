"""The trials of a sweep: what they differ in, their folders, their results as a table."""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssl_jax.config import build
from ssl_jax.core.check import require
from ssl_jax.core.files import write_atomically
from ssl_jax.core.table import table
from ssl_jax.train.workdir import CONFIG, read_config
from ssl_jax.train.writers import last_scalars, read_jsonl

SEED = "seed"
RESULT = "result.json"
LONGEST_NAME = 200
"""Bytes of the name of a trial's folder; file systems take 255."""
COLUMNS = {
    "online/knn": ("kNN", 100),
    "online/linear": ("linear", 100),
    "health/effective_rank": ("effective rank", 1),
    "loss": ("loss", 1),
}
"""Scalars of the table, in order of preference for sorting: heading and factor."""


class Trial(NamedTuple):
    """One run of a sweep.

    Attributes:
      folder: its workdir, of the form that ``experiments.pretrain`` leaves.
      overrides: dotted names and values in which it differs from the others.
      config: the whole config.
    """

    folder: Path
    overrides: Mapping[str, Any]
    config: build.Config


class Range(NamedTuple):
    """Values that a random search draws from: uniformly, or uniformly in the logarithm."""

    low: float
    high: float
    log: bool

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a value, to four digits."""
        ends = np.log([self.low, self.high]) if self.log else (self.low, self.high)
        value = rng.uniform(*ends)
        return float(f"{np.exp(value) if self.log else value:.4g}")


Grid = Mapping[str, Sequence[Any] | Range]
LoadConfig = Callable[..., ConfigDict]


def parse_axis(text: str) -> tuple[str, Sequence[Any] | Range]:
    """Parse the name and the values of one ``--grid``.

    >>> parse_axis("method.temperature=0.1,0.2"), parse_axis("seed=0:3")[1]
    (('method.temperature', [0.1, 0.2]), Range(low=0.0, high=3.0, log=False))

    Values with a comma or a colon in them, such as paths, are a list in JSON:

    >>> parse_axis('data.source=["folder:a,b", "folder:c"]')[1]
    ['folder:a,b', 'folder:c']

    Raises:
      ValueError: not of that form.
    """
    name, equals, values = text.partition("=")
    require(bool(name and equals and values), "grid", text, "NAME=value,value or NAME=low:high[:log]")
    if values.startswith("["):
        return name, _parse_list(text, values)
    if ":" not in values:
        return name, [parse_value(word) for word in values.split(",")]
    low, _, rest = values.partition(":")
    high, _, scale = rest.partition(":")
    try:
        ends = Range(float(low), float(high), scale == "log")
    except ValueError:
        ends = Range(1.0, 0.0, False)
    right = ends.low < ends.high and scale in ("", "log") and (ends.low > 0 or not ends.log)
    require(right, "grid", text, "NAME=low:high or, with 0 < low, NAME=low:high:log, two numbers")
    return name, ends


def _parse_list(text: str, values: str) -> list[Any]:
    try:
        parsed = json.loads(values)
    except ValueError as error:
        raise ValueError(f"grid={text!r}: {values} is not a list in JSON ({error})") from error
    require(bool(parsed), "grid", text, "a list of one value or more")
    return parsed


def parse_value(word: str) -> Any:
    """Parse a number, True, False, None or else the word itself.

    >>> [parse_value(word) for word in ("1", "0.5", "true", "mlp")]
    [1, 0.5, True, 'mlp']
    """
    words = {"true": True, "false": False, "none": None}
    if word.lower() in words:
        return words[word.lower()]
    for kind in (int, float) if word.isascii() else ():
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def combinations(grid: Grid, *, draws: int, seed: int) -> list[dict[str, Any]]:
    """List what the trials differ in: every combination, or so many draws; the first draws are the same for any number of them.

    >>> combinations({"a": [1, 2], "b": [3]}, draws=0, seed=0)
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]

    Raises:
      ValueError: a range without draws.
    """
    if not draws:
        for name, values in grid.items():
            require(
                not isinstance(values, Range), "grid", name, "a list of values; a range goes with --random=N"
            )
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    rng = np.random.default_rng(seed)

    def draw(values: Any) -> Any:
        return values.draw(rng) if isinstance(values, Range) else values[int(rng.integers(len(values)))]

    drawn = [{name: draw(values) for name, values in grid.items()} for _ in range(draws)]
    return [overrides for number, overrides in enumerate(drawn) if overrides not in drawn[:number]]


def make_trial(load: LoadConfig, overrides: Mapping[str, Any], root: Path) -> Trial:
    """Make a trial: its folder, its overrides with values of the config's types, its config.

    Args:
      load: makes the config with other values at dotted names.
      overrides: names and values in which the trial differs from others.
      root: folder of the sweep.

    Raises:
      ValueError: an option that the config does not have, or a value of another type.
    """
    try:
        config = build.to_dict(load(overrides))
    except ValueError as error:
        pairs = ",".join(f"{path}={value}" for path, value in overrides.items())
        raise ValueError(f"grid={pairs}: {error}") from error
    typed = {
        path: functools.reduce(lambda part, name: part[name], path.split("."), config) for path in overrides
    }
    words = [f"{path.rpartition('.')[2]}={value}" for path, value in typed.items()]
    return Trial(root / folder_name(",".join(words)), typed, config)


def folder_name(words: str) -> str:
    """Return the name of a folder for what a trial differs in: without slashes, and with a digest for the end of a long one.

    >>> folder_name("source=folder:a/b"), len(folder_name("a" * 999))
    ('source=folder:a_b', 200)
    """
    # What the library of checkpoints cannot name, see ssl_jax.train.storage.UNNAMEABLE.
    name = words.replace("/", "_").replace("\\", "_")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(words.encode()).hexdigest()[:12]
    return name.encode()[: LONGEST_NAME - 13].decode(errors="ignore") + "~" + digest


def is_done(trial: Trial) -> bool:
    """Return whether the result of a trial is there.

    Raises:
      ValueError: the folder holds a run of another config.
    """
    if (trial.folder / CONFIG).exists():
        recorded = read_config(trial.folder)
        config = build.with_changes(trial.config, {"data.channels": recorded["data"]["channels"]})
        if not build.same_run(recorded, config):
            raise ValueError(
                f"{trial.folder} holds a run of another config: use another workdir or remove it"
            )
    return (trial.folder / RESULT).exists()


def write_result(trial: Trial, *, diverged: bool) -> None:
    """Write the result of a trial that is complete or has diverged: from then on it is not made again."""
    scalars = last_scalars(read_jsonl(trial.folder / "metrics.jsonl"))
    result = {"overrides": dict(trial.overrides), "diverged": diverged, "scalars": scalars}
    write_atomically(trial.folder / RESULT, json.dumps({"run": trial.folder.name, **result}, indent=1) + "\n")


def results_table(rows: Sequence[Mapping[str, Any]], *, markdown: bool = False) -> str:
    """Lay out a row for each set of overrides, the best first: mean and deviation (n − 1) over seeds, without what diverged.

    >>> def row(t, seed, loss):
    ...     return {"overrides": {"method.t": t, "seed": seed}, "diverged": False, "scalars": {"loss": loss}}
    >>> print(results_table([row(0.1, 0, 3.0), row(0.1, 1, 5.0), row(0.2, 0, 2.0), row(0.2, 1, 2.0)]))
    method.t         loss  runs  diverged
    0.2       2.00 ± 0.00     2         0
    0.1       4.00 ± 1.41     2         0
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        overrides = {path: value for path, value in row["overrides"].items() if path != SEED}
        groups.setdefault(json.dumps(overrides), []).append(row)
    names = [name for name in COLUMNS if any(name in row["scalars"] for row in rows)]
    lines = []
    for key, group in groups.items():
        # Options as one types them: a rate of 0.003 is not 0.00.
        cells: dict[str, Any] = {name: json.dumps(value) for name, value in json.loads(key).items()} or {
            "": "all"
        }
        complete = [row for row in group if not row["diverged"]]
        for name in names:
            heading, factor = COLUMNS[name]
            values = [
                factor * row["scalars"][name] for row in complete if row["scalars"].get(name) is not None
            ]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            mean = float(np.mean(values)) if values else None
            cells[heading] = mean if spread is None else (mean, spread)
        lines.append(cells | {"runs": len(group), "diverged": len(group) - len(complete)})
    heading, sign = (COLUMNS[names[0]][0], 1 if names[0] == "loss" else -1) if names else ("runs", 1)

    def order(cells: Mapping[str, Any]) -> float:
        value = cells[heading][0] if isinstance(cells[heading], tuple) else cells[heading]
        return np.inf if value is None else sign * value

    return table(sorted(lines, key=order), markdown=markdown, digits=2)
