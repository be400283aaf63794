"""The results tables: every method, mostly on full Fashion-MNIST, three seeds, beside the yardsticks; trains what is missing.

    python -m experiments.results
    python -m experiments.results --methods=simclr,byol --seeds=0
    python -m experiments.results --jobs=2

Each run is ``experiments.pretrain`` with the committed recipe ``configs/<method>.py:fashion_mnist,<budget>``, then
``experiments.evaluate``; methods that need colours or clips have a dataset of their own. The budget is ``short`` on a CPU and
``paper`` on an accelerator, in folders of their own: ``docs/results/<dataset>/<budget>/<method>-<seed>.json``. A run whose file
is there and whose config is the same is not made again; one that was stopped goes on. ``python -m docs.tables`` writes the
tables of README and docs from the files.
"""

import concurrent.futures
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.cpu import accelerated
from ssl_jax.cli.tables import dataset_of, results_table
from ssl_jax.config import build
from ssl_jax.core.check import choice
from ssl_jax.core.files import write_atomically
from ssl_jax.methods.registry import names
from ssl_jax.train.writers import read_jsonl

ROOT = Path(__file__).parent.parent
MEASURES = ("knn", "linear", "few", "health", "rotation")
FINE_TUNED = ("lejepa", "simclr")
"""Methods whose encoders are fine-tuned too, beside the masked ones, which rank differently when frozen."""
FIRST_OF_KIND = {
    "simclr": ("pixels", "pca", "random"),
    "mae": ("random",),
    "beit": ("random",),
    "colorization": ("pixels", "random"),
    "dbn": ("random",),
    "directclr": ("random",),
    "dvae": ("random",),
    "greedy": ("random",),
    "ijepa": ("random",),
    "knowledge": ("random",),
    "ladder": ("random",),
    "moco_v3": ("random",),
    "time_contrastive": ("pixels", "random"),
}
"""Yardsticks that a method's runs measure on behalf of all: one method for each encoder; pixels with seed 0 only."""
ENCODER = "encoder.safetensors"
TEACHERS = {
    "knowledge": ("simclr", "method.teacher"),
    "bownet": ("simclr", "method.teacher"),
    "beit": ("dvae", "method.tokenizer"),
}
"""Methods that learn from the encoder of another one's run with the same seed, and the option that takes its file."""
WITH_TEACHER = {"knowledge": {"method.pairing": "same"}}
"""What their configs have beyond the recipe then, and the teacher."""
_METHODS = flags.DEFINE_list("methods", None, "Methods; default: all.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_BUDGET = flags.DEFINE_string("budget", None, "short or paper; default: short on a CPU, paper elsewhere.")
_RUNS = flags.DEFINE_string("runs", "runs/results", "Folder for the runs themselves.")
_OUT = flags.DEFINE_string("out", str(ROOT / "docs/results"), "Folder for the result files.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time, which share the CPU's cores evenly.", lower_bound=1)


def main() -> None:
    """Make the runs that are missing, then print the table."""
    budget = _BUDGET.value or ("paper" if accelerated() else "short")
    methods = [choice("methods", name, names()) for name in _METHODS.value or names()]
    seeds = launch.seeds(_SEEDS.value)
    out = Path(_OUT.value)
    # One seed of every method first: a table that is cut short still has all rows.
    wanted = [(method, seed) for seed in seeds for method in methods]
    missing = [run for run in wanted if not done(*run, budget, out)]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} results are in {out}", flush=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    jobs = min(_JOBS.value, max(len(cores), 1))
    shares = [cores[i::jobs] for i in range(jobs)]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        made = [pool.submit(make, method, seed, budget, out, shares) for method, seed in missing]
        failed = [future for future in concurrent.futures.as_completed(made) if not told(future)]
    for dataset in sorted({dataset_of(method) for method in methods}):
        print("\n" + results_table(out / dataset / budget))
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(made)} runs failed, see above; the same command tries them again"
        )


def told(run: concurrent.futures.Future[str]) -> bool:
    """Say how a run ended, when it ends; whether it went well."""
    try:
        print(run.result(), flush=True)
    except (ValueError, OSError) as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
        return False
    return True


def file_of(method: str, seed: int, budget: str, out: Path) -> Path:
    """Where the result of a run is kept."""
    return out / dataset_of(method) / budget / f"{method}-{seed}.json"


def config_of(method: str, seed: int, budget: str) -> build.Config:
    """The committed recipe of a method, with a seed."""
    config = importlib.import_module(f"configs.{method}").get_config(f"{dataset_of(method)},{budget}")
    config.seed = seed
    config.update_from_flattened_dict(from_teacher(method, seed, Path()))
    return build.plain(config)


