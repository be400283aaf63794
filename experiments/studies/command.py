"""The command of every study.

    python -m experiments.studies.simsiam_ablation
    python -m experiments.studies.simsiam_ablation --seeds=0 --jobs=2

Each run is a row of ``results/studies/<study>.jsonl``, with its whole config, curves and accuracies; a run whose row has the
same config is not made again. The command prints the table and the claims and draws the figure; ``python -m docs.tables``
writes the page.
"""

import os
from pathlib import Path

from absl import flags

from experiments.studies import FIGURES, RESULTS, SEEDS
from ssl_jax.cli import launch
from ssl_jax.cli.study import Study
from ssl_jax.cli.study_pages import study_table
from ssl_jax.cli.study_runs import run_study


def run(study: Study) -> None:
    """Make the runs of a study that are missing, print the table and the claims, draw the figure."""
    # Defined here and not above: the pages read studies too, together with launchers with flags of the same names.
    seeds = flags.DEFINE_list("seeds", [str(seed) for seed in SEEDS], "Seeds.")
    jobs = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Runs at a time, one core each.", lower_bound=1)
    out = flags.DEFINE_string("out", str(RESULTS), "Folder of the rows.")
    launch.run(lambda: _main(study, launch.parse_seeds(seeds.value), jobs.value, Path(out.value)))


def _main(study: Study, seeds: list[int], jobs: int, out: Path) -> None:
    results = run_study(study, seeds, out / f"{study.name}.jsonl", jobs)
    print(f"\n{study_table(study, results)}\n")
    for claim in study.claims(results):
        print(f"{'holds' if claim.holds else 'DOES NOT HOLD'}: {claim.text} ({claim.evidence})")
    if out == RESULTS:
        from ssl_jax.cli import study_figure  # matplotlib is an optional dependency

        print(f"figure: {study_figure.draw_study(study, results, FIGURES / f'{study.name}.svg')}")
