"""The searches behind the recipes of the bench: the same few trials for every method, on training images only.

A search is ``experiments.sweep`` over the learning rate, each trial one pass over the training images.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssl_jax.cli.results import ELSEWHERE, TableRun, pretrain_command, run_command, run_config
from ssl_jax.config.find import import_config
from ssl_jax.core.rows import Row, read_rows, write_row
from ssl_jax.core.table import table

FACTORS = (1 / 3, 1, 3)
"""Learning rates of the trials, over that of the recipe of gray images."""
MEASURED = "online/knn"
"""What decides: kNN accuracy of held-back training images."""
MARGIN = 0.01
"""Points, as a share, by which another learning rate has to be better than the first one."""
PROBE = {"watch.online.bank": 10_000, "watch.online.queries": 3000}
"""Training images in the memory of the kNN, and asked."""
FILE = "searches.jsonl"


def search_key(row: Row) -> tuple[str, str]:
    """Identify a search."""
    return row["dataset"], row["method"]


def start_rate(method: str) -> float:
    """Read the learning rate around which a method is tuned: that of its recipe of gray images."""
    rate = import_config(method).RECIPES[ELSEWHERE.get(method, "fashion_mnist")].optimizer["learning_rate"]
    return float(rate)


def rates(method: str) -> list[float]:
    """List the learning rates of a method's trials, rounded to two digits.

    >>> rates("simclr")
    [0.001, 0.003, 0.009]
    """
    return [float(f"{factor * start_rate(method):.2g}") for factor in FACTORS]


def choose_rate(trials: Sequence[Mapping[str, Any]], start: float) -> float:
    """Choose the learning rate of a search: the best one, if it is better than the start by more than the margin.

    Args:
      trials: ``learning_rate`` and accuracy ``online/knn`` of each, ``None`` where it diverged.
      start: Learning rate of the recipe before.

    >>> choose_rate([{"learning_rate": 0.1, "online/knn": 0.45}, {"learning_rate": 0.3, "online/knn": 0.455}], 0.1)
    0.1
    >>> choose_rate([{"learning_rate": 0.1, "online/knn": None}, {"learning_rate": 0.3, "online/knn": 0.455}], 0.1)
    0.3
    """
    accuracy = {trial["learning_rate"]: trial[MEASURED] for trial in trials if trial[MEASURED] is not None}
    best = max(accuracy, key=lambda rate: accuracy[rate], default=start)
    return best if accuracy.get(best, 0.0) > accuracy.get(start, 0.0) + MARGIN else start


def is_searched(run: TableRun, folder: Path) -> bool:
    """Tell whether the search of a run's method is there."""
    return (run.table, run.method) in {search_key(row) for row in read_rows(folder / FILE)}


def make_search(run: TableRun, runs: Path, folder: Path, shares: list[list[int]]) -> str:
    """Make the trials of a method on a share of the cores, and store them.

    Args:
      run: Run of the table whose recipe is tuned.
      runs: Folder of the runs.
      folder: Folder of the rows.
      shares: Cores of the runs at a time.

    Returns:
      What was found, in words.

    Raises:
      ValueError: A trial failed for another reason than that it diverged.
    """
    share = shares.pop()
    try:
        workdir = runs / run.dataset / "searches" / run.method
        config = run_config(run)
        steps = max(config["data"]["num_examples"] // config["batch_size"], 1)
        changes = {"steps": steps, **PROBE}
        grid = ",".join(map(str, rates(run.method)))
        command = [
            "sweep",
            *pretrain_command(run, workdir)[1:],
            *(f"--config.{name}={value}" for name, value in changes.items()),
            f"--grid=optimizer.learning_rate={grid}",
            "--mode=processes",
        ]
        spent = run_command(command, share, workdir)
    finally:
        shares.append(share)
    trials = [
        {
            "learning_rate": trial["overrides"]["optimizer.learning_rate"],
            MEASURED: None if trial["diverged"] else trial["scalars"][MEASURED],
        }
        for trial in json.loads((workdir / "sweep.json").read_text())
    ]
    start = rates(run.method)[FACTORS.index(1)]
    chosen = choose_rate(trials, start)
    row = {
        "dataset": run.table,
        "method": run.method,
        "encoder": config["encoder"]["name"],
        "start": start,
        "chosen": chosen,
        "steps": steps,
        "batch_size": config["batch_size"],
        "trials": trials,
        "command": f"python -m experiments.{' '.join(command)}",
        "date": datetime.now(UTC).date().isoformat(),
        "cpu_seconds": spent,
    }
    write_row(folder / FILE, row, search_key)
    found = ", ".join(
        f"{trial['learning_rate']:g} {'diverged' if trial[MEASURED] is None else format(trial[MEASURED], '.1%')}"
        for trial in trials
    )
    return f"{run.method}: {found}; chosen {chosen:g}; {spent:.0f} CPU seconds"


def searches_table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate searches: the accuracy that each learning rate reached, over that of the start, and which was taken.

    Args:
      rows: Searches.
      markdown: Whether the table is in Markdown.

    Returns:
      The table; a sentence that there is nothing if there is no row.
    """
    if not rows:
        return "not searched yet"
    lines = []
    for row in rows:
        cells = {
            f"rate x {factor:.2g}": "diverged" if trial[MEASURED] is None else 100 * trial[MEASURED]
            for factor, trial in zip(FACTORS, row["trials"], strict=True)
        }
        lines.append(
            {
                "kNN of training images in %": f"{row['method']}, `{row['dataset']}`",
                **cells,
                "rate before": f"{row['start']:g}",
                "taken": f"{row['chosen']:g}",
                "steps a trial": row["steps"],
                "core-minutes": row["cpu_seconds"] / 60,
            }
        )
    return table(lines, markdown=markdown)
