"""The runs of the results tables: which there are, which are missing, and how one is made and stored as a row.

A run is ``experiments.pretrain`` with the committed config of a method, then ``experiments.evaluate``, each in a process of
its own.
"""

import concurrent.futures
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ssl_jax.cli.configs import make_config
from ssl_jax.cli.tables import ELSEWHERE, dataset_of
from ssl_jax.cli.two_stage import ENCODER
from ssl_jax.config import build
from ssl_jax.config.find import import_config
from ssl_jax.core.rows import Row, read_rows, write_row
from ssl_jax.methods.registry import names
from ssl_jax.train.workdir import INCIDENTAL, Difference, differences
from ssl_jax.train.writers import last_scalars, read_jsonl

BENCHES = ("color32", "color64")
"""Tables of natural images in color."""
FIRST = (
    *(
        "simclr",
        "supervised",
        "mae",
        "byol",
        "vicreg",
        "dino",
        "simsiam",
        "swav",
        "moco_v3",
        "ijepa",
        "lejepa",
    ),
    *("rotation", "autoencoder", "colorization", "jigsaw", "essl", "spectral", "cpc", "dbot", "deepcluster"),
    *(
        "barlow",
        "moco_v2",
        "npid",
        "nnclr",
        "ibot",
        "dinov2",
        "relative_location",
        "counting",
        "context_encoder",
    ),
)
"""Methods whose runs are made before those of the others: the most telling ones."""
MEASURES = ("knn", "linear", "few", "health", "rotation")
FINE_TUNED = ("lejepa", "simclr")
"""Methods whose encoders are fine-tuned too, as the masked ones are, which rank differently when frozen; in the tables of the
bench every method's are, with seed 0."""
BASELINES = {
    "simclr": ("pixels", "pca", "random"),
    "mae": ("random",),
    "beit": ("random",),
    "colorization": ("pixels", "random"),
    "cpc": ("random",),
    "dbn": ("random",),
    "directclr": ("random",),
    "dvae": ("random",),
    "greedy": ("random",),
    "ijepa": ("random",),
    "knowledge_distillation": ("random",),
    "ladder": ("random",),
    "moco_v3": ("random",),
    "time_contrastive": ("pixels", "random"),
}
"""Baselines that a method's runs measure on behalf of all: one method for each encoder; pixels with seed 0 only."""
TEACHERS = {
    "knowledge_distillation": ("simclr", "method.teacher"),
    "bownet": ("simclr", "method.teacher"),
    "beit": ("dvae", "method.tokenizer"),
}
"""Methods that learn from the encoder of another one's run with the same seed, and the option that takes its file."""
WITH_TEACHER = {"knowledge_distillation": {"method.pairing": "same"}}
"""Config changes of such methods beyond the teacher."""


class TableRun(NamedTuple):
    """One run of a table.

    Attributes:
      method: Method, whose committed config it has.
      seed: Seed.
      budget: ``short`` or ``paper``.
      dataset: Dataset, the name of a table; ``""``: that of the method in the table of gray images.
      encoder: Encoder; ``""``: that of the recipe.
      source: Where the images are; ``""``: where the dataset says.
    """

    method: str
    seed: int
    budget: str
    dataset: str = ""
    encoder: str = ""
    source: str = ""

    @property
    def table(self) -> str:
        """Dataset of the run, and name of the table that its row belongs to."""
        return self.dataset or dataset_of(self.method)

    @property
    def arguments(self) -> str:
        """Dataset, encoder and budget, as they stand behind the colon of ``--config``."""
        return ",".join(filter(None, (self.table, self.encoder, self.budget)))

    @property
    def name(self) -> str:
        """Name of its folder among the runs."""
        return "-".join(filter(None, (self.method, self.encoder, str(self.seed))))


def row_key(row: Row) -> tuple[str, str, str, int]:
    """Identify the run of a row."""
    return row["budget"], row["method"], row.get("encoder", ""), row["seed"]


