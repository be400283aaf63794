"""Results as a table to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_jax.core import check

MISSING = "–"


def table(
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str] | None = None,
    digits: int = 1,
    markdown: bool = False,
) -> str:
    """Format rows of results as aligned text, or as a Markdown table.

    Args:
      rows: one mapping a row, from column to value: a number, a pair (mean, std) shown as ``mean ± std``,
        text, or ``None`` for nothing. Give accuracies in the unit to be shown, such as per cent.
      columns: which, and in what order; ``None``: every one in order of first appearance.
      digits: decimals of floats, 0 or more.
      markdown: with bars that Markdown understands.

    Returns:
      Lines joined by newlines, no newline at the end. The first column is flush left, the others flush right.

    Raises:
      ValueError: no row, or a column that no row has.

    >>> print(table([{"": "pixels", "kNN": 80.25}, {"": "SimCLR", "kNN": 87, "linear": (74.71, 0.5)}]))
             kNN      linear
    pixels  80.2           –
    SimCLR    87  74.7 ± 0.5
    """
    check.require(bool(rows), "rows", rows, "one row or more")
    present = list(dict.fromkeys(name for row in rows for name in row))
    columns = present if columns is None else list(columns)
    for column in columns:
        check.choice("columns", column, present)
    cells = [columns, *([_text(row.get(name), digits) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    aligned = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in cells
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in aligned)
    rule = [
        "-" * max(width, 3) if i == 0 else "-" * max(width - 1, 2) + ":" for i, width in enumerate(widths)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])


def _text(value: Any, digits: int) -> str:
    if value is None:
        return MISSING
    if isinstance(value, tuple):
        mean, std = value
        return f"{_text(mean, digits)} ± {_text(std, digits)}"
    return f"{value:.{digits}f}" if hasattr(value, "dtype") or isinstance(value, float) else str(value)
