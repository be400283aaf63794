"""Draws the figures of the docs that no study makes: ``python -m docs.figures``.

* ``docs/images/results.svg``: the methods beside their untrained encoders, from ``results/fashion_mnist.jsonl``;
* ``docs/images/<dataset>.svg``: accuracy against compute on the bench, from ``results/<dataset>.jsonl``;
* ``docs/images/invariance.svg``: how far features move when images are changed, from ``results/invariance.jsonl``;
* ``docs/images/step.svg``: the way of the data through one training step.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from ssl_jax.cli.bench_tables import KINDS
from ssl_jax.cli.invariance import mean_maps
from ssl_jax.cli.results import BENCHES, TEACHERS
from ssl_jax.cli.study_figure import COLORS, STYLE
from ssl_jax.cli.tables import encoder_name, is_transformer
from ssl_jax.core.rows import Row, read_rows
from ssl_jax.evaluate.measure import BASELINE
from ssl_jax.methods.registry import names

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results/fashion_mnist.jsonl"
IMAGES = Path(__file__).parent / "images"
LOWEST = 68
"""Where the axis of accuracies begins; what lies below is written as a number."""

Accuracies = dict[str, dict[int, float]]


def linear_accuracies(path: Path) -> tuple[Accuracies, Accuracies, dict[str, str]]:
    """Read linear-probe accuracies in %, by seed: of methods, of baselines, and each method's untrained encoder by name."""
    methods: Accuracies = defaultdict(dict)
    baselines: Accuracies = defaultdict(dict)
    untrained = {}
    for result in read_rows(path):
        random = f"random {encoder_name(result['config'])}"
        for row in result["evaluation"]["rows"]:
            if "linear" not in row:
                continue
            if row["role"] == BASELINE:
                name = random if row["features"] == "random encoder" else row["features"]
                baselines[name][result["seed"]] = 100 * row["linear"]
            else:
                methods[result["method"]][result["seed"]] = 100 * row["linear"]
                untrained[result["method"]] = random
    return methods, baselines, untrained


