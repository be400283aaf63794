"""What the numbers of a run say, in sentences that do not claim more than the error bars allow."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.evaluate import label_free
from ssl_jax.evaluate.label_free_rule import Rule, invalid_reason, read_rule
from ssl_jax.evaluate.measure import BASELINE, START
from ssl_jax.evaluate.measures import left_out_lines, row_columns
from ssl_jax.report.runs import Run, curve, scalars

Row = Mapping[str, Any]
UNMEASURED = ("_std", "_l2", "_seconds", "_epochs")
HEADLINES = ("knn", "linear", "logistic")
SURE = 0.75
"""Least probability, by the lower end of its interval, at which the order of two encoders without labels counts as told."""


class Line(NamedTuple):
    """One sentence of a verdict; ``tone`` is ``good``, ``bad``, ``warn`` or ``plain``."""

    tone: str
    text: str


def name_of(measure: str) -> str:
    """Name a measure in a sentence.

    >>> [name_of(m) for m in ("knn", "linear_10", "finetune_1_percent", "new_thing")]
    ['kNN', 'linear probe on 10 a class', 'fine-tuning with 1 % of the labels', 'new thing']
    """
    column = row_columns({measure: None}).get(measure)
    return measure.replace("_", " ") if column is None else column.label or column.heading


def measures(rows: Sequence[Row]) -> list[str]:
    """List the measures that rows have: numbers in [0, 1] that are no companion of another.

    >>> measures([{"features": "a", "knn": 0.5, "linear_10": 0.4, "linear_10_std": 0.1, "linear_l2": 0.01, "dim": 64}])
    ['knn', 'linear_10']
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return [
        name
        for name in names
        if not name.endswith(UNMEASURED) and name != label_free.KEY and _is_share(rows, name)
    ]


def role(row: Row) -> str:
    """Tell whether a row is a ``baseline``, ``start``, ``encoder`` or ``supervised``, by its name where it does not say.

    >>> [role(row) for row in ({"features": "raw pixels"}, {"features": "simclr, 9 steps"}, {"role": "supervised"})]
    ['baseline', 'encoder', 'supervised']
    """
    if "role" in row:
        return str(row["role"])
    return BASELINE if row.get("features") in ("raw pixels", "random encoder") else "encoder"


def error(row: Row, measure: str, examples: int) -> float:
    """Estimate the standard deviation of a measure: what the row says, else that of an accuracy on so many test images.

    ``sqrt(p (1 − p) / n)`` for p the accuracy and n ``examples``; 0 where n is not known.

    >>> error({"knn": 0.5}, "knn", 2500), error({"knn": 0.5, "knn_std": 0.2}, "knn", 2500)
    (0.01, 0.2)
    """
    std = row.get(f"{measure}_std")
    if std is not None:
        return float(std)
    share = float(row[measure])
    return math.sqrt(max(share * (1 - share), 0.0) / examples) if examples > 0 else 0.0


def verdict(run: Run) -> list[Line]:
    """Judge a run in sentences: what is wrong first, then what the encoder is worth, then how far the run is."""
    lines = [*health(run), *(judge_encoder(run.evaluation) if run.evaluation else [])]
    weights = run.config.get("encoder", {}).get("weights")
    if run.evaluation and weights and not _rows_of(run.evaluation, START):
        reason = run.evaluation.get("left_out", {}).get(
            "start", "experiments.evaluate does so where --baselines has start"
        )
        lines.append(Line("warn", f"Not compared with {weights}, from which the run started: {reason}."))
    if not run.evaluation:
        command = f"python -m experiments.evaluate --workdir={shlex.quote(str(run.workdir))}"
        lines.append(
            Line("plain", f"Not evaluated yet, so nothing is known of its worth: {command} measures it.")
        )
    return [*lines, progress(run)]


def health(run: Run) -> list[Line]:
    """List the warnings of the run, each kind once, and numbers that were not finite."""
    lines = []
    for kind in dict.fromkeys(str(warning.get("kind", "")) for warning in run.warnings):
        same = [warning for warning in run.warnings if str(warning.get("kind", "")) == kind]
        often = f" ({len(same)} times)" if len(same) > 1 else ""
        message = str(same[0].get("message", kind))
        where = "" if "step" in message else f", at step {same[0].get('step', '?')}"
        lines.append(Line("bad", f"Health: {message}{where}{often}."))
    broken = [name for name in scalars(run) if any(value is None for value in curve(run, name)[1])]
    if broken:
        lines.append(Line("bad", f"Not finite at some step: {', '.join(broken)}."))
    return lines