def run_of(row: Row) -> TableRun:
    """Tell which run a row is of."""
    return TableRun(**{name: row[name] for name in TableRun._fields if name in row})


QUICKSTART = TableRun("simclr", 0, "short")
"""The run of the README's first command, on ``embedded``."""


def rows_path(run: TableRun, folder: Path) -> Path:
    """Locate the file of a run's row: one a dataset."""
    return folder / f"{run.table}.jsonl"


def read_budget(path: Path, budget: str) -> list[Row]:
    """Read the rows of one budget from the file of a dataset."""
    return [row for row in read_rows(path) if row["budget"] == budget]


def run_config(run: TableRun, *, recorded: Mapping[str, Any] = {}) -> build.Config:
    """Make the config of a run: the committed one with its seed.

    Args:
      run: The run.
      recorded: Config of a run that was made, whose images are not opened again.
    """
    choices = {"data.source": run.source} if run.source else {}
    config = make_config(run.method, run.arguments, choices, recorded=recorded)
    config.update_from_flattened_dict(choices)
    config.seed = run.seed
    config.update_from_flattened_dict(teacher_options(run, Path()))
    return build.to_dict(config)


def teacher_options(run: TableRun, runs: Path) -> dict[str, str]:
    """List what the config of a method with a teacher has beyond the committed one; the teacher's folder lies in ``runs``."""
    if run.method not in TEACHERS:
        return {}
    file = teacher_folder(run, runs) / ENCODER
    return {TEACHERS[run.method][1]: str(file), **WITH_TEACHER.get(run.method, {})}


def teacher_folder(run: TableRun, runs: Path) -> Path:
    """Locate the folder with the encoder that teaches a run."""
    return runs / f"{run._replace(method=TEACHERS[run.method][0]).name}-encoder"


def run_measures(run: TableRun) -> tuple[str, ...]:
    """List what is measured of a run's encoder."""
    if run.dataset:
        return (*MEASURES, "label_free", "finetune") if run.seed == 0 else (*MEASURES, "label_free")
    tuned = run.method in FINE_TUNED or ".masked." in names()[run.method]
    return (*MEASURES, "finetune") if tuned else MEASURES


def is_done(run: TableRun, folder: Path) -> bool:
    """Tell whether there is a row of just this config."""
    rows = {row_key(row): row for row in read_rows(rows_path(run, folder))}
    row = rows.get(row_key(run._asdict()))
    if row is None:
        return False
    measures = run_measures(run)
    if "finetune" in measures and "finetune_1_percent" not in row["evaluation"]["rows"][-1]:
        return False
    return build.same_run(row["config"], run_config(run, recorded=row["config"]), watched=("evaluate",))


def outdated_rows(rows: Sequence[Row], configs: Sequence[build.Config]) -> list[str]:
    """List the rows whose config is not the one that it would have now.

    Args:
      rows: Rows of a table or a study.
      configs: Config of each as it is now.

    Returns:
      A line for each such row: its name, its seed and what differs.
    """
    return [
        f"{row.get('variant', row.get('method'))}, seed {row['seed']}: {'; '.join(map(str, changes))}"
        for row, config in zip(rows, configs, strict=True)
        if (changes := config_changes(row["config"], config))
    ]


def config_changes(stored: build.Config, current: build.Config) -> list[Difference]:
    """Compare two configs in what decides a result: all but where a run runs and what only watches it; evaluation counts."""
    changes = differences(json.loads(json.dumps(stored)), json.loads(json.dumps(current)))
    return [
        change
        for change in changes
        if change.path.startswith("watch.evaluate.") or change.path.partition(".")[0] not in INCIDENTAL
    ]


MakeRun = Callable[["TableRun", Path, Path, list[list[int]]], str]


