"""The table of ``benchmarks.loader``, for the guide on data: one line a format and size of images."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.table import number, where

BENCHMARK = "loader"


def formats_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Tabulate images a second a core of each format, whole and reduced, beside PyTorch's, in Markdown.

    Args:
      results: rows of ``results/benchmarks.jsonl``; those of other benchmarks, and quick ones, are left out.

    >>> formats_table([])
    'not measured yet'
    """
    found = [row for row in results if row["benchmark"] == BENCHMARK and not row["quick"]]
    if not found:
        return "not measured yet"
    (result,) = found
    groups: dict[tuple[str, tuple[int, int]], dict[str, Mapping[str, Any]]] = {}
    for measurement in result["measurements"]:
        facts = measurement["facts"]
        key = (facts["format"], (facts["pixels"][0], facts["pixels"][1]))
        groups.setdefault(key, {})[facts["crop_on"]] = measurement
    lines = [
        "| format | JPEGs of | `host` | PyTorch | ratio | `host_reduced` | PyTorch | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (form, (height, width)), sides in groups.items():
        cells = [cell for crop_on in ("host", "host_reduced") for cell in _cells(sides[crop_on])]
        kilobytes = sides["host"]["facts"]["kilobytes"]
        lines.append(f"| {form} | {height} x {width}, {kilobytes:.0f} kB | {' | '.join(cells)} |")
    return "\n".join([*lines, "", where(result)])


def _cells(measurement: Mapping[str, Any]) -> list[str]:
    facts = measurement["facts"]
    speeds = [number(facts[side], "") for side in ("ours_per_second", "other_per_second")]
    return [*speeds, number(measurement["value"]["median"], "x")]
