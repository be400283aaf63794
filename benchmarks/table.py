"""The rows of all benchmarks as one table: ``python -m benchmarks.table``. Nothing in it is typed by hand."""

import ast
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_jax.core.rows import read_rows

RESULTS = Path(__file__).parent.parent / "results/benchmarks.jsonl"
HEAD = ("benchmark", "what you gain", "against", "measured (quartiles)", "target", "met")


def number(value: float, unit: str) -> str:
    """A number with its unit, three significant digits.

    >>> number(1.2345, "x"), number(0.0712, "share"), number(12345.6, "images/s"), number(3.0, "MiB")
    ('1.23 x', '7.1 %', '12,346 images/s', '3 MiB')
    """
    if unit == "share":
        return f"{100 * value:.1f} %"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def measured(value: Mapping[str, float], unit: str) -> str:
    """Median with quartiles, or the value alone where there is one only.

    >>> measured({"median": 2.0, "low": 1.5, "high": 2.5, "count": 3}, "x")
    '2 x [1.5, 2.5]'
    """
    text = number(value["median"], unit)
    if value["count"] == 1:
        return text
    low, high = (number(value[name], unit).removesuffix(unit).strip() for name in ("low", "high"))
    return f"{text} [{low}, {high}]"


def target(bounds: Mapping[str, float] | None, unit: str) -> str:
    """What was aimed at.

    >>> target({"at_least": 0.65}, "x"), target({"at_most": 0.1}, "share"), target(None, "s")
    ('≥ 0.65 x', '≤ 10.0 %', '')
    """
    signs = {"at_least": "≥", "at_most": "≤"}
    return ", ".join(f"{signs[kind]} {number(bound, unit)}" for kind, bound in (bounds or {}).items())


def met(value: Mapping[str, float], bounds: Mapping[str, float] | None) -> str:
    """``met`` or ``missed``, by the median; nothing without a target.

    >>> met({"median": 0.6}, {"at_least": 0.65}), met({"median": 0.6}, None)
    ('missed', '')
    """
    if not bounds:
        return ""
    median = value["median"]
    within = bounds.get("at_least", median) <= median <= bounds.get("at_most", median)
    return "met" if within else "missed"


@functools.cache
def gains(benchmark: str) -> Mapping[str, str]:
    """Read ``GAINS`` of a benchmark's module: what the user gains, by a part of a row's name. Nothing is imported.

    Args:
      benchmark: name of the module; after a colon may stand the name of a part of it.

    >>> gains("loop")["loop"].startswith("training costs")
    True
    """
    source = Path(__file__).with_name(f"{benchmark.partition(':')[0]}.py")
    if not source.exists():
        return {}
    for statement in ast.parse(source.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "GAINS":
            return ast.literal_eval(statement.value)
    return {}


def gain(benchmark: str, name: str) -> str:
    """Say what the user gains by what a row measures: the text of the longest key of ``GAINS`` that its name contains.

    >>> gain("compile", "(e) byol: start with the cache") == gains("compile")["start with the cache"]
    True
    >>> gain("no such benchmark", "a")
    ''
    """
    texts = gains(benchmark)
    fitting = [key for key in texts if key in name]
    return texts[max(fitting, key=len)] if fitting else ""


def cells(measurement: Mapping[str, Any], benchmark: str = "") -> tuple[str, ...]:
    """Write a measurement in the order of ``HEAD``."""
    return (
        measurement["name"],
        gain(benchmark, measurement["name"]),
        measurement["against"],
        measured(measurement["value"], measurement["unit"]),
        target(measurement["target"], measurement["unit"]),
        met(measurement["value"], measurement["target"]),
    )


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Tabulate one benchmark, in the order of ``HEAD``."""
    return [cells(m, result["benchmark"]) for m in result["measurements"]]


def head_lines() -> list[str]:
    """The first two lines of the table in Markdown."""
    return ["| " + " | ".join(HEAD) + " |", "|---|---|---|---:|---:|---|"]


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """The lines of one benchmark in Markdown."""
    return ["| " + " | ".join(row) + " |" for row in rows(result)]


def where(result: Mapping[str, Any]) -> str:
    """One line: the command, the hardware class, the versions, the date and the load at the start."""
    machine = result["machine"]
    device = machine.get("accelerator") or f"{machine['cores']} cores of {machine['cpu']}"
    names = ("jax", "torch", "torchvision", "scikit-learn")
    versions = ", ".join(f"{n} {result['versions'][n]}" for n in names if n in result["versions"])
    load = result["load_average"][0]
    return f"`{result['command']}`: {device}; {versions}; {result['date']}; load {load:g}."


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """All results in one table, and below it one line a result that says where it was measured.

    Quick runs are left out: their numbers mean nothing.
    """
    real = [result for result in results if not result["quick"]]
    lines = head_lines() + [line for result in real for line in lines_of(result)]
    return "\n".join([*lines, "", *(f"- {where(result)}" for result in real)])


if __name__ == "__main__":
    print(markdown(read_rows(RESULTS)))
