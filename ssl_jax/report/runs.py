"""A run as it lies in its folder, read for a report: whatever is there, and what is missing."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_jax.core.bucket import to_path
from ssl_jax.train.checkpoint import steps
from ssl_jax.train.workdir import INCIDENTAL, read_config
from ssl_jax.train.writers import read_jsonl

REPEATED = ("seed", *INCIDENTAL)
"""Parts of a config that do not make it another experiment."""


class Run(NamedTuple):
    """Content of a workdir.

    Attributes:
      workdir: folder of the run.
      name: short name, unique in a report.
      config: config as a nested dict.
      records: one dict a line of ``metrics.jsonl``, ``step`` and scalars (``None``: not finite); [] if there is none.
      warnings: one dict a line of ``warnings.jsonl``, ``step``, ``kind``, ``message``; [] if there is none.
      evaluation: content of the file of ``experiments.evaluate``, or ``None``.
      checkpoints: steps that were saved.
    """

    workdir: Path
    name: str
    config: dict[str, Any]
    records: list[dict[str, Any]]
    warnings: list[dict[str, Any]]
    evaluation: dict[str, Any] | None
    checkpoints: Sequence[int] = ()

    @property
    def method(self) -> str:
        """Name of the method, as the config has it."""
        return str(self.config.get("method", {}).get("name", "unknown"))

    @property
    def step(self) -> int:
        """Last step that left a record or a checkpoint, 0 if there is none."""
        return max((*(int(record["step"]) for record in self.records), *self.checkpoints), default=0)


def read_run(workdir: str | os.PathLike[str], *, name: str = "") -> Run:
    """Read a workdir.

    Args:
      workdir: folder of ``experiments.pretrain``, finished or still going.
      name: name in the report; "": the folder's name.

    Raises:
      ValueError: no run in the folder, or a file that cannot be read.
    """
    folder = to_path(workdir)
    config = read_config(folder)
    file = folder / "evaluation.json"
    try:
        evaluation = json.loads(file.read_text()) if file.exists() else None
        lines = {name: _lines(folder / name) for name in ("metrics.jsonl", "warnings.jsonl")}
    except ValueError as error:
        raise ValueError(f"a file in {folder} cannot be read ({error})") from error
    records = sorted(lines["metrics.jsonl"], key=lambda record: record["step"])
    label = name or folder.resolve().name
    saved = steps(folder / "checkpoints")
    return Run(folder, label, config, records, lines["warnings.jsonl"], evaluation, saved)


def unique_names(workdirs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Find the shortest ends of paths that tell the folders apart.

    >>> unique_names(["runs/a/0", "runs/b/0", "runs/c"])
    ['a/0', 'b/0', 'c']
    """
    paths = [to_path(workdir).absolute().parts for workdir in workdirs]
    names = []
    for parts in paths:
        for depth in range(1, len(parts) + 1):
            if sum(other[-depth:] == parts[-depth:] for other in paths) == 1 or depth == len(parts):
                names.append("/".join(parts[-depth:]))
                break
    return names


def scalars(run: Run) -> list[str]:
    """List the names of what the run logged, in order of first appearance."""
    return list(dict.fromkeys(name for record in run.records for name in record if name != "step"))


def curve(run: Run, name: str) -> tuple[list[int], list[float | None]]:
    """Read the steps and values of a scalar; ``None`` where it was not finite.

    >>> run = Run(Path("a"), "a", {}, [{"step": 1, "loss": 2.0}, {"step": 2, "online/knn": 0.5}], [], None)
    >>> curve(run, "loss")
    ([1], [2.0])
    """
    points = [(int(record["step"]), record[name]) for record in run.records if name in record]
    return [step for step, _ in points], [value for _, value in points]


def leaves(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Flatten a config to one level, keys joined by dots.

    >>> leaves({"optimizer": {"name": "sgd"}, "steps": 3})
    {'optimizer.name': 'sgd', 'steps': 3}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{path}.{key}" if path else str(key)
        flat |= leaves(value, name) if isinstance(value, Mapping) and value else {name: value}
    return flat


ABSENT = "–"


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Find the options in which configs differ: path to one value a config, ``–`` where it has none.

    >>> config_differences([{"seed": 0, "steps": 5}, {"seed": 1, "steps": 5, "host": {"data": 2}}])
    {'seed': [0, 1], 'host.data': ['–', 2]}
    """
    flat = [leaves(config) for config in configs]
    paths = dict.fromkeys(path for one in flat for path in one)
    rows = {path: [one.get(path, ABSENT) for one in flat] for path in paths}
    return {path: row for path, row in rows.items() if any(_differ(value, row[0]) for value in row[1:])}


def groups(runs: Sequence[Run]) -> list[list[int]]:
    """Group runs that are repetitions: indices of those whose configs differ in the seed and in incidentals only.

    >>> runs = [Run(Path("a"), "a", {"seed": s, "steps": n}, [], [], None) for s, n in ((0, 5), (1, 5), (0, 9))]
    >>> groups(runs)
    [[0, 1], [2]]
    """
    members: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        flat = {
            path: value
            for path, value in leaves(run.config).items()
            if not any(path == part or path.startswith(f"{part}.") for part in REPEATED)
        }
        members.setdefault(json.dumps(flat, sort_keys=True, default=str), []).append(i)
    return list(members.values())


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.exists() else []


def _differ(first: Any, second: Any) -> bool:
    return first != second or isinstance(first, bool) != isinstance(second, bool)
