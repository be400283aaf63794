"""The command of every study.

    python -m experiments.studies.simsiam_ablation
    python -m experiments.studies.simsiam_ablation --seeds=0 --jobs=2
    python -m experiments.studies.simsiam_ablation --source=tfds:cifar10 --out=runs/studies

Each run is a row of ``results/studies/<study>.jsonl``, with its whole config, curves and accuracies; a run whose row has the
same config is not made again, and one that another study has made is copied from its rows. The command prints the table and the
claims and draws the figure; ``python -m docs.tables`` writes the page. :mod:`experiments.studies.all` runs all studies.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.studies import FIGURES, RESULTS, SEEDS, studies
from ssl_jax.cli import launch
from ssl_jax.cli.study import Results, Study, is_complete
from ssl_jax.cli.study_pages import study_table
from ssl_jax.cli.study_runs import run_study
from ssl_jax.core.check import require


def run(study: Study) -> None:
    """Make the runs of a study that are missing, print the table and the claims, draw the figure."""
    # Defined here and not above: the pages read studies too, together with launchers with flags of the same names.
    seeds, jobs, out, source = define_flags()

    def main() -> None:
        folder = folder_of(out.value, source.value)
        mine, *others = with_source([study, *studies().values()], source.value)
        _main(mine, launch.parse_seeds(seeds.value), jobs.value, folder, others)

    launch.run(main)


def define_flags() -> tuple[flags.FlagHolder, ...]:
    """Define the flags that all commands of studies have: seeds, jobs, out, source."""
    return (
        flags.DEFINE_list("seeds", [str(seed) for seed in SEEDS], "Seeds."),
        flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Runs at a time, one core each.", lower_bound=1),
        flags.DEFINE_string("out", str(RESULTS), "Folder of the rows."),
        flags.DEFINE_string(
            "source",
            "",
            "Another copy of CIFAR-10, such as tfds:cifar10; its rows need an --out of their own.",
        ),
    )


def folder_of(out: str, source: str) -> Path:
    """Return the folder of the rows.

    Raises:
      ValueError: other images, whose rows would take the place of the committed ones.
    """
    folder = Path(out)
    require(not source or folder != RESULTS, "--out", out, f"a folder for the rows of --source={source}")
    return folder


def with_source(chosen: Sequence[Study], source: str) -> list[Study]:
    """Let the studies on CIFAR-10 read another copy of it; ``""``: their own."""
    return [study._replace(data=source) if source and study.data else study for study in chosen]


def _main(study: Study, seeds: list[int], jobs: int, out: Path, others: Sequence[Study]) -> None:
    results = run_study(study, seeds, out / f"{study.name}.jsonl", jobs, others)
    print_study(study, results)
    if out == RESULTS:
        print(f"figure: {draw(study, results)}")


def print_study(study: Study, results: Results) -> None:
    """Print the table, and of a complete study the claims."""
    print(f"\n{study_table(study, results)}\n")
    for claim in study.claims(results) if is_complete(study, results) else ():
        print(f"{claim.verdict}: {claim.text} ({claim.evidence})")


def draw(study: Study, results: Results) -> Path:
    """Draw the figure of a study beside its page."""
    from ssl_jax.cli import study_figure  # matplotlib is an optional dependency

    return study_figure.draw_study(study, results, FIGURES / f"{study.name}.svg")