def make_runs(
    missing: Sequence[TableRun],
    runs: Path,
    folder: Path,
    jobs: int,
    *,
    minutes: float = math.inf,
    make: MakeRun | None = None,
) -> None:
    """Make runs, several at a time on even shares of the cores.

    Args:
      missing: What to make.
      runs: Folder of the runs themselves.
      folder: Folder of the rows.
      jobs: Runs at a time.
      minutes: Time after which none is begun any more.
      make: What makes one, on a share of the cores; default: :func:`make_run`.

    Raises:
      ValueError: Some failed; raised after the others are made.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    jobs = min(jobs, max(len(cores), 1))
    shares = [cores[i::jobs] for i in range(jobs)]
    end = time.monotonic() + 60 * minutes

    def start(run: TableRun) -> str:
        if time.monotonic() > end:
            return f"{run.method}, seed {run.seed}: not begun in the time that was given"
        return (make or make_run)(run, runs, folder, shares)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(start, run) for run in missing]
        failures = sum(not _print_outcome(future) for future in concurrent.futures.as_completed(futures))
    if failures:
        raise ValueError(
            f"{failures} of {len(futures)} runs failed, see above; the same command tries them again"
        )


def _print_outcome(future: concurrent.futures.Future[str]) -> bool:
    """Say how a run ended, when it ends; whether it went well."""
    try:
        print(future.result(), flush=True)
    except (ValueError, OSError) as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
        return False
    return True


def make_run(run: TableRun, runs: Path, folder: Path, shares: list[list[int]]) -> str:
    """Train and evaluate one run on a share of the cores, and store its row.

    Returns:
      What it took, in words.

    Raises:
      ValueError: It failed or was stopped.
    """
    share = shares.pop()
    try:
        workdir = runs / run.dataset / run.budget / run.name
        _make_teacher(run, workdir.parent, share)
        row = _execute(run, run_config(run), commands(run, workdir), share, workdir)
        write_row(rows_path(run, folder), row, row_key)
    finally:
        shares.append(share)
    return _describe_cost(row)


def make_quickstart(workdir: Path, path: Path) -> str:
    """Make the run of the README's first command, and store its row.

    Args:
      workdir: Folder of the run.
      path: File of the row.

    Returns:
      What it took, in words.
    """
    pretrain = ["pretrain", "--config=configs/simclr.py", f"--workdir={workdir}"]
    evaluate = ["evaluate", f"--workdir={workdir}"]
    row = _execute(QUICKSTART, quickstart_config(), (pretrain, evaluate), (), workdir)
    write_row(path, row, row_key)
    return _describe_cost(row)


def quickstart_config() -> build.Config:
    """Make the config of the README's first command."""
    return build.to_dict(make_config(QUICKSTART.method))


def _execute(
    run: TableRun,
    config: build.Config,
    pretrain_and_evaluate: tuple[list[str], list[str]],
    cores: Sequence[int],
    workdir: Path,
) -> Row:
    pretrain, evaluate = pretrain_and_evaluate
    spent = {"pretrain": run_command(pretrain, cores, workdir)}
    last = last_scalars(read_jsonl(workdir / "metrics.jsonl"))
    if last["step"] < config["steps"]:
        raise ValueError(
            f"{run.method}, seed {run.seed}, was stopped at step {last['step']} of {config['steps']}"
        )
    spent["evaluate"] = run_command(evaluate, cores, workdir)
    return {
        **{name: value for name, value in run._asdict().items() if value != ""},
        "config": config,
        "commands": [f"python -m experiments.{' '.join(command)}" for command in (pretrain, evaluate)],
        "date": datetime.now(UTC).date().isoformat(),
        "cpu_seconds": spent,
        "final": last,
        "evaluation": json.loads((workdir / "evaluation.json").read_text()),
    }


def _describe_cost(row: Row) -> str:
    spent = row["cpu_seconds"]
    return (
        f"{row['method']}, seed {row['seed']}: {spent['pretrain']:.0f} CPU seconds of training, "
        f"{spent['evaluate']:.0f} of evaluation"
    )


