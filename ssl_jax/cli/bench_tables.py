"""Tables of the bench on natural images: one a kind of encoder, ranks with their uncertainty, and what it all took."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_jax.cli.tables import cells, conditions, group_rows, is_transformer, mean_cells
from ssl_jax.core.rows import Row
from ssl_jax.core.table import table
from ssl_jax.evaluate.measure import BASELINE
from ssl_jax.evaluate.ranks import Ranking, rank_groups

COLUMNS = (
    "kNN",
    "linear",
    "linear, 1 a class",
    "linear, 10 a class",
    "linear, 100 a class",
    "fine-tuned, 1 %",
    "fine-tuned, 10 %",
    "rank by linear",
    "seeds",
    "epochs",
    "core-minutes",
)
KINDS = {"convolutional": False, "ViT": True}
"""Kinds of encoders, each with a table of its own, and whether they are transformers."""


def bench_table(results: Sequence[Row], kind: str, *, markdown: bool = False) -> str:
    """Tabulate the runs with one kind of encoder, the best by the linear probe first, below the baselines.

    Args:
      results: Rows of one dataset and budget.
      kind: Of :data:`KINDS`.
      markdown: Whether the table is in Markdown.

    Returns:
      Table, which differences count, and how it was made; a sentence that there is nothing if there is no row.
    """
    chosen: list[Row] = []
    others: list[Row] = []
    for row in results:
        (chosen if is_transformer(row["config"]) == KINDS[kind] else others).append(row)
    if not chosen:
        return "not measured yet"
    groups = group_rows(chosen)
    # Pixels belong to the images, whichever run measured them.
    groups |= {
        name: rows
        for name, rows in group_rows(others).items()
        if rows[0]["role"] == BASELINE and not name.startswith("random ")
    }
    baselines = sorted(name for name in groups if groups[name][0]["role"] == BASELINE)
    methods = [name for name in groups if name not in baselines]
    means = {name: mean_cells(groups[name]) for name in groups}
    methods.sort(key=lambda name: -_first(means[name].get("linear", 0.0)))
    ranking = _rank({name: groups[name] for name in methods})
    lines = []
    for name in baselines + methods:
        line = {"accuracy in %": name, **means[name]}
        if ranking is not None and name in ranking.intervals:
            best, worst = ranking.intervals[name]
            line["rank by linear"] = str(best) if best == worst else f"{best} to {worst}"
        lines.append(line)
    present = [column for column in COLUMNS if any(column in line for line in lines)]
    text = table(lines, columns=["accuracy in %", *present], markdown=markdown)
    below = "" if ranking is None else f"{_describe(ranking)}\n\n"
    return f"{text}\n\n{below}{conditions(chosen)}"


def _first(value: Any) -> float:
    return value[0] if isinstance(value, tuple) else value


def _rank(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> Ranking | None:
    values = {
        name: [_first(cells(row)["linear"]) for row in rows if "linear" in row]
        for name, rows in groups.items()
    }
    values = {name: accuracies for name, accuracies in values.items() if accuracies}
    if len(values) < 2 or max(map(len, values.values())) < 2:
        return None
    return rank_groups(values)


def _describe(ranking: Ranking) -> str:
    return (
        f"Ranks are those that the seeds allow (Tukey and Kramer, 95 % for all pairs together): two methods whose linear "
        f"accuracies differ by less than {ranking.difference:.1f} points are not told apart. A run's deviation over seeds is "
        f"{ranking.deviation:.2f} points, pooled over methods."
    )


def cost_table(results: Mapping[str, Sequence[Row]], *, markdown: bool = False) -> str:
    """Tabulate what tables took: runs and processor hours of training, evaluation, searches.

    Args:
      results: Rows by name, with their ``cpu_seconds``: a number, or numbers by part.
      markdown: Whether the table is in Markdown.

    >>> print(cost_table({"color32": [{"cpu_seconds": {"pretrain": 3600, "evaluate": 1800}}]}))
    what     runs  core-hours
    color32     1         1.5
    """
    if not results:
        return "nothing yet"
    lines = []
    for name, rows in results.items():
        spent = [row["cpu_seconds"] for row in rows]
        seconds = sum(sum(part.values()) if isinstance(part, Mapping) else part for part in spent)
        lines.append({"what": name, "runs": len(rows), "core-hours": seconds / 3600})
    return table(lines, markdown=markdown)
