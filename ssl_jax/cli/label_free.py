"""Which checkpoint and which method, without labels: rows of checkpoints, the rule that comes out of them, and its tables."""

import math
import operator
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ssl_jax.cli.evaluate import evaluate, random_candidate, run_candidate
from ssl_jax.cli.tables import encoder_name
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core import check
from ssl_jax.core.rows import Row, read_rows, write_row
from ssl_jax.core.table import table
from ssl_jax.data.sources import take_evenly
from ssl_jax.evaluate.label_free_rule import (
    ORIENT,
    TARGETS,
    UNTRAINED,
    Estimate,
    Measured,
    Rule,
    average_seeds,
    check_checkpoints,
    check_rule,
    combine,
    correlate,
    invalid_reason,
    read_rule,
    rule_name,
    standards_of,
    usable_rules,
)
from ssl_jax.evaluate.measure import BASELINE
from ssl_jax.evaluate.measures import parse_measures
from ssl_jax.train.checkpoint import steps

ROW_KEY = operator.itemgetter("source", "method", "encoder", "seed", "step")
MEASURES = ("knn", "linear", "label_free")
IMAGES = (10_000, 5_000)
"""Training and test images at most that a checkpoint is measured with."""
SEGMENTATION = "miou_linear"
ACCURACIES = (*TARGETS, SEGMENTATION)
"""Scores with labels that are read of a row, where they were measured."""


def read_measured(path: Path, *, budget: str | None = None) -> list[Measured]:
    """Read what was measured of runs: rows of a results table, or of :func:`measure_runs`.

    Of a results table each row is the last checkpoint of a run; encoders before training come along, once a seed.

    Args:
      path: file of rows.
      budget: of a results table: rows of this budget only; ``None``: that which all have.

    Raises:
      ValueError: no such file, rows of something else, or of several budgets.
    """
    if not path.exists():
        raise ValueError(f"rows={path}: there is no such file")
    rows = read_rows(path)
    budgets = {row["budget"] for row in rows if "budget" in row}
    check.require(
        budget is not None or len(budgets) < 2, "budget", budget, f"one of {', '.join(sorted(budgets))}"
    )
    try:
        return _read(rows, budget)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"rows={path}: allowed are rows of experiments.results or of this command ({error!r})"
        ) from error


def _read(rows: Sequence[Row], budget: str | None) -> list[Measured]:
    measured: dict[tuple[str, str, int, int], Measured] = {}
    for row in rows:
        if "measures" in row:
            run = Measured(
                row["method"],
                row["encoder"],
                row["seed"],
                row["step"],
                bool(row["last"]),
                values_of(row["measures"]),
                accuracy_of(row["measures"]),
            )
            measured[run.method, run.encoder, run.seed, run.step] = run
            continue
        if budget is not None and row["budget"] != budget:
            continue
        encoder = encoder_name(row["config"])
        for each in row["evaluation"]["rows"]:
            untrained = each["features"] == "random encoder"
            if not untrained and each["role"] in (BASELINE, "start"):
                continue
            if each["role"] == "supervised":
                continue
            run = Measured(
                UNTRAINED if untrained else row["method"],
                encoder,
                row["seed"],
                0 if untrained else row["config"]["steps"],
                True,
                values_of(each),
                accuracy_of(each),
            )
            measured.setdefault((run.method, run.encoder, run.seed, run.step), run)
    return list(measured.values())


def values_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Read the measures without labels of a row, whichever measure took them.

    >>> values_of({"health": {"rankme": 4.0, "feature_std": 0.1}, "rotation": 0.5, "label_free_values": {"agreement": 0.25}})
    {'rankme': 4.0, 'rotation': 0.5, 'agreement': 0.25}
    """
    found = {**row, **row.get("health", {}), **row.get("label_free_values", {})}
    return {name: found[name] for name in ORIENT if isinstance(found.get(name), int | float)}


def accuracy_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Read the scores with labels of a row."""
    return {name: row[name] for name in ACCURACIES if isinstance(row.get(name), int | float)}