def judge_encoder(evaluation: Mapping[str, Any]) -> list[Line]:
    """Compare the encoder with the weights that it started from, the best baseline, and supervised training, where measured.

    >>> rows = [{"features": "raw pixels", "knn": 0.789}, {"features": "simclr, 9 steps", "knn": 0.841}]
    >>> print(judge_encoder({"rows": rows, "examples": [100, 10000]})[0].text)
    kNN 84.1 against 78.9 for raw pixels: 5.2 points better; chance makes up to 1.1.
    """
    rows = evaluation.get("rows", [])
    examples = int((evaluation.get("examples") or [0, 0])[-1])
    row, lines = encoder_row(evaluation), []
    if row is None:
        return [Line("plain", "The evaluation has no row of the encoder.")]
    few = [m for m in measures([row]) if m.startswith("linear_")][:1]
    headlines = [name for name in HEADLINES if name in measures([row])]
    starts = _rows_of(evaluation, START)
    lines += [
        _against_start(row, starts, measure, examples)
        for measure in [*headlines, *few]
        if all(measure in start for start in starts) and starts
    ]
    for measure in headlines:
        for kind in (BASELINE, "supervised"):
            others = [
                other
                for other in rows
                if role(other) == kind and other is not row and other.get(measure) is not None
            ]
            if others:
                lines.append(_against(row, others, measure, examples))
    baselines = [other for other in rows if role(other) == BASELINE]
    lines += [
        _against(row, baselines, m, examples)
        for m in few
        if all(m in other for other in baselines) and baselines
    ]
    if not headlines:
        lines += judge_without_labels(evaluation)
    if not lines:
        lines.append(Line("plain", "The evaluation has nothing to compare the encoder with."))
    for line in left_out_lines({"rows": [row]}):
        lines.append(Line("warn", f"Not measured of the encoder: {line}."))
    return lines


def judge_without_labels(evaluation: Mapping[str, Any], rule: Rule | None = None) -> list[Line]:
    """Compare the encoder with what it was measured beside by the label-free rule, and say how sure that is.

    Args:
      evaluation: content of ``evaluation.json``.
      rule: the rule; ``None``: the committed one.

    Returns:
      A line for each other encoder of which the rule says something; none where ``label_free`` was not measured.
    """
    rule, row = rule or read_rule(), encoder_row(evaluation)
    if row is None or label_free.VALUES not in row:
        return []
    lines = []
    for other in evaluation.get("rows", []):
        methods = [str(each.get("features", "")).partition(",")[0] for each in (row, other)]
        if other is row or label_free.VALUES not in other:
            continue
        if any(invalid_reason(method, rule.measures) for method in methods):
            continue
        gap = rule.score(row[label_free.VALUES]) - rule.score(other[label_free.VALUES])
        if math.isfinite(gap):
            lines.append(_without_labels(rule, gap, str(other.get("features", role(other)))))
    return lines


def _without_labels(rule: Rule, gap: float, other: str) -> Line:
    sure = rule.certainty(gap)
    told = sure.low >= SURE
    where = "above" if gap > 0 else "below"
    chance = f"{100 * sure.value:.0f} % [{100 * sure.low:.0f}, {100 * sure.high:.0f}]"
    text = (
        f"Without labels, by {rule.name}: the encoder is {where} {other} by {abs(gap):.1f}. On {rule.fixed_on}, where the rule "
        f"was chosen, the linear probe agreed in {chance} of such pairs"
    )
    text += "; other images may differ." if told else ": too few to tell them apart."
    return Line(("good" if gap > 0 else "bad") if told else "warn", text)


def encoder_row(evaluation: Mapping[str, Any] | None) -> Row | None:
    """Find the row that an evaluation is about: the last one that is no baseline and not what a run started from.

    >>> encoder_row({"rows": [{"features": "raw pixels"}, {"features": "supervised", "role": "supervised"}]})["role"]
    'supervised'
    """
    rows = [row for row in (evaluation or {}).get("rows", []) if role(row) not in (BASELINE, START)]
    return rows[-1] if rows else None


def _rows_of(evaluation: Mapping[str, Any], kind: str) -> list[Row]:
    return [row for row in evaluation.get("rows", []) if role(row) == kind]


def progress(run: Run) -> Line:
    """Say how far a run is, and where its loss went."""
    steps, losses = curve(run, "loss")
    total = run.config.get("steps", "?")
    text = f"{run.step:,} of {total:,} steps done" if isinstance(total, int) else f"{run.step:,} steps done"
    finite = [(step, value) for step, value in zip(steps, losses, strict=True) if value is not None]
    ends = finite[:1] + finite[1:][-1:]
    if finite:
        text += "; loss " + ", ".join(f"{value:.4g} at step {step:,}" for step, value in ends)
    return Line("plain", text + ".")


def comparison(runs: Sequence[Run], grouped: Sequence[Sequence[int]], names: Sequence[str]) -> list[Line]:
    """Compare several runs in sentences: health first, then who is ahead by kNN, then what cannot be compared.

    Args:
      runs: all runs.
      grouped: indices of the runs of each group, repetitions with other seeds.
      names: name of each group.
    """
    lines = [Line(line.tone, f"{run.name}: {line.text}") for run in runs for line in health(run)]
    scored = [(name, spread(runs, members, "knn")) for name, members in zip(names, grouped, strict=True)]
    known = sorted((s for s in scored if s[1].count), key=lambda s: -s[1].mean)
    missing = [run.name for run in runs if run.evaluation is None]
    if len(known) >= 2:
        lines.append(_ahead(known[0], known[1]))
    if known:
        lines += _best_against_baselines(runs, grouped[names.index(known[0][0])], known[0][0])
    if missing:
        lines.append(
            Line("plain", f"Not evaluated: {', '.join(missing)} (experiments.evaluate --workdir=...).")
        )
    tests = {_test_of(run.evaluation) for run in runs if run.evaluation}
    if len(tests) > 1:
        lines.append(
            Line("warn", "The runs were evaluated on different images: their accuracies do not compare.")
        )
    if len({run.method for run in runs}) > 1:
        lines.append(Line("warn", "The runs differ in method: their losses do not compare, accuracies do."))
    return lines


