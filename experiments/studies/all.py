"""Makes the runs of all studies that are missing, the most telling studies first.

    python -m experiments.studies.all --minutes=60
    python -m experiments.studies.all --studies=projector,guillotine
    python -m experiments.studies.all --plan

A run that several studies have is made once, with all that any of them measures. The command may be stopped and started again
at any time: each run is a row as soon as it is there, and only rows that are missing are made. With ``--minutes`` no run begins
that would end later. ``--plan`` prints what there is to do and what it takes, and runs nothing.
"""

from pathlib import Path

from absl import flags

from experiments.studies import RESULTS, studies
from experiments.studies.command import define_flags, draw, folder_of, with_source
from experiments.studies.plan import ORDER, core_seconds, plan_table
from ssl_jax.cli import launch
from ssl_jax.cli.study import is_complete
from ssl_jax.cli.study_runs import copy_shared, missing_tasks, read_results, run_tasks
from ssl_jax.core.check import choice


def main(
    names: list[str], seeds: list[int], jobs: int, out: Path, source: str, minutes: float | None
) -> None:
    """Make the missing runs of some studies, the rows into the folder ``out``."""
    every = {study.name: study for study in with_source(list(studies().values()), source)}
    for name in names:
        choice("--studies", name, tuple(every))
    chosen = [every[name] for name in ORDER if name in names]
    paths = {name: out / f"{name}.jsonl" for name in every}
    others = list(every.values())

    def copy() -> None:
        for study in chosen:
            copy_shared(study, seeds, paths[study.name], others)

    copy()
    tasks = [
        task._replace(expected_seconds=core_seconds(task.study, task.variant, task.sharing))
        for task in missing_tasks(chosen, seeds, paths, others)
    ]
    runs = sum(len(task.seeds) for task in tasks)
    spent = sum(len(task.seeds) * task.expected_seconds for task in tasks) / 60
    print(f"{runs} runs are missing, about {spent:.0f} core-minutes", flush=True)
    for line in run_tasks(tasks, jobs, minutes=minutes):
        print(line, flush=True)
        copy()
    for study in chosen:
        results = read_results(study, seeds, paths[study.name])
        complete = is_complete(study, results)
        print(f"{study.name}: {'complete' if complete else 'not complete'}")
        if complete and out == RESULTS:
            draw(study, results)


if __name__ == "__main__":
    SEEDS, JOBS, OUT, SOURCE = define_flags()
    STUDIES = flags.DEFINE_list("studies", list(ORDER), "Names of studies.")
    MINUTES = flags.DEFINE_float(
        "minutes", None, "Stop after these; by default when all is done.", lower_bound=0
    )
    PLAN = flags.DEFINE_boolean("plan", False, "Print the plan and run nothing.")
    launch.run(
        lambda: (
            print(plan_table())
            if PLAN.value
            else main(
                STUDIES.value,
                launch.parse_seeds(SEEDS.value),
                JOBS.value,
                folder_of(OUT.value, SOURCE.value),
                SOURCE.value,
                MINUTES.value,
            )
        )
    )