def draw_results(path: Path = IMAGES / "results.svg") -> Path:
    """Draw the linear accuracy of every method, by family, above that of the same encoder without training."""
    methods, baselines, untrained = linear_accuracies(RESULTS)
    families: dict[str, list[str]] = defaultdict(list)
    for name, module in names().items():
        if name in methods and untrained[name] in baselines:
            families[module.split(".")[2]].append(name)
    mean = {name: float(np.mean(list(seeds.values()))) for name, seeds in (methods | baselines).items()}
    order = sorted(families, key=lambda family: -max(mean[name] for name in families[family]))
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(10, 4.4))
        position, ticks, labels = 0.0, [], []
        for family, color in zip(order, COLORS * 2, strict=False):
            members = sorted(families[family], key=lambda name: -mean[name])
            for name in members:
                before, after = mean[untrained[name]], mean[name]
                axes.plot([position] * 2, [max(before, LOWEST), after], color=color, linewidth=1, alpha=0.5)
                axes.plot([position] * len(methods[name]), list(methods[name].values()), ".", color=color)
                if before >= LOWEST:
                    axes.plot(position, before, "o", color=color, markerfacecolor="white", markersize=5)
                else:
                    axes.text(position, LOWEST, f"{before:.0f}", ha="center", va="bottom", fontsize=7)
                ticks.append(position)
                labels.append(name)
                position += 1
            axes.annotate(
                family.replace("_", " "),
                (position - len(members) / 2 - 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                rotation=30,
                color=color,
                ha="left",
                va="bottom",
            )
            position += 0.8
        axes.axhline(mean["raw pixels"], color="#888888", linewidth=1, linestyle="--", zorder=0)
        axes.text(
            position - 1,
            mean["raw pixels"],
            "raw pixels",
            ha="left",
            va="bottom",
            color="#666666",
            fontsize=8,
        )
        axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
        axes.set_xlim(-1, position + 3)
        axes.set_ylim(LOWEST - 0.5, None)
        axes.set_ylabel("linear probe, accuracy in %")
        axes.grid(axis="y", alpha=0.25)
        save(figure, path)
    return path


def draw_bench(dataset: str, folder: Path = IMAGES) -> Path:
    """Draw the linear accuracy of every method of the bench against the processor time of its training.

    A panel for each kind of encoder, a color for each family; named are the methods that no cheaper one surpasses, the
    supervised one aside. Hollow and named: methods whose teacher was trained before, in time that is not counted.
    """
    rows = [row for row in read_rows(ROOT / f"results/{dataset}.jsonl") if row["budget"] == "short"]
    panels = {
        kind: chosen
        for kind, transformer in KINDS.items()
        if (chosen := [row for row in rows if is_transformer(row["config"]) == transformer])
    }
    families = sorted({names()[row["method"]].split(".")[2] for row in rows})
    looks = dict(zip(families, [(color, mark) for mark in "os" for color in COLORS], strict=False))
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(
            1, max(len(panels), 1), figsize=(10, 4.4), sharey=True, squeeze=False, layout="constrained"
        )
        labels = {}
        for axes, (kind, chosen) in zip(grid[0], panels.items(), strict=False):
            labels[axes] = draw_compute(axes, chosen, looks)
            axes.set_title(f"{kind} encoders", fontsize=10)
        grid[0, 0].set_ylabel("linear probe, accuracy in %")
        handles = [Line2D([], [], marker=mark, linestyle="", color=color) for color, mark in looks.values()]
        words = [family.replace("_", " ") for family in families]
        figure.legend(handles, words, loc="outside lower center", ncols=6, fontsize=8)
        figure.draw_without_rendering()  # places the axes
        for axes, named in labels.items():
            write_names(axes, named)
        save(figure, folder / f"{dataset}.svg")
    return folder / f"{dataset}.svg"


def draw_compute(
    axes: Axes, rows: Sequence[Row], looks: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[float, float, str]]:
    """Draw accuracy against processor time for the runs of one kind of encoder; give the points to be named."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    untrained = []
    for result in rows:
        for row in result["evaluation"]["rows"]:
            if row["features"] == "random encoder" and result["method"] in ("simclr", "mae"):
                untrained.append(100 * row["linear"])
            elif row["role"] != BASELINE:
                minutes = result["cpu_seconds"]["pretrain"] / 60
                points[result["method"]].append((minutes, 100 * row["linear"]))
    means = {name: np.mean(values, axis=0) for name, values in points.items()}
    shown = {}
    for name, (minutes, accuracy) in means.items():
        color, mark = looks[names()[name].split(".")[2]]
        seeds = np.array(points[name])[:, 1]
        axes.plot([minutes] * 2, [seeds.min(), seeds.max()], color=color, alpha=0.5)
        filled = "white" if name in TEACHERS else color
        axes.plot(minutes, accuracy, mark, color=color, markerfacecolor=filled, markersize=5)
        rivals = (other for key, other in means.items() if key not in {"supervised", *TEACHERS})
        if (
            name in TEACHERS
            or name == "supervised"
            or all(other[0] >= minutes or other[1] < accuracy for other in rivals)
        ):
            shown[name] = color
    if untrained:
        axes.axhline(float(np.mean(untrained)), color="#888888", linewidth=1, linestyle="--", zorder=0)
        axes.text(
            0.99,
            float(np.mean(untrained)),
            "untrained",
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            color="#666666",
            ha="right",
            va="bottom",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("core-minutes of training")
    axes.grid(alpha=0.25)
    return {name: (*means[name], color) for name, color in shown.items()}


def write_names(axes: Axes, labels: Mapping[str, tuple[float, float, str]]) -> None:
    """Write names beside points `(x, y, color)`, each at the corner where it covers the fewest points and names."""
    points = np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() != "None"])
    taken = [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in axes.transData.transform(points)]
    for name, (x, y, color) in labels.items():
        corners = [
            axes.annotate(
                name,
                (x, y),
                (4 * right, 4 * up),
                textcoords="offset points",
                fontsize=8,
                color=color,
                ha="left" if right > 0 else "right",
                va="bottom" if up > 0 else "top",
            )
            for up in (1, -1)
            for right in (1, -1)
        ]
        boxes = [text.get_window_extent() for text in corners]
        inside = [axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) for box in boxes]
        best = min(range(4), key=lambda k: (not inside[k], boxes[k].count_overlaps(taken)))
        taken.append(boxes[best])
        for k, text in enumerate(corners):
            if k != best:
                text.remove()


def draw_invariance(
    path: Path = IMAGES / "invariance.svg", results: Path = ROOT / "results/invariance.jsonl"
) -> Path | None:
    """Draw how far features move and what can be read off them, an encoder a line; nothing where no row is there."""
    rows = read_rows(results)
    if not rows:
        return None
    maps = mean_maps([row for row in rows if row["source"] == rows[0]["source"]])
    height = 1.8 + 0.26 * len(maps["invariance"].rows)
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(1, 2, figsize=(12, height), sharey=True, layout="constrained")
        titles = ("movement of the features, by change and strength", "R² of a linear readout")
        for axes, made, title in zip(grid, maps.values(), titles, strict=True):
            axes.imshow(made.values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
            for row, column in np.ndindex(*made.values.shape):
                value = made.values[row, column]
                color = "white" if value > 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=color)
            axes.set_xticks(range(len(made.columns)), made.columns, rotation=90, fontsize=7)
            axes.set_yticks(range(len(made.rows)), made.rows, fontsize=7)
            axes.set_title(title, fontsize=9)
        save(figure, path)
    return path


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG; of the same numbers the same bytes."""
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


BOXES: Mapping[str, tuple[float, float, str, str]] = {
    "source": (0.2, 2.6, "Source", "folder, tfds, parquet,\nframes, arrays"),
    "stream": (2.6, 2.6, "stream", "a function of (seed, step);\nworkers decode and crop"),
    "batch": (5.0, 2.6, "batch", "image [b, h, w, c],\nlabel, index; sharded"),
    "views": (7.4, 2.6, "make_views", "one key an example:\nviews [b, v, s, s, c]"),
    "loss": (9.8, 2.6, "method.loss", "the paper's algorithm:\nloss, state, metrics"),
    "optimizer": (9.8, 0.5, "optimizer", "gradients to updates\nof the parameters"),
    "after": (7.4, 0.5, "after_update", "teachers move:\nEmaTeacher.update"),
    "state": (5.0, 0.5, "TrainState", "step, params, state,\noptimizer, key"),
    "watch": (2.6, 0.5, "watch", "log, health, probes:\nread, never write"),
    "disk": (0.2, 0.5, "workdir", "checkpoints, metrics,\nconfig"),
}
ARROWS = (
    ("source", "stream"),
    ("stream", "batch"),
    ("batch", "views"),
    ("views", "loss"),
    ("loss", "optimizer"),
    ("optimizer", "after"),
    ("after", "state"),
    ("state", "watch"),
    ("watch", "disk"),
)
SIZE = (2.0, 1.25)
STEP_COLOR, HOST_COLOR = COLORS[0], COLORS[8]
ON_DEVICE = ("views", "loss", "optimizer", "after", "state")


def draw_step(path: Path = IMAGES / "step.svg") -> Path:
    """Draw the way of the data through one step: what runs on the host, and what is one compiled program."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(10, 3.6))
        axes.set_axis_off()
        axes.set_xlim(0, 12)
        axes.set_ylim(0, 4.6)
        program = ((4.85, 0.3), (7.1, 1.65), (7.25, 2.4), (4.7, 1.65))
        for corner, size in zip(program[::2], program[1::2], strict=True):
            axes.add_patch(
                FancyBboxPatch(
                    corner, *size, boxstyle="round,pad=0.05", facecolor=STEP_COLOR, alpha=0.08, linewidth=0
                )
            )
        axes.text(9.6, 4.25, "one jitted program on all devices", color=STEP_COLOR, ha="center")
        for name, (x, y, title, text) in BOXES.items():
            color = STEP_COLOR if name in ON_DEVICE else HOST_COLOR
            axes.add_patch(
                FancyBboxPatch((x, y), *SIZE, boxstyle="round,pad=0.02", facecolor="white", edgecolor=color)
            )
            axes.text(x + 1, y + 0.98, title, ha="center", va="center", weight="bold", color=color)
            axes.text(x + 1, y + 0.42, text, ha="center", va="center", fontsize=8)
        for start, end in ARROWS:
            draw_arrow(axes, BOXES[start][:2], BOXES[end][:2])
        # The state of this step is what the next one reads.
        axes.annotate(
            "",
            (9.78, 2.9),
            (6.4, 1.8),
            arrowprops={"arrowstyle": "->", "linestyle": ":", "color": STEP_COLOR},
        )
        axes.text(6.6, 2.2, "next step", fontsize=8, color=STEP_COLOR)
        save(figure, path)
    return path


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow between the near sides of two boxes, given their lower left corners."""
    (x0, y0), (x1, y1) = start, end
    width, height = SIZE
    if y0 != y1:
        tail, head = (x0 + width / 2, y0), (x1 + width / 2, y1 + height)
    elif x1 > x0:
        tail, head = (x0 + width, y0 + height / 2), (x1, y1 + height / 2)
    else:
        tail, head = (x0, y0 + height / 2), (x1 + width, y1 + height / 2)
    axes.annotate("", head, tail, arrowprops={"arrowstyle": "->", "color": "#555555"})


def main() -> None:
    """Draw all figures."""
    for draw in (draw_results, draw_step):
        print(draw())
    for dataset in BENCHES:
        if read_rows(ROOT / f"results/{dataset}.jsonl"):
            print(draw_bench(dataset))
    if drawn := draw_invariance():
        print(drawn)


if __name__ == "__main__":
    main()