class Spread(NamedTuple):
    """A measure over repetitions.

    Attributes:
      mean: mean over the runs, NaN if none was measured.
      std: deviation over the runs (n − 1) where there are two or more, else that of the one measurement.
      count: number of runs that were measured.
      noise: ``std``, but no less than the deviation of one measurement: two seeds may agree by luck.
    """

    mean: float
    std: float
    count: int  # type: ignore[assignment]  # hides tuple.count
    noise: float


def spread(runs: Sequence[Run], members: Sequence[int], measure: str) -> Spread:
    """Compute mean and deviation of a measure of the encoder over some of the runs."""
    values, errors = [], []
    for i in members:
        evaluation = runs[i].evaluation or {}
        row = encoder_row(evaluation)
        if row is not None and row.get(measure) is not None:
            values.append(float(row[measure]))
            errors.append(error(row, measure, int((evaluation.get("examples") or [0, 0])[-1])))
    if not values:
        return Spread(math.nan, math.nan, 0, math.nan)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else errors[0]
    return Spread(float(np.mean(values)), std, len(values), max(std, float(np.mean(errors))))


def _against(row: Row, others: Sequence[Row], measure: str, examples: int) -> Line:
    best = max(others, key=lambda other: other[measure])
    value, other = 100 * row[measure], 100 * best[measure]
    noise = 200 * math.hypot(error(row, measure, examples), error(best, measure, examples))
    difference = value - other
    label = name_of(measure)
    start = f"{label[0].upper() if label != 'kNN' else 'k'}{label[1:]} {value:.1f} against {other:.1f} for "
    who = f"{best.get('features', role(best))}: "
    size = f"{abs(difference):.1f} points {'better' if difference >= 0 else 'worse'}; "
    if abs(difference) <= noise:
        return Line("warn", f"{start}{who}{size}differences up to {noise:.1f} may be chance.")
    tail = f"chance makes up to {noise:.1f}." if noise else "error bars are not known."
    return Line("good" if difference > 0 else "bad", start + who + size + tail)


def _against_start(row: Row, starts: Sequence[Row], measure: str, examples: int) -> Line:
    """Say first whether training on these images was of use at all."""
    line = _against(row, starts, measure, examples)
    meaning = {
        "good": "Training gained over the weights that it started from",
        "bad": "Training made it worse than the weights that it started from",
        "warn": "No gain over the weights that it started from is shown",
    }
    return Line(line.tone, f"{meaning[line.tone]}: {line.text}")


def _best_against_baselines(runs: Sequence[Run], members: Sequence[int], name: str) -> list[Line]:
    """The leader against the best baseline of its own evaluation: a lead among bad encoders is worth nothing."""
    evaluated = [run.evaluation for run in (runs[i] for i in members) if run.evaluation]
    row = encoder_row(evaluated[0])
    if row is None:
        return []
    over_seeds = spread(runs, members, "knn")
    mean = {"knn": over_seeds.mean, "knn_std": over_seeds.noise}
    examples = int((evaluated[0].get("examples") or [0, 0])[-1])
    lines = []
    for kind, compare in ((START, _against_start), (BASELINE, _against)):
        others = [other for other in _rows_of(evaluated[0], kind) if other.get("knn") is not None]
        if others:
            line = compare(mean, others, "knn", examples)
            lines.append(Line(line.tone, f"{name}: {line.text}"))
    return lines


def _ahead(first: tuple[str, Spread], second: tuple[str, Spread]) -> Line:
    scores = [f"{name} {100 * s.mean:.1f} ± {100 * s.std:.1f}" for name, s in (first, second)]
    difference = 100 * (first[1].mean - second[1].mean)
    noise = 200 * math.hypot(first[1].noise, second[1].noise)
    within = difference <= noise
    how = f"differences up to {noise:.1f} may be chance" if within else f"chance makes up to {noise:.1f}"
    text = f"By kNN {scores[0]} is ahead of {scores[1]} by {difference:.1f} points; {how}."
    return Line("warn" if within else "good", text)


def _is_share(rows: Sequence[Row], name: str) -> bool:
    values = [row[name] for row in rows if row.get(name) is not None]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    # Whole numbers are counts (widths, neighbours), not shares.
    return bool(numbers) and len(numbers) == len(values) and all(0 <= v <= 1 for v in numbers)


def _test_of(evaluation: Mapping[str, Any]) -> str:
    return f"{evaluation.get('source')} {list(evaluation.get('splits') or [])}"
