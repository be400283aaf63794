"""Heat maps of how far features move when images are changed, and of what can be read off them."""

import html
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.core.table import MISSING
from ssl_jax.evaluate.invariance import CHANGES
from ssl_jax.report.page import Section, missing
from ssl_jax.report.pictures import heat

READ = (("invariance", "equivariance"), ("projector_invariance", "projector_equivariance"))
"""Keys of a row of an evaluation: of the encoder, and of its projector."""
UNITS = {"crop": "cut away", "color": "± factor", "blur": "σ / side", "rotation": "°", "noise": "σ"}


class HeatMap(NamedTuple):
    """Numbers by row and column.

    Attributes:
      rows: names of the encoders.
      columns: names of the columns, such as ``crop 0.1``.
      values: numbers ``[rows, columns]``; NaN where one is missing.
    """

    rows: list[str]
    columns: list[str]
    values: np.ndarray


def heat_map(rows: Sequence[tuple[str, Mapping[str, Any]]], key: str) -> HeatMap:
    """Collect the numbers of a measure as an array, rows and columns in order.

    Args:
      rows: names of encoders, and rows of their evaluations, such as those of ``evaluation.json``.
      key: ``invariance``, ``equivariance``, or those with ``projector_`` before; rows without it are left out.

    >>> made = heat_map([("a", {"invariance": {"crop 0.1": 0.5}}), ("pixels", {})], "invariance")
    >>> made.rows, made.columns, made.values.tolist()
    (['a'], ['crop 0.1'], [[0.5]])
    """
    measured = [(name, row[key]) for name, row in rows if row.get(key)]
    columns = list(dict.fromkeys(column for _, numbers in measured for column in numbers))
    values = [[float(numbers.get(column, np.nan)) for column in columns] for _, numbers in measured]
    return HeatMap([name for name, _ in measured], columns, np.reshape(values, (len(measured), len(columns))))


def named_rows(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """List the encoders that were measured, each followed by its projector, as rows of their own.

    >>> numbers = {"crop 0.1": 0.5}
    >>> [name for name, _ in named_rows([("simclr", {"invariance": numbers, "projector_invariance": numbers})])]
    ['simclr', 'simclr, projector']
    """
    named = []
    for name, row in rows:
        for (moved, read), what in zip(READ, ("", ", projector"), strict=True):
            if row.get(moved):
                named.append((f"{name}{what}", {"invariance": row[moved], "equivariance": row.get(read, {})}))
    return named


def invariance(rows: Sequence[tuple[str, Mapping[str, Any]]], *, workdir: str = "DIR") -> Section:
    """Show two tables whose cells are colored by their numbers: movement of features, and what can be read off them.

    Args:
      rows: names of encoders, and rows of their evaluations.
      workdir: folder of the run, for the command where nothing was measured.
    """
    title, named = "Invariance", named_rows(rows)
    if not named:
        command = f"python -m experiments.evaluate --workdir={shlex.quote(workdir)} --measures=invariance"
        return Section(title, missing("Not measured; this measures it, and only it:", command))
    lead = (
        "How far features move when an image is changed: 0 not at all, 1 as far as another image is. And how much of the "
        "variance of the change a linear readout explains on other images: 1 is all, 0 nothing. An encoder may move little "
        "and still tell: what cannot be read linearly may be there all the same."
    )
    captions = {
        "invariance": "Movement of the features, by change and strength",
        "equivariance": "R² of a linear readout of the change, by its parameter",
    }
    maps = {caption: heat_map(named, key) for key, caption in captions.items()}
    tables = [_heated(made, caption) for caption, made in maps.items() if made.rows]
    return Section(title, "".join(tables), lead)


def _heated(made: HeatMap, caption: str) -> str:
    """A table with a heading for each change above those of its columns."""
    changes = [column.split(" ")[0] for column in made.columns]
    spans = [(name, changes.count(name)) for name in dict.fromkeys(changes)]
    above = "".join(
        f'<th scope="colgroup" colspan="{span}">{html.escape(_heading(name, made.columns))}</th>'
        for name, span in spans
    )
    below = "".join(f'<th scope="col">{html.escape(_short(column))}</th>' for column in made.columns)
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(_cell(value) for value in values)}</tr>'
        for name, values in zip(made.rows, made.values, strict=True)
    )
    return (
        f'<p class="caption">{html.escape(caption)}</p>'
        f'<div class="scroll heated" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table>'
        f'<thead><tr><th rowspan="2" scope="col">encoder</th>{above}</tr><tr>{below}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _heading(change: str, columns: Sequence[str]) -> str:
    """Name a change, with the unit of its strengths where the columns are strengths."""
    strengths = (
        {f"{change} {strength:g}" for strength in CHANGES[change].strengths} if change in CHANGES else set()
    )
    return f"{change}, {UNITS[change]}" if strengths & set(columns) else change


def _short(column: str) -> str:
    """The part of a column's name behind the change, numbers with two digits."""
    _, _, text = column.partition(" ")
    try:
        return f"{float(text):.2g}"
    except ValueError:
        return text


def _cell(value: float) -> str:
    if not np.isfinite(value):
        return f"<td>{MISSING}</td>"
    text = f"{round(value, 2) + 0.0:.2f}"  # no minus before 0.00
    return f'<td style="--v:{min(max(value, 0.0), 1.0):.3f}">{text}</td>'


def paint_heat_map(values: Float[np.ndarray, "r c"], *, size: int = 24) -> Shaped[np.ndarray, "h w 3"]:
    """Draw numbers in [0, 1] as squares, dark for 0 to light for 1, uint8: the table as a picture.

    Args:
      values: numbers; others are drawn as the nearest end, missing ones dark.
      size: side of a square, pixels.

    >>> paint_heat_map(np.array([[0.0, 1.0]]), size=2).shape
    (2, 4, 3)
    """
    squares = np.repeat(np.repeat(np.nan_to_num(values, nan=0.0), size, axis=0), size, axis=1)
    return heat(squares, low=0.0, high=1.0)
