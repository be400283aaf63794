"""The results tables: every method, mostly on full Fashion-MNIST, three seeds, next to baselines; trains what is missing.

    python -m experiments.results
    python -m experiments.results --methods=simclr,byol --seeds=0
    python -m experiments.results --jobs=2
    python -m experiments.results --dataset=color32 --source=parquet:DIR --jobs=2 --minutes=60
    python -m experiments.results --quickstart

Each run is ``experiments.pretrain`` with the committed config ``configs/<method>.py:fashion_mnist,<budget>``, then
``experiments.evaluate``; methods that need colors or clips have a dataset of their own. The budget is ``short`` on a CPU and
``paper`` on an accelerator. Results are rows of ``results/<dataset>.jsonl``, one a method, seed and budget. A run whose row has
the same config is not made again; one that was stopped goes on. ``--dataset=color32`` or ``color64`` makes the runs of the
bench on natural images instead (see docs/results.md), of all methods that have such a recipe, the most telling ones first.
``python -m docs.tables`` writes the tables of README and docs from the rows. ``--quickstart`` makes the run of the README's
first command instead, a row of ``results/quickstart.jsonl``.
"""

import math
from pathlib import Path

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.cpu import accelerated
from ssl_jax.cli.results import (
    BENCHES,
    TableRun,
    bench_runs,
    is_done,
    make_quickstart,
    make_runs,
    read_budget,
)
from ssl_jax.cli.tables import results_table
from ssl_jax.cli.tuning import is_searched, make_search
from ssl_jax.core.check import choice
from ssl_jax.methods.registry import names

ROOT = Path(__file__).parent.parent
_METHODS = flags.DEFINE_list("methods", None, "Methods; default: all.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_BUDGET = flags.DEFINE_string("budget", None, "short or paper; default: short on a CPU, paper elsewhere.")
_DATASET = flags.DEFINE_enum("dataset", None, BENCHES, "Table of the bench; default: the gray images.")
_SOURCE = flags.DEFINE_string("source", "", "Where the bench's images are, such as parquet:DIR.")
_MINUTES = flags.DEFINE_float("minutes", None, "Time after which no run is begun.", lower_bound=0)
_TUNE = flags.DEFINE_bool("tune", False, "Make the searches behind the recipes of the bench instead.")
_RUNS = flags.DEFINE_string("runs", "runs/results", "Folder for the runs themselves.")
_OUT = flags.DEFINE_string("out", str(ROOT / "results"), "Folder for the rows.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time, which share the CPU's cores evenly.", lower_bound=1)
_QUICKSTART = flags.DEFINE_bool("quickstart", False, "Make the run of the README's first command instead.")


def main() -> None:
    """Make the runs that are missing, then print the tables."""
    out = Path(_OUT.value)
    if _QUICKSTART.value:
        print(make_quickstart(Path("runs/first"), out / "quickstart.jsonl"))
        return
    budget = _BUDGET.value or ("paper" if accelerated() else "short")
    methods = [choice("methods", name, names()) for name in _METHODS.value or names()]
    seeds = launch.parse_seeds(_SEEDS.value)
    # One seed of every method first: a table that is cut short still has all rows.
    if _DATASET.value:
        bench = bench_runs(_DATASET.value, _SOURCE.value, budget, seeds)
        runs = [run for run in bench if run.method in methods]
    else:
        runs = [TableRun(method, seed, budget) for seed in seeds for method in methods]
    minutes = math.inf if _MINUTES.value is None else _MINUTES.value
    if _TUNE.value:
        searches = [run for run in runs if run.seed == seeds[0] and not is_searched(run, out)]
        make_runs(searches, Path(_RUNS.value), out, _JOBS.value, minutes=minutes, make=make_search)
        return
    missing = [run for run in runs if not is_done(run, out)]
    print(f"{len(runs) - len(missing)} of {len(runs)} results are in {out}", flush=True)
    try:
        make_runs(
            missing,
            Path(_RUNS.value),
            out,
            _JOBS.value,
            minutes=math.inf if _MINUTES.value is None else _MINUTES.value,
        )
    finally:
        for dataset in sorted({run.table for run in runs}):
            print("\n" + results_table(read_budget(out / f"{dataset}.jsonl", budget)))


if __name__ == "__main__":
    launch.run(main)