def join_segmentation(runs: Sequence[Measured], path: Path) -> list[Measured]:
    """Add the mean intersection over union of a linear head, of rows of ``experiments.dense``, to the runs that they are of.

    A row belongs to the last checkpoint of a run where method, seed and kind of encoder agree; the mean of several counts.

    Args:
      runs: checkpoints.
      path: file of the rows.

    Raises:
      ValueError: no such file.
    """
    if not path.exists():
        raise ValueError(f"dense={path}: there is no such file")
    scores: dict[tuple[str, str, int], list[float]] = {}
    for row in read_rows(path):
        if isinstance(row.get(SEGMENTATION), float):
            method = UNTRAINED if row["method"] == "random encoder" else str(row["method"])
            key = (method, row["encoder"].partition(",")[0], row["seed"])
            scores.setdefault(key, []).append(row[SEGMENTATION])
    joined = []
    for run in runs:
        found = scores.get((run.method, run.encoder.partition(" ")[0], run.seed)) if run.last else None
        extra = {SEGMENTATION: sum(found) / len(found)} if found else {}
        joined.append(run._replace(accuracy={**run.accuracy, **extra}))
    return joined


def runs_below(folder: Path) -> list[Path]:
    """List the runs with checkpoints in a folder, at any depth.

    Raises:
      ValueError: there is none.
    """
    found = sorted(path.parent for path in folder.rglob("checkpoints") if steps(path))
    check.require(bool(found), "runs", str(folder), "a folder with runs that have checkpoints")
    return found


class Checkpoint(NamedTuple):
    """What :func:`measure_runs` measures one of.

    Attributes:
      workdir: folder of the run.
      step: updates made; ``None``: the encoder of the run as it is drawn with its seed.
      facts: what names its row.
    """

    workdir: Path
    step: int | None
    facts: Row


def list_checkpoints(
    workdirs: Sequence[Path], *, source: str | None = None, last_only: bool = False
) -> list[Checkpoint]:
    """List the checkpoints of runs, and the untrained encoder of each architecture and seed once.

    Args:
      workdirs: folders of runs.
      source: images to measure with; ``None``: those of each run.
      last_only: whether only the last checkpoint of each run counts.
    """
    found: dict[tuple[Any, ...], Checkpoint] = {}
    for workdir in workdirs:
        config, saved = build.read_config(workdir), steps(workdir / "checkpoints")
        common = {
            "source": source or config["data"]["source"],
            "encoder": encoder_name(config),
            "seed": config["seed"],
            "steps": config["steps"],
        }
        untrained = {**common, "method": UNTRAINED, "step": 0, "last": True}
        each = [Checkpoint(workdir, None, untrained)]
        for step in saved[-1:] if last_only else saved:
            facts = {**common, "method": config["method"]["name"], "step": step, "last": step == saved[-1]}
            each.append(Checkpoint(workdir, step, facts))
        for checkpoint in each:
            found.setdefault(ROW_KEY(checkpoint.facts), checkpoint)
    return list(found.values())


def measure_runs(
    checkpoints: Sequence[Checkpoint],
    out: Path,
    *,
    splits: tuple[str | None, str | None] = (None, None),
    minutes: float = math.inf,
    report: Callable[[str], None] = print,
) -> int:
    """Measure checkpoints with and without labels, and store a row of each; rows that are there stay.

    Args:
      checkpoints: see :func:`list_checkpoints`.
      out: file of the rows.
      splits: splits of training and test images; ``None``: as the config of each run says.
      minutes: no checkpoint is begun after so many.
      report: given a line for each checkpoint.

    Returns:
      Number of checkpoints that were not measured for lack of time.

    Raises:
      ValueError: images that cannot be opened or have no labels.
    """
    start, done = time.monotonic(), {ROW_KEY(row) for row in read_rows(out)}
    missing = [checkpoint for checkpoint in checkpoints if ROW_KEY(checkpoint.facts) not in done]
    for position, checkpoint in enumerate(missing):
        if time.monotonic() - start >= 60 * minutes:
            return len(missing) - position
        before = time.process_time()
        row = measure_checkpoint(checkpoint, splits=splits)
        spent = {
            "date": datetime.now(UTC).date().isoformat(),
            "cpu_seconds": round(time.process_time() - before, 1),
        }
        write_row(out, {**checkpoint.facts, **spent, **row}, ROW_KEY)
        name = f"{checkpoint.workdir.name}, {'untrained' if checkpoint.step is None else f'step {checkpoint.step}'}"
        report(f"{name}: {spent['cpu_seconds']:.0f} CPU seconds")
    return 0


