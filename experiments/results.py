"""The results tables: every method, mostly on full Fashion-MNIST, three seeds, next to baselines; trains what is missing.

    python -m experiments.results
    python -m experiments.results --methods=simclr,byol --seeds=0
    python -m experiments.results --jobs=2
    python -m experiments.results --quickstart

Each run is ``experiments.pretrain`` with the committed config ``configs/<method>.py:fashion_mnist,<budget>``, then
``experiments.evaluate``; methods that need colors or clips have a dataset of their own. The budget is ``short`` on a CPU and
``paper`` on an accelerator. Results are rows of ``results/<dataset>.jsonl``, one a method, seed and budget. A run whose row has
the same config is not made again; one that was stopped goes on. ``python -m docs.tables`` writes the tables of README and docs
from the rows. ``--quickstart`` makes the run of the README's first command instead, a row of ``results/quickstart.jsonl``.
"""

from pathlib import Path

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.cpu import accelerated
from ssl_jax.cli.results import TableRun, is_done, make_quickstart, make_runs, read_budget
from ssl_jax.cli.tables import dataset_of, results_table
from ssl_jax.core.check import choice
from ssl_jax.methods.registry import names

ROOT = Path(__file__).parent.parent
_METHODS = flags.DEFINE_list("methods", None, "Methods; default: all.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_BUDGET = flags.DEFINE_string("budget", None, "short or paper; default: short on a CPU, paper elsewhere.")
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
    # One seed of every method first: a table that is cut short still has all rows.
    runs = [TableRun(method, seed, budget) for seed in launch.parse_seeds(_SEEDS.value) for method in methods]
    missing = [run for run in runs if not is_done(run, out)]
    print(f"{len(runs) - len(missing)} of {len(runs)} results are in {out}", flush=True)
    try:
        make_runs(missing, Path(_RUNS.value), out, _JOBS.value)
    finally:
        for dataset in sorted({dataset_of(method) for method in methods}):
            print("\n" + results_table(read_budget(out / f"{dataset}.jsonl", budget)))


if __name__ == "__main__":
    launch.run(main)
