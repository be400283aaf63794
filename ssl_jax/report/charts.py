"""Charts as SVG text: lines and dots with error bars. No library, no script; colours follow the page's variables."""

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.core import check

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 10, 38
DASHES = ("", "7 3", "2 3", "9 3 2 3")
COLORS = 10
"""Colours of the palette; series beyond it begin again."""


class Series(NamedTuple):
    """One line of a chart.

    Attributes:
      name: name in the legend.
      x: numbers ``[n]`` in rising order.
      y: numbers ``[n]``; one that is not finite is a gap.
      color: index into the palette; also chooses the dash.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0


class Dot(NamedTuple):
    """One row of a dot plot: ``value ± error``; an error of 0 draws no bar."""

    label: str
    value: float
    error: float = 0.0
    color: int = 0


def color_of(index: int) -> str:
    """Look up the CSS colour of a series; a negative index is gray, for what is only there to compare with.

    >>> color_of(12), color_of(-1)
    ('var(--c2,currentColor)', 'var(--soft,currentColor)')
    """
    if index < 0:
        return "var(--soft,currentColor)"
    return f"var(--c{index % COLORS},currentColor)"


def number(value: float) -> str:
    """Format a number for axes and captions: three digits, no needless zeros.

    >>> [number(x) for x in (0, 0.25, 1234567, 2.5e-05, 390)]
    ['0', '0.25', '1.23M', '2.5e-5', '390']
    """
    size = abs(value)
    if size == 0 or not math.isfinite(value):
        return "0" if size == 0 else str(value)
    if size >= 1e9 or size < 1e-3:
        mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for bound, letter in ((1e6, "M"), (1e4, "k")):
        if size >= bound:
            return f"{value / (1e6 if letter == 'M' else 1e3):.3g}{letter}"
    return f"{value:.4g}" if size >= 1000 else f"{value:.3g}"


def ticks(low: float, high: float, *, count: int = 5, log: bool = False) -> list[float]:
    """Choose round numbers in ``[low, high]``: 1, 2 or 5 times a power of ten; powers of ten on a log axis.

    Args:
      low: lower end, above 0 where ``log``.
      high: upper end, above ``low``.
      count: about how many numbers.
      log: whether the axis is logarithmic.

    >>> ticks(0.0, 1.0), ticks(1.0, 1000.0, log=True)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 10.0, 100.0, 1000.0])
    """
    if log:
        powers = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        inside = [p for p in powers if low * 0.999 <= p <= high * 1.001]
        if len(inside) >= 2:
            return inside[:: -(-len(inside) // count)]
        finer = [m * p for p in powers for m in (1, 2, 5) if low * 0.999 <= m * p <= high * 1.001]
        if len(finer) >= 2:
            return finer
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= 0.999 * rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(
    x: Sequence[float], y: Sequence[float], *, limit: int = 600
) -> tuple[list[float], list[float | None]]:
    """Thin a curve to at most about ``limit`` points that keep its peaks and gaps.

    Args:
      x: numbers ``[n]``.
      y: numbers ``[n]``.
      limit: number of points, 4 or more; a longer curve is cut into equal parts, of each of which the least and the greatest
        value stay, in their order.

    >>> thin(range(8), [0, 0, 9, 0, 0, -5, 0, 0], limit=4)
    ([0, 2, 4, 5], [0, 9, 0, -5])
    """
    check.require(limit >= 4, "limit", limit, "4 or more points")
    if len(x) <= limit:
        return list(x), list(y)
    values = np.asarray([math.nan if v is None else v for v in y], float)
    extremes: list[int] = []
    for part in np.array_split(np.arange(len(values)), limit // 2):
        finite = part[np.isfinite(values[part])]
        if len(finite) < len(part):
            extremes.append(int(part[~np.isfinite(values[part])][0]))
        if len(finite):
            extremes += [int(finite[np.argmin(values[finite])]), int(finite[np.argmax(values[finite])])]
    chosen = sorted(set(extremes))
    return [x[i] for i in chosen], [y[i] for i in chosen]


def line(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    reference: float | None = None,
    span: tuple[float, float] | None = None,
    from_zero: bool = False,
) -> str:
    """Draw a line chart.

    Args:
      series: lines; the same colour index may come twice, such as for seeds of one recipe.
      title: title that a screen reader says first; the visible caption is the caller's.
      x_label: label of the x axis, with unit.
      y_label: label of the y axis, with unit.
      log_x: whether the x axis is logarithmic; points at or below 0 are left out.
      log_y: whether the y axis is.
      reference: value to mark by a thin line, such as that of even directions.
      span: least and greatest x of the axis, so that charts beside each other agree; ``None``: those of the series.
      from_zero: whether the y axis starts at 0, for values that mean something by their ratio.

    Returns:
      ``<svg>``, as wide as its container.

    Raises:
      ValueError: no point that is finite, and above 0 on log axes.

    >>> svg = line([Series("loss", [0, 1, 2], [3.0, 2.0, 1.5])], title="loss")
    >>> svg.count("<path"), svg[:4]
    (1, '<svg')
    """
    points = [_finite(s, log_x, log_y) for s in series]
    flat = [p for runs in points for run in runs for p in run]
    check.require(
        bool(flat), "series", [s.name for s in series], "at least one finite point (above 0 on log axes)"
    )
    xs, ys = zip(*flat, strict=True)
    low, high = _padded(min(ys), max(ys), reference, log_y)
    low = min(low, 0.0) if from_zero and not log_y else low
    start, stop = span or (min(xs), max(xs))
    across = _Axis(start, stop, LEFT, WIDTH - RIGHT, log_x)
    up = _Axis(low, high, HEIGHT - BOTTOM, TOP, log_y)
    parts = [_frame(across, up, x_label, y_label)]
    if reference is not None:
        y = up(reference)
        parts.append(f'<line class="ref" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for curve, runs in zip(series, points, strict=True):
        parts.append(_curve(curve, runs, across, up))
    return _svg(HEIGHT, f"{title}. {'; '.join(map(describe, series))}", "".join(parts))


def describe(series: Series) -> str:
    """Describe a curve in words, for captions and screen readers.

    >>> describe(Series("loss", [0, 5, 9], [3.0, 1.0, 2.0]))
    'loss: from 3 to 2, least 1, greatest 3'
    """
    finite = [y for y in series.y if y is not None and math.isfinite(y)]
    if not finite:
        return f"{series.name}: nothing finite"
    ends = f"from {number(finite[0])} to {number(finite[-1])}"
    return f"{series.name}: {ends}, least {number(min(finite))}, greatest {number(max(finite))}"


def dots(rows: Sequence[Dot], *, title: str, x_label: str) -> str:
    """Draw values with error bars on an axis that is cut to where the values are: dots, since bars would have to start at 0.

    Args:
      rows: dots from top to bottom.
      title: title that a screen reader says first.
      x_label: label of the axis, with unit.

    Returns:
      ``<svg>``, as wide as its container.

    Raises:
      ValueError: no row.

    >>> dots([Dot("pixels", 83.2, 0.8), Dot("simclr", 84.5, 0.8, 1)], title="kNN", x_label="%").count("<circle")
    2
    """
    check.require(bool(rows), "rows", rows, "one row or more")
    left, step = 150, 26
    height = TOP + step * len(rows) + BOTTOM
    low, high = _padded(
        min(r.value - r.error for r in rows), max(r.value + r.error for r in rows), None, False
    )
    across = _Axis(low, high, left, WIDTH - RIGHT, False)
    base = height - BOTTOM
    parts = [_grid_x(across, TOP, base), _label(f"{(left + WIDTH) / 2:.0f}", height - 6, x_label, "middle")]
    for i, row in enumerate(rows):
        x, y, reach = (
            across(row.value),
            TOP + step * (i + 0.5),
            across(row.value + row.error) - across(row.value),
        )
        style = f'style="--k:{color_of(row.color)}"'
        if row.error:
            parts.append(f'<path class="bar" {style} d="M{x - reach:.1f} {y}H{x + reach:.1f}"/>')
        parts.append(f'<circle class="dot" {style} cx="{x:.1f}" cy="{y}" r="4.5"/>')
        parts.append(_label(str(left - 8), y + 4, _short(row.label, 20), "end"))
    description = "; ".join(f"{r.label} {r.value:.1f} ± {r.error:.1f}" for r in rows)
    return _svg(height, f"{title}. {description}", "".join(parts))


def legend(names: Sequence[tuple[str, int]]) -> str:
    """List names with the colour and dash of their lines, in HTML; nothing for fewer than two.

    >>> legend([("loss", 0)])
    ''
    """
    if len(names) < 2:
        return ""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 26 8" aria-hidden="true"><path class="line" d="M1 4H25" '
        f'style="{_stroke(color)}"/></svg>{html.escape(name)}</li>'
        for name, color in names
    )
    return f'<ul class="legend">{items}</ul>'


class _Axis:
    """Maps data to pixels."""

    def __init__(self, low: float, high: float, start: float, stop: float, log: bool) -> None:
        if high <= low:
            low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
        self.low, self.high, self.log = low, high, log
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self._start + (at - low) / (high - low) * (self._stop - self._start)

    def ticks(self) -> list[float]:
        return ticks(self.low, self.high, log=self.log)


def _finite(series: Series, log_x: bool, log_y: bool) -> list[list[tuple[float, float]]]:
    """Runs of drawable points; a gap in the data is a gap in the line."""
    xs, ys = thin(series.x, series.y)
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None or not math.isfinite(y) or (log_x and x <= 0) or (log_y and y <= 0):
            runs.append([])
        else:
            runs[-1].append((float(x), float(y)))
    return [run for run in runs if run]


def _padded(low: float, high: float, reference: float | None, log: bool) -> tuple[float, float]:
    if reference is not None:
        low, high = min(low, reference), max(high, reference)
    if log:
        return low / 1.15, high * 1.15
    # What hardly varies must not look as if it did.
    least = 0.02 * max(abs(low), abs(high))
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    room = 0.06 * (high - low) or 1e-6
    # A value that is never negative keeps an axis that is not.
    return (low - room if low < 0 or low - room > 0 else 0.0), high + room


def _curve(series: Series, runs: list[list[tuple[float, float]]], across: _Axis, up: _Axis) -> str:
    style = f'style="{_stroke(series.color)}"'
    steps = (
        "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in run) + ("h.01" if len(run) == 1 else "")
        for run in runs
    )
    dots_at = [(across(x), up(y)) for run in runs for x, y in run] if sum(map(len, runs)) <= 24 else []
    marks = "".join(
        f'<circle class="dot" style="--k:{color_of(series.color)}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>'
        for x, y in dots_at
    )
    return f'<path class="line" {style} d="{"".join(steps)}"><title>{html.escape(series.name)}</title></path>{marks}'


def _stroke(color: int) -> str:
    dash = DASHES[max(color, 0) % COLORS % len(DASHES)]
    return f"--k:{color_of(color)}" + (f";stroke-dasharray:{dash}" if dash else "")


def _frame(across: _Axis, up: _Axis, x_label: str, y_label: str) -> str:
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(t):.1f}" y2="{up(t):.1f}"/>'
        + _label(str(LEFT - 6), up(t) + 4, number(t), "end")
        for t in up.ticks()
    )
    labels = _label(f"{(LEFT + WIDTH - RIGHT) / 2:.0f}", HEIGHT - 5, x_label, "middle")
    if y_label:
        middle = (TOP + HEIGHT - BOTTOM) / 2
        labels += (
            f'<text class="unit" text-anchor="middle" transform="translate(11 {middle}) rotate(-90)">'
            f"{html.escape(y_label)}</text>"
        )
    return rows + _grid_x(across, TOP, HEIGHT - BOTTOM) + labels


def _grid_x(across: _Axis, top: float, base: float) -> str:
    return "".join(
        f'<line class="grid" x1="{across(t):.1f}" x2="{across(t):.1f}" y1="{top}" y2="{base}"/>'
        + _label(f"{across(t):.1f}", base + 15, number(t), "middle")
        for t in across.ticks()
    )


def _label(x: str, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _svg(height: float, description: str, inner: Any) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{html.escape(description)}" '
        f'fill="none" stroke-linejoin="round">{inner}</svg>'
    )
