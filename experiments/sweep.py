"""A grid or a random search over options of a config, seeds included, with a table of results.

    python -m experiments.sweep --config=configs/simclr.py --workdir=runs/sweep \\
        --over=method.temperature=0.1,0.2,0.5 --over=seed=0,1,2
    python -m experiments.sweep --config=configs/simclr.py --workdir=runs/search --random=20 \\
        --over=method.temperature=0.05:1:log --over=optimizer.learning_rate=1e-4:1e-2:log

Without ``--random``, every combination of the values of each ``--over``; with it, so many draws, a range standing for a
uniform or log-uniform distribution. Runs that differ in their seed and in numbers with decimals of method and optimizer are
lanes of one vmapped program, ``--width`` at a time (``--mode=lanes``); others are runs of ``experiments.pretrain``, ``--jobs``
at a time (``--mode=processes``); ``--mode=auto`` decides. Either way each run has a folder of its own in the workdir, with
config, metrics and last checkpoint, as every launcher takes it. What is finished is not made again, the same command goes on
where it was stopped, and further values may be added. ``sweep.json`` holds the table.
"""

import concurrent.futures
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli import search_space as points
from ssl_jax.cli import vectorized_runs as lanes
from ssl_jax.cli.search_space import RESULT, Run
from ssl_jax.config import build
from ssl_jax.core.check import require
from ssl_jax.core.files import write_atomically
from ssl_jax.train.signals import StopRequest
from ssl_jax.train.workdir import Workdir

# --config and --workdir are those of experiments.pretrain, which lanes imports.
_OVER = flags.DEFINE_multi_string(
    "over", [], "NAME=value,value,... or, for --random, NAME=low:high[:log]; repeat for more names."
)
_RANDOM = flags.DEFINE_integer("random", 0, "Draws of a random search; 0: every combination.", lower_bound=0)
_DRAW = flags.DEFINE_integer("draw", 0, "Seed of the random search.", lower_bound=0)
_MODE = flags.DEFINE_enum("mode", "auto", ["auto", "lanes", "processes"], "How runs share the machine.")
_WIDTH = flags.DEFINE_integer("width", 8, "Lanes of one program.", lower_bound=1)
_JOBS = flags.DEFINE_integer("jobs", 1, "Processes at a time.", lower_bound=1)


def main() -> None:
    """Make the runs that are missing, then print the table."""
    given = flags.FLAGS["config"].value
    root = Path(launch.needed("workdir", flags.FLAGS["workdir"].value, "DIR"))
    if given is None:
        raise ValueError("--config is missing: give --config=configs/simclr.py")
    over = dict(points.choices(text) for text in _OVER.value)
    require(bool(over), "over", _OVER.value, "given once or more, such as --over=method.temperature=0.1,0.2")
    runs = [
        points.run_of(given, point, root)
        for point in points.points(over, draws=_RANDOM.value, seed=_DRAW.value)
    ]
    with Workdir(root):
        missing = [run for run in runs if not points.done(run)]
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are in {root}", flush=True)
        stopped = make(missing, root) if missing else ""
        rows = [
            json.loads((run.folder / RESULT).read_text()) for run in runs if (run.folder / RESULT).exists()
        ]
        write_atomically(root / "sweep.json", json.dumps(rows, indent=1) + "\n")
    if rows:
        print("\n" + points.results_table(rows))
    if stopped:
        print(f"stopped by {stopped}, saved; the same command goes on from there")


def make(missing: Sequence[Run], root: Path) -> str:
    """Train what is missing; the name of a signal that ended it early, else empty."""
    against = next(filter(None, (lanes.obstacle(run.config, run.point) for run in missing)), "")
    if _MODE.value == "lanes":
        require(not against, "mode", "lanes", f"processes: {against}")
    if _MODE.value == "processes":
        return in_processes(missing)
    try:
        if not against:
            return in_lanes(missing, root)
    except lanes.NotTraceableError as error:
        if _MODE.value == "lanes":
            raise
        against = str(error)
    print(f"one process a run: {against}", flush=True)
    return in_processes(missing)


def in_lanes(missing: Sequence[Run], root: Path) -> str:
    """Lanes of one program, some at a time; the name of a signal that ended it early, else empty."""
    channels = build.parts(missing[0].config).source.channels
    for first in range(0, len(missing), _WIDTH.value):
        group = missing[first : first + _WIDTH.value]
        runs = [run._replace(config=build.changed(run.config, {"data.channels": channels})) for run in group]
        print(f"{len(runs)} lanes of one program: {'; '.join(run.folder.name for run in runs)}", flush=True)
        # The checkpoints of just these lanes.
        names = json.dumps([[str(run.folder), run.config] for run in runs])
        mark = hashlib.sha256(names.encode()).hexdigest()[:12]
        trained = lanes.train(runs, root / f".lanes-{mark}")
        if trained.stopped_by:
            return trained.stopped_by
        for run, finite in zip(runs, trained.finite, strict=True):
            points.finish(run, diverged=not finite)
    return ""


def in_processes(missing: Sequence[Run]) -> str:
    """One run of ``experiments.pretrain`` for each, some at a time; the name of a signal that ended it early, else empty.

    Raises:
      ValueError: some failed for another reason than that they diverged.
    """
    with StopRequest() as stop, concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
        codes = list(pool.map(lambda run: pretrain(run, stop), missing))
    failed = [run.folder.name for run, code in zip(missing, codes, strict=True) if code]
    if failed:
        raise ValueError(
            f"{len(failed)} runs failed, see pretrain.log in {', '.join(failed)}; the same command tries them again"
        )
    return stop.requested


def pretrain(run: Run, stop: StopRequest) -> int:
    """Exit code of the run; 0 also where it diverged, which is a result, or was told to stop."""
    if stop.requested:
        return 0
    given = [word for word in sys.argv[1:] if word.startswith(("--config=", "--config."))]
    options = [f"--config.{path}={value}" for path, value in run.point.items()]
    run.folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "experiments.pretrain",
        *given,
        *options,
        f"--workdir={run.folder}",
    ]
    with (run.folder / "pretrain.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    told = False
    while process.poll() is None:
        if stop.requested and not told:
            process.terminate()
            told = True
        time.sleep(0.2)
    code = process.returncode
    diverged = code != 0 and (run.folder / "nonfinite").exists()
    complete = code == 0 and points.final(run).get("step") == run.config["steps"]
    if diverged or complete:
        points.finish(run, diverged=diverged)
    ended = "diverged" if diverged else "failed" if code else "done" if complete else "stopped"
    print(f"{run.folder.name}: {ended}", flush=True)
    return 0 if diverged else code


if __name__ == "__main__":
    launch.run(main)
