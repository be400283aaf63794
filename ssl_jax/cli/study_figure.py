"""The figure of a study: the published numbers, ours with error bars, and curves of the runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot

from ssl_jax.cli.study import OF_UNTRAINED, Results, Study, Variant, untrained

COLORS = (
    "#4269d0",
    "#e8743b",
    "#3ca951",
    "#b3367e",
    "#9c6b4e",
    "#6cc5b0",
    "#8a6fd1",
    "#e0a100",
    "#5d6b7a",
    "#c0392b",
)
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "ssl_jax",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}
WIDTH = 10.0


def draw_study(study: Study, results: Results, path: Path) -> Path:
    """Draw a study into an SVG file.

    Args:
      study: The study.
      results: Its measurements by variant.
      path: Path of the file.

    Returns:
      ``path``.
    """
    rows = [variant for variant in study.variants if variant.name in results]
    bars = [variant for variant in rows if not variant.line]
    panels: list[Callable[[Any], None]] = []
    by_layer = [f"{name}_linear" for name in study.layers]
    for part in filter(None, (bars, [variant for variant in rows if variant.line])):
        part_bars = bars if part is bars else []
        if any(v.published is not None for v in part):
            panels.append(lambda axes, p=part, b=part_bars: _published(axes, study, p, b))  # type: ignore[misc]
        for heading, name in study.columns.items():
            measured = name in (*OF_UNTRAINED, "classifier") or name.endswith(("_knn", "_linear"))
            if measured and name not in by_layer:
                panels.append(
                    lambda axes, p=part, b=part_bars, h=heading, n=name: _ours(
                        axes, study, results, p, b, h, n
                    )  # type: ignore[misc]
                )
    curves = [lambda axes, c=c: _curves(axes, results, rows, *c) for c in study.curves]
    spectra = [lambda axes, s=s: _spectra(axes, results, rows, *s) for s in study.spectra]
    layers = [lambda axes: _layers(axes, study, results, rows)] if study.layers else []
    panels += [*curves, *spectra, *layers]
    height = max(2.6, 0.9 + 0.3 * len(bars))
    with pyplot.rc_context(STYLE):
        count = len(panels)
        across = min(count, 3)
        down = -(-count // across)
        figure, grid = pyplot.subplots(down, across, figsize=(WIDTH, height * down), squeeze=False)
        cells = list(grid.flat)
        for axes, panel in zip(cells, panels, strict=False):
            panel(axes)
        for axes in cells[count:]:
            axes.axis("off")
        if curves or spectra or layers or any(v.line for v in rows):
            handles, labels = cells[count - 1].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
    return path


def _published(axes: Any, study: Study, rows: Sequence[Variant], bars: Sequence[Variant]) -> None:
    axes.set_title(study.published_as, fontsize=9)
    if bars:
        published = [variant for variant in bars if variant.published is not None]
        positions = [bars.index(variant) for variant in published]
        axes.barh(positions, [variant.published for variant in published], color="#b9bec5", height=0.6)
        for position, variant in zip(positions, published, strict=True):
            axes.text(variant.published, position, f" {variant.published:g}", va="center", fontsize=8)
        axes.set_xmargin(0.15)
        _names(axes, bars)
        return
    for color, (line, variants) in zip(COLORS, _lines(rows).items(), strict=False):
        published = [variant for variant in variants if variant.published is not None]
        if published:
            axes.plot(
                [v.x for v in published],
                [v.published for v in published],
                "o--",
                color=color,
                label=line,
                ms=4,
            )
    _ticks(axes, study, rows)


def _ours(
    axes: Any,
    study: Study,
    results: Results,
    rows: Sequence[Variant],
    bars: Sequence[Variant],
    heading: str,
    name: str,
) -> None:
    compared = name in OF_UNTRAINED
    axes.set_title(f"ours: {heading} in %{' (dotted: before training)' if compared else ''}", fontsize=9)
    if compared:
        axes_line = axes.axvline if bars else axes.axhline
        for initial in untrained(results).values():
            axes_line(initial.mean(f"random_{name}"), color="#8a8f98", lw=1, ls=":")
    if bars:
        means = [results[variant.name].mean(name) for variant in bars]
        spreads = [results[variant.name].spread(name) for variant in bars]
        colors = [COLORS[i % len(COLORS)] for i in range(len(bars))]
        axes.errorbar(means, range(len(bars)), xerr=spreads, fmt="none", ecolor="#30343b", capsize=3, lw=1)
        axes.scatter(means, range(len(bars)), c=colors, s=28, zorder=3)
        _names(axes, bars)
        return
    for color, (line, variants) in zip(COLORS, _lines(rows).items(), strict=False):
        measured = [results[variant.name] for variant in variants]
        axes.errorbar(
            [variant.x for variant in variants],
            [m.mean(name) for m in measured],
            yerr=[m.spread(name) for m in measured],
            fmt="o-",
            color=color,
            label=line,
            capsize=3,
            ms=4,
        )
    _ticks(axes, study, rows)


def _lines(rows: Sequence[Variant]) -> dict[str, list[Variant]]:
    lines: dict[str, list[Variant]] = {}
    for variant in rows:
        lines.setdefault(variant.line, []).append(variant)
    return lines


def _names(axes: Any, bars: Sequence[Variant]) -> None:
    axes.set_yticks(
        range(len(bars)), [variant.name for variant in bars] if axes.get_subplotspec().is_first_col() else []
    )
    axes.set_ylim(len(bars) - 0.4, -0.6)


def _ticks(axes: Any, study: Study, rows: Sequence[Variant]) -> None:
    if study.x_scale == "log":
        axes.set_xscale("log", base=2)
    positions = sorted({variant.x for variant in rows})
    axes.set_xticks(positions, [f"{x:g}" for x in positions])
    axes.set_xlabel(study.x_label)


def _curves(axes: Any, results: Results, rows: Sequence[Variant], name: str, heading: str) -> None:
    axes.set_title(heading, fontsize=9)
    axes.set_xlabel("step")
    for i, variant in enumerate(rows):
        seeds = [row for row in results[variant.name].rows if name in row["curves"]]
        if not seeds:
            continue
        steps = np.array(seeds[0]["curves"]["step"])
        values = np.array([row["curves"][name] for row in seeds])
        color = COLORS[i % len(COLORS)]
        axes.plot(
            steps,
            values.mean(axis=0),
            color=color,
            lw=1.4,
            label=variant.name,
            ls="-" if i < len(COLORS) else "--",
        )
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, lw=0)


def _spectra(axes: Any, results: Results, rows: Sequence[Variant], name: str, heading: str) -> None:
    axes.set_title(heading, fontsize=9)
    axes.set_xlabel("index of the eigenvalue")
    axes.set_ylabel("log10 of its share of the largest", fontsize=8)
    for i, variant in enumerate(rows):
        values = np.array([row["spectra"][name] for row in results[variant.name].rows])
        color, line = COLORS[i % len(COLORS)], "-" if i < len(COLORS) else "--"
        axes.plot(
            1 + np.arange(values.shape[1]), values.mean(axis=0), line, color=color, lw=1.4, label=variant.name
        )


def _layers(axes: Any, study: Study, results: Results, rows: Sequence[Variant]) -> None:
    axes.set_title("ours: linear in % by layer (dotted: before training)", fontsize=9)
    axes.set_xlabel("layer")
    axes.set_xticks(range(1, 1 + len(study.layers)))
    complete = [results[v.name] for v in rows if results[v.name].has(f"{study.layers[-1]}_linear")]
    random = untrained({str(i): measured for i, measured in enumerate(complete)})["random encoder"]
    values = [random.mean(f"random_{name}_linear") for name in study.layers]
    axes.plot(range(1, 1 + len(values)), values, color="#8a8f98", lw=1, ls=":")
    for i, variant in enumerate(rows):
        measured = results[variant.name]
        names = [f"{name}_linear" for name in study.layers if measured.has(f"{name}_linear")]
        axes.errorbar(
            range(1, 1 + len(names)),
            [measured.mean(name) for name in names],
            yerr=[measured.spread(name) for name in names],
            fmt="o-" if i < len(COLORS) else "o--",
            color=COLORS[i % len(COLORS)],
            label=variant.name,
            capsize=2,
            ms=3,
            lw=1.2,
        )
