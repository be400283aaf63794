"""Which checkpoint and which method, without labels: how far measures without labels follow accuracy, and the rule.

    python -m experiments.label_free --rows=results/color32.jsonl
    python -m experiments.label_free --rows=results/color32.jsonl --fix --unseen=results/color64.jsonl
    python -m experiments.label_free --runs=runs/results/color32 --out=results/label_free.jsonl
    python -m experiments.label_free --runs=runs/results/color64 --source=parquet:../shared/data/clothing_128px \\
        --last_only --out=results/clothing.jsonl

``--rows`` are rows of ``experiments.results``, or those that ``--runs`` makes. Prints, for each measure and each combination of
measures, the rank correlation with accuracy within an encoder and across encoders, with bootstrap intervals over methods; the
rule that comes out of them; and, where runs have several checkpoints, what is lost by choosing one without labels. ``--fix``
stores the rule in ``ssl_jax/evaluate/label_free.json``, from where ``experiments.evaluate --measures=label_free``, the report
and ``--config.watch.checkpoint.rank_by=label_free`` read it. ``--unseen`` tests the committed rule on other rows, which it has
not been chosen on; ``--dense=results/dense.jsonl`` adds how the same runs segment images. ``--runs`` measures every checkpoint
of the runs in a folder and their encoders before training, with and without labels, and adds a row for each to ``--out``; rows
that are there stay, and ``--minutes`` ends in time. A run keeps its checkpoints with ``--config.watch.checkpoint.keep=10``.
"""

import math
from pathlib import Path

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.label_free import (
    check_table,
    checkpoint_table,
    join_segmentation,
    list_checkpoints,
    measure_runs,
    read_measured,
    rule_lines,
    rule_table,
    runs_below,
)
from ssl_jax.core.files import write_atomically
from ssl_jax.evaluate import label_free_rule
from ssl_jax.evaluate.label_free_rule import Measured

_ROWS = flags.DEFINE_list("rows", [], "Files of rows that measures are judged by, and a rule is chosen on.")
_FIX = flags.DEFINE_bool("fix", False, "Store the rule that comes out of --rows.")
_UNSEEN = flags.DEFINE_list("unseen", [], "Files of rows on which the committed rule is tested.")
_BUDGET = flags.DEFINE_string(
    "budget", None, "Of rows of a results table: those of this budget; default: the only one."
)
_DENSE = flags.DEFINE_string(
    "dense", None, "File of rows of experiments.dense, whose segmentation of the same runs is followed too."
)
_RUNS = flags.DEFINE_string("runs", None, "Folder of runs, every checkpoint of which is measured into --out.")
_OUT = flags.DEFINE_string("out", None, "Of --runs: file of the rows.")
_SOURCE = flags.DEFINE_string(
    "source", None, "Of --runs: images with labels to measure with; default: those of each run."
)
_TRAIN = flags.DEFINE_string("train_split", None, "Of --runs: training split; default: as each config says.")
_TEST = flags.DEFINE_string("test_split", None, "Of --runs: test split; default: as each config says.")
_LAST = flags.DEFINE_bool("last_only", False, "Of --runs: the last checkpoint of each run only.")
_MINUTES = flags.DEFINE_float(
    "minutes", None, "Of --runs: no checkpoint is begun after so many.", lower_bound=0
)


def _read(name: str) -> list[Measured]:
    """Read rows, with segmentation where it is given."""
    runs = read_measured(Path(name), budget=_BUDGET.value)
    return runs if _DENSE.value is None else join_segmentation(runs, Path(_DENSE.value))


def main() -> None:
    """Measure, judge, fix and test, as asked for."""
    if _RUNS.value is None and not _ROWS.value and not _UNSEEN.value:
        raise ValueError(
            "--rows: give rows to judge by, such as --rows=results/color32.jsonl, or --runs=FOLDER"
        )
    if _FIX.value and not _ROWS.value:
        raise ValueError("--fix: allowed with --rows, on which the rule is chosen")
    if _RUNS.value is not None:
        out = launch.require_path("out", _OUT.value, "FILE.jsonl", local=True)
        workdirs = runs_below(launch.require_path("runs", _RUNS.value, "FOLDER", local=True))
        left = measure_runs(
            list_checkpoints(workdirs, source=_SOURCE.value, last_only=_LAST.value),
            out,
            splits=(_TRAIN.value, _TEST.value),
            minutes=math.inf if _MINUTES.value is None else _MINUTES.value,
        )
        print(f"{left} checkpoints are left for the next time" if left else f"all checkpoints are in {out}")
    if _ROWS.value:
        runs = [run for name in _ROWS.value for run in _read(name)]
        print(f"\n{rule_table(runs)}\n")
        rule = label_free_rule.choose_rule(runs, fixed_on=", ".join(Path(name).stem for name in _ROWS.value))
        print("\n".join(rule_lines(rule)))
        if _FIX.value:
            path = Path(label_free_rule.__file__).with_name(label_free_rule.FILE)
            write_atomically(path, label_free_rule.rule_text(rule))
            print(f"stored in {path}")
        print(f"\nWhich checkpoint of a run: {checkpoint_table(runs, rule)}")
    if _UNSEEN.value:
        rule = label_free_rule.read_rule()
        unseen = {Path(name).stem: _read(name) for name in _UNSEEN.value}
        print(f"\nThe committed rule, {rule.name} of {rule.fixed_on}, on runs that it has not seen:")
        print(check_table(rule, unseen))


if __name__ == "__main__":
    launch.run(main)