def from_teacher(method: str, seed: int, runs: Path) -> dict[str, str]:
    """What the config of a method with a teacher has beyond its recipe; the teacher's folder lies among the runs."""
    if method not in TEACHERS:
        return {}
    return {
        TEACHERS[method][1]: str(teacher_folder(method, seed, runs) / ENCODER),
        **WITH_TEACHER.get(method, {}),
    }


def teacher_folder(method: str, seed: int, runs: Path) -> Path:
    """The folder with the encoder that teaches a run."""
    return runs / f"{TEACHERS[method][0]}-{seed}-encoder"


def done(method: str, seed: int, budget: str, out: Path) -> bool:
    """Whether the result of just this config is there."""
    path = file_of(method, seed, budget, out)
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    if "finetune" in measures_of(method) and "finetune_1_percent" not in result["evaluation"]["rows"][-1]:
        return False
    return build.same(result["config"], config_of(method, seed, budget), beside=("evaluate",))


def measures_of(method: str) -> tuple[str, ...]:
    """What is measured of a method's encoder."""
    tuned = method in FINE_TUNED or ".masked." in names()[method]
    return (*MEASURES, "finetune") if tuned else MEASURES


def make(method: str, seed: int, budget: str, out: Path, shares: list[list[int]]) -> str:
    """Train and evaluate one run on a share of the cores, and write its result file."""
    share = shares.pop()
    try:
        workdir = Path(_RUNS.value) / budget / f"{method}-{seed}"
        recipe = f"--config=configs/{method}.py:{dataset_of(method)},{budget}"
        taught = [f"--config.{name}={v}" for name, v in from_teacher(method, seed, workdir.parent).items()]
        if taught:
            folder = teacher_folder(method, seed, workdir.parent)
            if not (folder / ENCODER).exists():
                name, _ = TEACHERS[method]
                teacher = workdir.with_name(f"{name}-{seed}")
                of_teacher = f"--config=configs/{name}.py:{dataset_of(name)},{budget}"
                run(["pretrain", of_teacher, f"--config.seed={seed}", f"--workdir={teacher}"], share, teacher)
                run(["export", f"--workdir={teacher}", f"--out={folder}"], share, teacher)
        yardsticks = [name for name in FIRST_OF_KIND.get(method, ()) if seed == 0 or name == "random"]
        pretrain = ["pretrain", recipe, f"--config.seed={seed}", f"--workdir={workdir}", *taught]
        evaluate = [
            "evaluate",
            f"--workdir={workdir}",
            f"--measures={','.join(measures_of(method))}",
            f"--yardsticks={','.join(yardsticks)}",
        ]
        spent = {"pretrain": run(pretrain, share, workdir)}
        last = final(read_jsonl(workdir / "metrics.jsonl"))
        steps = config_of(method, seed, budget)["steps"]
        if last["step"] < steps:
            raise ValueError(f"{method}, seed {seed}, was stopped at step {last['step']} of {steps}")
        spent["evaluate"] = run(evaluate, share, workdir)
        result = {
            "method": method,
            "seed": seed,
            "budget": budget,
            "config": config_of(method, seed, budget),
            "commands": [
                " ".join(["python -m", f"experiments.{a[0]}", *a[1:]]) for a in (pretrain, evaluate)
            ],
            "date": datetime.now(UTC).date().isoformat(),
            "cpu_seconds": spent,
            "final": last,
            "evaluation": json.loads((workdir / "evaluation.json").read_text()),
        }
        path = file_of(method, seed, budget, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(result, indent=1) + "\n")
    finally:
        shares.append(share)
    return f"{method}, seed {seed}: {spent['pretrain']:.0f} CPU seconds of training, {spent['evaluate']:.0f} of evaluation"


def final(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last value of each scalar of a run."""
    last: dict[str, Any] = {}
    for record in records:
        last |= record
    return last


def run(arguments: Sequence[str], cores: Sequence[int], workdir: Path) -> float:
    """Run a launcher on some cores, its output in a log beside the workdir.

    Returns:
      Processor seconds of all its threads, which other work on the machine changes little; added up over the times that a
      run was stopped and went on.

    Raises:
      ValueError: it failed; ends with what it said last.
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
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    account = log.with_suffix(".cpu")
    spent = usage.ru_utime + usage.ru_stime + (float(account.read_text()) if account.exists() else 0.0)
    account.write_text(f"{spent:.1f}")
    if code:
        last = " ".join(log.read_text().strip().splitlines()[-2:])
        raise ValueError(f"{' '.join(arguments)} failed (exit code {code}), log in {log}: {last}")
    return round(spent, 1)


if __name__ == "__main__":
    launch.run(main)