def commands(run: TableRun, workdir: Path) -> tuple[list[str], list[str]]:
    """Arguments of ``python -m experiments.<verb>`` that train and evaluate a run, the verb first."""
    options = [f"--config.{name}={value}" for name, value in teacher_options(run, workdir.parent).items()]
    baselines = [name for name in baselines_of(run) if run.seed == 0 or name == "random"]
    evaluate = [
        "evaluate",
        f"--workdir={workdir}",
        f"--measures={','.join(run_measures(run))}",
        f"--baselines={','.join(baselines)}",
    ]
    return [*pretrain_command(run, workdir), *options], evaluate


def pretrain_command(run: TableRun, workdir: Path) -> list[str]:
    """Arguments of ``python -m experiments.<verb>`` that train a run, the verb first."""
    config = f"--config=configs/{run.method}.py:{run.arguments}"
    source = [f"--config.data.source={run.source}"] if run.source else []
    # Which of its checkpoints is best, is asked of the first seed.
    keep = ["--config.watch.checkpoint.keep=5"] if run.dataset and run.seed == 0 else []
    return ["pretrain", config, *source, f"--config.seed={run.seed}", *keep, f"--workdir={workdir}"]


def baselines_of(run: TableRun) -> tuple[str, ...]:
    """List the baselines that a run measures on behalf of all with its encoder."""
    if run.dataset and run.method in ELSEWHERE:
        return ()
    return BASELINES.get(run.method, ())


def bench_runs(dataset: str, source: str, budget: str, seeds: Sequence[int]) -> list[TableRun]:
    """List the runs of a table of the bench, the most telling ones first.

    Args:
      dataset: ``color32`` or ``color64``.
      source: Where the images are; ``""``: where the dataset says.
      budget: ``short`` or ``paper``.
      seeds: Seeds.
    """
    having = [name for name in names() if dataset in import_config(name).RECIPES]
    methods = [name for name in FIRST if name in having] + [name for name in having if name not in FIRST]
    return [TableRun(method, seed, budget, dataset, source=source) for seed in seeds for method in methods]


def _make_teacher(run: TableRun, runs: Path, share: Sequence[int]) -> None:
    """Train and export the teacher of a run, if it has one and that is not there yet."""
    if run.method not in TEACHERS or (teacher_folder(run, runs) / ENCODER).exists():
        return
    teacher = run._replace(method=TEACHERS[run.method][0])
    workdir = runs / teacher.name
    run_command(pretrain_command(teacher, workdir), share, workdir)
    run_command(["export", f"--workdir={workdir}", f"--out={teacher_folder(run, runs)}"], share, workdir)


def run_command(arguments: Sequence[str], cores: Sequence[int], workdir: Path) -> float:
    """Run a launcher on some cores, its output in a log next to the workdir.

    Returns:
      Processor seconds of all its threads, which other work on the machine changes little; added up over the times that a
      run was stopped and went on.

    Raises:
      ValueError: It failed; ends with what it said last.
    """
    log = workdir.with_name(f"{workdir.name}.{arguments[0]}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"experiments.{arguments[0]}", *arguments[1:]]
    if cores:
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
    environment = {name: value for name, value in os.environ.items() if name != "SSL_JAX_TUNE_CPU"}
    if arguments[0] == "evaluate":
        # The probes are the same programs in every run. Trainings compile theirs: their processor time is in the table.
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(workdir.parent / "compiled"))
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    account = log.with_suffix(".cpu")
    spent = usage.ru_utime + usage.ru_stime + (float(account.read_text()) if account.exists() else 0.0)
    account.write_text(f"{spent:.1f}")
    if code:
        last = " ".join(log.read_text().strip().splitlines()[-2:])
        raise ValueError(f"{' '.join(arguments)} failed (exit code {code}), log in {log}: {last}")
    return round(spent, 1)