def measure_checkpoint(
    checkpoint: Checkpoint, *, splits: tuple[str | None, str | None] = (None, None)
) -> Row:
    """Measure one checkpoint with and without labels, on :data:`IMAGES` at most at even distances.

    Returns:
      ``images``, how many, and ``measures``, the row of the measures.

    Raises:
      ValueError: images without labels.
    """
    untrained = checkpoint.step is None
    config, method, model = build.restore(
        checkpoint.workdir, "latest" if checkpoint.step is None else str(checkpoint.step)
    )
    source, options = checkpoint.facts["source"], config["watch"]["evaluate"]
    names = (splits[0] or options["train_split"], splits[1] or options["test_split"])
    named = {"watch.evaluate.train_split": names[0], "watch.evaluate.test_split": names[1]}
    config = build.with_changes(config, named)
    train, test = (
        take_evenly(open_images(config, source, split), count)
        for split, count in zip(names, IMAGES, strict=True)
    )
    check.require(len(train.classes) > 0, "source", source, "images with labels: a rule is judged by them")
    measures = [measure for measure in parse_measures(MEASURES) if measure.name in MEASURES]
    candidate = random_candidate(config, method) if untrained else run_candidate(config, method, model)
    result = evaluate(config, [candidate], (train, test), measures=measures, baselines=())
    return {"images": result["examples"], "measures": result["rows"][-1]}


def rule_table(
    runs: Sequence[Measured],
    *,
    targets: Sequence[str] = ACCURACIES,
    resamples: int = 1000,
    markdown: bool = False,
) -> str:
    """Tabulate how each rule orders methods as their accuracy does, within an encoder and across, with 95 % intervals.

    Args:
      runs: checkpoints, of which the last ones count.
      targets: accuracies; those that no run has are left out.
      resamples: bootstrap draws over methods.
      markdown: whether the table is in Markdown.

    Returns:
      The table; a sentence that there is nothing where fewer than three methods with one encoder were measured.
    """
    everything = average_seeds([run for run in runs if run.method != UNTRAINED])
    usable = usable_rules(everything)
    targets = [target for target in targets if target in everything.accuracy]
    if not usable or not targets:
        return "fewer than three methods with one encoder: no correlation"
    rows = []
    for measures in usable:
        kept = [run for run in runs if run.method != UNTRAINED and not invalid_reason(run.method, measures)]
        points = average_seeds(kept)
        score = combine(points, standards_of(points, measures))
        row: dict[str, Any] = {"measure": rule_name(measures)}
        for within, where in ((True, "within an encoder"), (False, "across")):
            for target in targets:
                found = correlate(points, score, target, within=within, resamples=resamples)
                row[f"{target}, {where}"] = estimate_text(Estimate(found.value, found.low, found.high))
                row["methods"] = found.groups
        rows.append(row)
    columns = [name for name in rows[0] if name != "methods"]
    return table(rows, columns=[*columns, "methods"], markdown=markdown)


