"""The parts of a page that come from a run's numbers: curves, evaluation, configuration."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssl_jax.core.table import MISSING
from ssl_jax.evaluate.measure import BASELINE
from ssl_jax.evaluate.measures import left_out_lines
from ssl_jax.report import charts
from ssl_jax.report.page import Section, figure, grid, missing, table
from ssl_jax.report.runs import ABSENT, Run, config_differences, curve, leaves, scalars
from ssl_jax.report.verdict import encoder_row, error, measures, name_of, role, spread


class Scalar(NamedTuple):
    """How a logged number is shown."""

    title: str
    unit: str = ""
    log: bool = False
    reference: float | None = None
    note: str = ""
    scale: float = 1.0
    from_zero: bool = False


TRAINING = {
    "loss": Scalar("Loss"),
    "learning_rate": Scalar("Learning rate", from_zero=True),
    "grad_norm": Scalar("Gradient norm", log=True),
    "update_norm": Scalar("Update norm", log=True),
    "images_per_second": Scalar(
        "Speed", "images / s", note="The first value includes compilation.", from_zero=True
    ),
    "stall_share": Scalar("Waiting for data", "% of the time", scale=100.0, from_zero=True),
}
HEALTH = {
    "online/knn": Scalar(
        "Online kNN", "accuracy in %", scale=100.0, note="On training images held out from the bank."
    ),
    "online/linear": Scalar(
        "Online linear probe", "accuracy in %", scale=100.0, note="Ridge regression, training images."
    ),
    "health/spread": Scalar(
        "Spread",
        reference=1.0,
        note="1: even over the sphere; 0: collapsed to a point.",
        from_zero=True,
    ),
    "embedding_std": Scalar(
        "Spread of the embeddings",
        reference=1.0,
        note="1: even over the sphere; 0: collapsed to a point.",
        from_zero=True,
    ),
    "health/feature_std": Scalar("Feature deviation", note="0: collapsed to a point.", from_zero=True),
    "health/rankme": Scalar(
        "RankMe", "directions", note="Effective number of directions; compare runs of one method only."
    ),
    "health/effective_rank": Scalar("Effective rank", "directions", note="Of the features minus their mean."),
    "health/alpha": Scalar("Spectrum decay α", reference=1.0, note="The best encoders are near 1."),
    "health/lidar": Scalar(
        "LiDAR", "directions", note="Directions that tell images apart despite their views."
    ),
    "health/alignment": Scalar("Alignment", "squared distance", note="0: views agree; 2: unrelated."),
    "alignment": Scalar("Alignment, training", "squared distance", note="0: views agree; 2: unrelated."),
    "health/uniformity": Scalar("Uniformity", note="The lower, the more even; 0: all features are one."),
    "teacher_entropy": Scalar("Entropy of the teacher", "nats", note="0: always one prototype."),
    "teacher_kl_uniform": Scalar("Teacher against uniform", "nats", note="0: the teacher says nothing."),
}
HIDDEN = ("finite",)


def curves(runs: Sequence[Run], colors: Sequence[int]) -> list[Section]:
    """Draw two sections, training and health; a line a run, runs of one colour being repetitions.

    Args:
      runs: one run or more.
      colors: index into the palette, one a run.
    """
    names = list(dict.fromkeys(name for run in runs for name in scalars(run) if name not in HIDDEN))
    if not names:
        body = missing("No record yet: metrics.jsonl is written while the run goes.")
        return [Section("Training", body)]
    key = charts.legend([(run.name, color) for run, color in zip(runs, colors, strict=True)])
    training = [n for n in TRAINING if n in names]
    health = sorted((n for n in names if n not in TRAINING), key=_rank)
    mixed = len({run.method for run in runs}) > 1
    lead = "Losses of different methods do not compare." if mixed else ""
    sections = [Section("Training", key + grid([_chart(runs, colors, n) for n in training]), lead)]
    if health:
        lead = "Measured without labels, except the online kNN and probe. A dashed line marks the value to compare with."
        sections.append(Section("Health", key + grid([_chart(runs, colors, n) for n in health]), lead))
    return sections


def evaluation(run: Run) -> Section:
    """Show what ``experiments.evaluate`` measured: a table and a dot plot a measure, with error bars."""
    command = f"python -m experiments.evaluate --workdir={shlex.quote(str(run.workdir))}"
    result = run.evaluation
    rows = result.get("rows", []) if result else []
    names = measures(rows)
    if result is None:
        return Section("Evaluation", missing("Not evaluated yet; this measures it:", command))
    remarks = _remarks(result, command)
    if not names and not _label_free(rows) and not result.get("layers"):
        nothing = missing("Nothing of it could be measured yet; this measures it:", command)
        return Section("Evaluation", remarks or nothing)
    examples = int((result.get("examples") or [0, 0])[-1])
    cells = [[str(row.get("features", "?")), *(_cell(row, name, examples) for name in names)] for row in rows]
    strong = [i for i, row in enumerate(rows) if row is encoder_row(result)]
    plots = [_dots([(str(r.get("features", "?")), r) for r in rows], name, examples) for name in names]
    headings = ["accuracy in %", *map(name_of, names)]
    accuracies = table(headings, cells, caption=_caption(result), strong=strong) if names else ""
    layers = _layers(result.get("layers") or [])
    body = accuracies + grid([*plots, *layers]) + _label_free(rows) + remarks
    return Section("Evaluation", body, ERRORS)


def _remarks(result: Mapping[str, Any], command: str) -> str:
    """What the accuracies are of, what could not be measured and why, and whether there is more to come."""
    notes = [missing(str(note)) for note in result.get("notes", [])]
    left_out = [missing(f"Not measured: {line}.") for line in left_out_lines(result)]
    unfinished = [missing("The evaluation was not finished:", command)] if result.get("incomplete") else []
    return "".join([*notes, *left_out, *unfinished])


ERRORS = (
    "± and bars are one standard deviation: over draws of the labels where few are used, else what an accuracy on so many "
    "test images varies by. Axes do not start at 0."
)


def comparison(runs: Sequence[Run], grouped: Sequence[Sequence[int]], names: Sequence[str]) -> Section:
    """Show the evaluations of several runs side by side, repetitions as mean ± deviation, the baselines of the first below.

    Args:
      runs: all runs.
      grouped: indices of the runs of each group.
      names: name of each group.
    """
    first = next((run.evaluation for run in runs if run.evaluation), None)
    if first is None:
        command = "python -m experiments.evaluate --workdir=..."
        return Section("Evaluation", missing("None of the runs is evaluated; this measures one:", command))
    encoder_rows = [row for row in (encoder_row(run.evaluation) for run in runs) if row is not None]
    compared = measures(encoder_rows)
    examples = int((first.get("examples") or [0, 0])[-1])
    baselines = [row for row in first.get("rows", []) if row is not encoder_row(first)]
    cells, dots = [], {name: [] for name in compared}  # type: ignore[var-annotated]
    for i, (group, members) in enumerate(zip(names, grouped, strict=True)):
        spreads = {name: spread(runs, members, name) for name in compared}
        numbers = [
            f"{100 * s.mean:.1f} ± {100 * s.std:.1f}" if s.count else MISSING for s in spreads.values()
        ]
        cells.append([group, *numbers])
        for name, over_seeds in spreads.items():
            if over_seeds.count:
                dots[name].append(charts.Dot(group, 100 * over_seeds.mean, 100 * over_seeds.std, i))
    for row in baselines:
        cells.append([str(row.get("features", "?")), *(_cell(row, name, examples) for name in compared)])
        for name in compared:
            if row.get(name) is not None:
                dots[name].append(_dot(str(row.get("features", "?")), row, name, examples, -1))
    plots = [figure(charts.dots(d, title=name_of(n), x_label="%"), name_of(n)) for n, d in dots.items() if d]
    strong = list(range(len(grouped)))
    body = table(["accuracy in %", *map(name_of, compared)], cells, caption=_caption(first), strong=strong)
    lead = (
        f"Several seeds of one config: mean ± deviation over the runs. Else {ERRORS[0].lower()}{ERRORS[1:]}"
    )
    return Section("Evaluation", body + grid(plots), lead)


def configuration(run: Run) -> Section:
    """Show all options of a run, folded away."""
    rows = [[path, _value(value)] for path, value in leaves(run.config).items()]
    body = f"<details><summary>{len(rows)} options</summary>{_wrapped(['option', 'value'], rows, 'config.json')}</details>"
    return Section("Configuration", body)


def difference(runs: Sequence[Run]) -> Section:
    """Show the options in which runs differ; those that only some of them have are folded away."""
    differences = config_differences([run.config for run in runs])
    if not differences:
        return Section("Configurations", missing("The configurations are the same."))
    header = ["option", *(run.name for run in runs)]
    rows = {path: [path, *map(_value, values)] for path, values in differences.items()}
    partial = [path for path, values in differences.items() if ABSENT in values]
    shared = [row for path, row in rows.items() if path not in partial]
    body = _wrapped(header, shared, "options that differ") if shared else ""
    if partial:
        folded = _wrapped(header, [rows[path] for path in partial], "options that only some runs have")
        body += (
            f"<details><summary>{len(partial)} that only some of the runs have</summary>{folded}</details>"
        )
    same = len({path for run in runs for path in leaves(run.config)}) - len(differences)
    which = "1 option that differs" if len(differences) == 1 else f"{len(differences)} options that differ"
    return Section("Configurations", body, f"The {which}; {same} others are the same everywhere.")


def _style(name: str) -> Scalar:
    """How a scalar is shown; the measures of training batches as those of the sample, an unknown one by its name.

    >>> _style("batch/alpha").title, _style("prototype_usage").title
    ('Spectrum decay α, in batches', 'prototype usage')
    """
    known = TRAINING.get(name) or HEALTH.get(name)
    sample = HEALTH.get(name.replace("batch/", "health/", 1))
    if known is None and sample is not None:
        return sample._replace(title=f"{sample.title}, in batches")
    return known or Scalar(name.replace("_", " "))


def _rank(name: str) -> tuple[int, str]:
    """Order of the health charts: as listed, what is measured in batches after its kind, the unknown last."""
    known = list(HEALTH)
    kind = name.replace("batch/", "health/", 1)
    return (known.index(kind) if kind in known else len(known)), name if kind != name else ""


def _chart(runs: Sequence[Run], colors: Sequence[int], name: str) -> str:
    style = _style(name)
    series = []
    for run, color in zip(runs, colors, strict=True):
        steps, values = curve(run, name)
        if steps:
            scaled = [float("nan") if v is None else style.scale * v for v in values]
            series.append(charts.Series(run.name, steps, scaled, color))
    log = style.log and any(y > 0 for s in series for y in s.y)
    steps_of = [int(record["step"]) for run in runs for record in run.records]
    options: dict[str, Any] = {"y_label": style.unit, "log_y": log, "reference": style.reference}
    options |= {"span": (min(steps_of), max(steps_of)), "from_zero": style.from_zero}
    finite = any(y == y for s in series for y in s.y)
    if not finite:
        return figure(missing("No finite value."), style.title)
    caption = f"{style.title} (log)" if log else style.title
    last = charts.number([y for y in series[0].y if y == y][-1]) if len(series) == 1 else ""
    drawn = charts.line(series, title=style.title, **options)
    return figure(drawn, caption, value=last and f"last {last}", note=style.note)


def _cell(row: Mapping[str, Any], name: str, examples: int) -> str:
    if row.get(name) is None:
        return MISSING
    spread_of = error(row, name, examples)
    return f"{100 * row[name]:.1f}" + (f" ± {100 * spread_of:.1f}" if spread_of else "")


def _dot(label: str, row: Mapping[str, Any], name: str, examples: int, color: int) -> charts.Dot:
    return charts.Dot(label, 100 * row[name], 100 * error(row, name, examples), color)


def _dots(rows: Sequence[tuple[str, Mapping[str, Any]]], name: str, examples: int) -> str:
    colors = {BASELINE: 0, "encoder": 1, "supervised": 2}
    drawn = [_dot(k, r, name, examples, colors.get(role(r), 3)) for k, r in rows if r.get(name) is not None]
    return figure(charts.dots(drawn, title=name_of(name), x_label="%"), name_of(name))


def _label_free(rows: Sequence[Mapping[str, Any]]) -> str:
    """Measures of the features that need no label."""
    measured = [row for row in rows if row.get("health")]
    names = list(dict.fromkeys(name for row in measured for name in row["health"]))
    if not names:
        return ""
    cells = [
        [
            str(row.get("features", "?")),
            *(charts.number(row["health"].get(name, float("nan"))) for name in names),
        ]
        for row in measured
    ]
    header = ["features", *(name.replace("_", " ") for name in names)]
    return table(header, cells, caption="Health of the features, without labels, of test images in two views")


def _layers(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy of each layer and pooling, from the input on."""
    figures = []
    for name in measures([{k: v for k, v in layer.items() if k != "layer"} for layer in layers]):
        title = f"{name_of(name)}, by layer"
        dots = [charts.Dot(str(row.get("layer", "?")), 100 * row[name]) for row in layers if name in row]
        figures.append(figure(charts.dots(dots, title=title, x_label="%"), title))
    return figures


def _caption(result: Mapping[str, Any]) -> str:
    train, test = [*(result.get("examples") or []), "?", "?"][:2]
    counts = [f"{count:,}" if isinstance(count, int) else str(count) for count in (train, test)]
    step = f", step {result['step']:,}" if isinstance(result.get("step"), int) else ""
    return f"{result.get('source', 'images')}: {counts[0]} training and {counts[1]} test images{step}"


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _wrapped(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    return f'<div class="wrap">{table(header, rows, caption=caption)}</div>'