def estimate_text(estimate: Estimate, scale: float = 1.0, digits: int = 2) -> str:
    """Write an estimate with its interval.

    >>> estimate_text(Estimate(0.917, 0.77, 0.981))
    '0.92 [0.77, 0.98]'
    """
    value, low, high = (f"{scale * number:.{digits}f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def rule_lines(rule: Rule) -> list[str]:
    """Say what the rule is and how sure, in sentences."""
    ranks = "; ".join(f"{name} {estimate_text(each)}" for name, each in rule.correlation.items())
    certain = rule.certainty(1.0)
    return [
        f"The rule: {rule.name}, chosen on {rule.methods} methods and {rule.encoders} encoder"
        f"{'s' * (rule.encoders > 1)} of {rule.fixed_on}.",
        f"Spearman's correlation there, within an encoder, with 95 % bootstrap intervals over methods: {ranks}.",
        f"Of two encoders whose scores differ by 1 the higher one is better by the linear probe in {100 * certain.value:.0f} % "
        f"[{100 * certain.low:.0f}, {100 * certain.high:.0f}] of pairs.",
    ]


def check_table(rule: Rule, unseen: Mapping[str, Sequence[Measured]], *, markdown: bool = False) -> str:
    """Tabulate how the rule does on runs that it was not chosen on, by the name of each set.

    Args:
      rule: the rule.
      unseen: checkpoints of each set.
      markdown: whether the table is in Markdown.
    """
    rows = []
    for name, runs in unseen.items():
        known = [target for target in ACCURACIES if any(target in run.accuracy for run in runs)]
        found = check_rule(rule, runs, targets=known)
        rows.append(
            {
                "runs": name,
                "methods": found.methods,
                **{f"{target}, within an encoder": estimate_text(found.within[target]) for target in known},
                **{f"{target}, across": estimate_text(found.across[target]) for target in known},
                "pairs in order, %": 100 * found.right,
                "promised, %": 100 * found.expected,
                "in order with untrained, %": 100 * found.untrained,
                "lost by choosing, points": 100 * found.regret,
            }
        )
    return table(rows, markdown=markdown)


def checkpoint_table(
    runs: Sequence[Measured],
    rule: Rule,
    *,
    names: Iterable[str] = ORIENT,
    target: str = "linear",
    markdown: bool = False,
) -> str:
    """Tabulate how the rule, each measure and kNN choose among the checkpoints of a run.

    Args:
      runs: checkpoints.
      rule: the rule.
      names: measures.
      target: accuracy that they are to follow.
      markdown: whether the table is in Markdown.

    Returns:
      The table; a sentence that there is nothing where no run has three checkpoints.
    """
    scores: dict[str, tuple[Callable[[Measured], float], Sequence[str]]] = {
        f"rule: {rule.name}": (lambda run: rule.score(run.values), tuple(rule.measures)),
        **{name: (_oriented(name), (name,)) for name in names},
        "kNN, with labels": (lambda run: run.accuracy.get("knn", math.nan), ()),
    }
    rows = []
    for name, (score, measures) in scores.items():
        kept = [run for run in runs if not invalid_reason(run.method, measures)]
        found = check_checkpoints(kept, score, target=target)
        if found.runs:
            rows.append(
                {
                    "chosen by": name,
                    f"{target}, within a run": estimate_text(found.correlation),
                    "lost, points": 100 * found.regret,
                    "lost by the last, points": 100 * found.regret_of_last,
                    "runs": found.runs,
                }
            )
    return table(rows, markdown=markdown, digits=2) if rows else "no run with three checkpoints"


def _oriented(name: str) -> Callable[[Measured], float]:
    return lambda run: ORIENT[name](run.values[name]) if name in run.values else math.nan


UNSEEN = ("color32", "color64", "clothing", "fashion_mnist")
"""Names of the files of rows on which the committed rule is tested: all but the one that it was chosen on."""
DENSE = "dense.jsonl"
"""File of rows of ``experiments.dense``, where runs were measured by segmentation too."""
CHECKPOINTS = "label_free.jsonl"
"""File of rows of checkpoints."""


def findings(folder: Path, *, budget: str = "short") -> str:
    """Write what is known of the committed rule: how it and others rank, on what it was chosen, how it does elsewhere.

    Args:
      folder: folder of the files of rows.
      budget: budget of the rows of results tables.

    Returns:
      Tables and sentences in Markdown.
    """
    rule = read_rule()
    files = {name: folder / f"{name}.jsonl" for name in dict.fromkeys((rule.fixed_on, *UNSEEN))}
    measured = {name: read_measured(path, budget=budget) for name, path in files.items() if path.exists()}
    if (folder / DENSE).exists():
        measured = {name: join_segmentation(runs, folder / DENSE) for name, runs in measured.items()}
    parts = []
    if rule.fixed_on in measured:
        parts.append(
            f"Spearman's correlation on `{rule.fixed_on}`, with 95 % bootstrap intervals over methods:"
        )
        parts.append(rule_table(measured.pop(rule.fixed_on), markdown=True))
    parts.append("\n".join(rule_lines(rule)))
    unseen = {name: runs for name, runs in measured.items() if is_testable(rule, runs)}
    if unseen:
        parts += ["On runs that the rule was not chosen on:", check_table(rule, unseen, markdown=True)]
    else:
        parts.append("It has not been tested on other runs yet.")
    if (folder / CHECKPOINTS).exists():
        runs = read_measured(folder / CHECKPOINTS)
        parts += ["Which checkpoint of a run:", checkpoint_table(runs, rule, markdown=True)]
    return "\n\n".join(parts)


def is_testable(rule: Rule, runs: Sequence[Measured]) -> bool:
    """Tell whether three methods with one encoder have what the rule and a test of it need."""
    scored = [
        run
        for run in runs
        if run.method != UNTRAINED
        and not invalid_reason(run.method, rule.measures)
        and math.isfinite(rule.score(run.values))
        and set(TARGETS) <= set(run.accuracy)
    ]
    methods = {
        encoder: {run.method for run in scored if run.encoder == encoder}
        for encoder in {run.encoder for run in scored}
    }
    return any(len(each) >= 3 for each in methods.values())
