"""A grid or a random search over options of a config: which trials are missing, made together or one by one."""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from ssl_jax.cli import search_space, vectorized_runs
from ssl_jax.cli.search_space import RESULT, Grid, LoadConfig, Trial
from ssl_jax.config import build
from ssl_jax.core import commands
from ssl_jax.core.bucket import BucketPath
from ssl_jax.core.check import require
from ssl_jax.core.files import write_atomically
from ssl_jax.train.signals import StopRequest
from ssl_jax.train.workdir import Workdir
from ssl_jax.train.writers import last_scalars, read_jsonl

MODES = ("auto", "vectorized", "processes")


class Search(NamedTuple):
    """What a sweep searches and how.

    Attributes:
      grid: names of options and their values.
      draws: of a random search; 0: every combination.
      seed: of the random search.
      mode: how trials share the machine, of :data:`MODES`.
      width: trials in one vectorized program.
      jobs: processes at a time.
      arguments: flags of ``experiments.pretrain`` that say the config, for trials that are processes.
    """

    grid: Grid
    draws: int = 0
    seed: int = 0
    mode: str = "auto"
    width: int = 8
    jobs: int = 1
    arguments: tuple[str, ...] = ()


def sweep(load: LoadConfig, root: Path, search: Search) -> None:
    """Make the trials that are missing, then print the table.

    Args:
      load: makes the config with other values at dotted names.
      root: folder of the sweep.
      search: what to search and how.

    Raises:
      ValueError: an option or value that the config does not have, or trials that failed.
    """
    names = tuple(search.grid)
    require(bool(names), "grid", names, "given once or more, such as --grid=method.temperature=0.1,0.2")
    # The images are counted and measured once.
    load = functools.partial(load, recorded=build.to_dict(load({})))
    trials = [
        search_space.make_trial(load, overrides, root)
        for overrides in search_space.combinations(search.grid, draws=search.draws, seed=search.seed)
    ]
    with Workdir(root):
        missing = [trial for trial in trials if not search_space.is_done(trial)]
        print(f"{len(trials) - len(missing)} of {len(trials)} runs are in {root}", flush=True)
        stopped_by = run_trials(missing, root, search) if missing else ""
        rows = [_read_result(trial) for trial in trials if (trial.folder / RESULT).exists()]
        write_atomically(root / "sweep.json", json.dumps(rows, indent=1) + "\n")
    if rows:
        print("\n" + search_space.results_table(rows))
    if stopped_by:
        print(f"stopped by {stopped_by}, saved; the same command goes on from there")


def run_trials(missing: Sequence[Trial], root: Path, search: Search) -> str:
    """Train what is missing; returns the name of a signal that ended it early, else empty."""
    obstacles = (vectorized_runs.obstacle(trial.config, trial.overrides) for trial in missing)
    obstacle = next(filter(None, obstacles), "")
    if search.mode == "vectorized":
        require(not obstacle, "mode", "vectorized", f"processes: {obstacle}")
    if search.mode == "processes":
        return run_processes(missing, search)
    try:
        if not obstacle:
            return run_vectorized(missing, root, width=search.width)
    except vectorized_runs.NotTraceableError as error:
        if search.mode == "vectorized":
            raise
        obstacle = str(error)
    print(f"one process a run: {obstacle}", flush=True)
    return run_processes(missing, search)


def run_vectorized(missing: Sequence[Trial], root: Path, *, width: int) -> str:
    """Train as one program, ``width`` at a time; returns the name of a signal that ended it early, else empty."""
    channels = build.run_objects(missing[0].config).source.channels
    for first in range(0, len(missing), width):
        trials = [
            trial._replace(config=build.with_changes(trial.config, {"data.channels": channels}))
            for trial in missing[first : first + width]
        ]
        names = "; ".join(trial.folder.name for trial in trials)
        print(f"{len(trials)} runs in one program: {names}", flush=True)
        # The checkpoints of just these runs.
        configs = json.dumps([[str(trial.folder), trial.config] for trial in trials])
        mark = hashlib.sha256(configs.encode()).hexdigest()[:12]
        trained = vectorized_runs.train(trials, root / f".vectorized-{mark}")
        if trained.stopped_by:
            return trained.stopped_by
        for trial, finite in zip(trials, trained.finite, strict=True):
            search_space.write_result(trial, diverged=not finite)
    return ""


def run_processes(missing: Sequence[Trial], search: Search) -> str:
    """Train each in a process of its own; returns the name of a signal that ended it early, else empty.

    Raises:
      ValueError: some failed for another reason than that they diverged.
    """
    with StopRequest() as stop, concurrent.futures.ThreadPoolExecutor(search.jobs) as pool:
        codes = list(pool.map(lambda trial: run_process(trial, stop, search.arguments), missing))
    failed = [trial.folder.name for trial, code in zip(missing, codes, strict=True) if code]
    if failed:
        raise ValueError(
            f"{len(failed)} runs failed, see pretrain.log in {', '.join(failed)}; the same command tries them again"
        )
    return stop.requested


def run_process(trial: Trial, stop: StopRequest, arguments: Sequence[str]) -> int:
    """Run ``experiments.pretrain``; returns its exit code, 0 also where it diverged, which is a result, or was to stop."""
    if stop.requested:
        return 0
    options = [f"--config.{path}={value}" for path, value in trial.overrides.items()]
    command = [*commands.launcher("pretrain"), *arguments, *options]
    trial.folder.mkdir(parents=True, exist_ok=True)
    with _open_log(trial.folder / "pretrain.log") as log:
        process = subprocess.Popen([*command, f"--workdir={trial.folder}"], stdout=log, stderr=log)
        terminated = False
        while process.poll() is None:
            if stop.requested and not terminated:
                process.terminate()
                terminated = True
            time.sleep(0.2)
    code = process.returncode
    diverged = code != 0 and (trial.folder / "nonfinite").exists()
    records = trial.folder / "metrics.jsonl"
    complete = code == 0 and last_scalars(read_jsonl(records)).get("step") == trial.config["steps"]
    if diverged or complete:
        search_space.write_result(trial, diverged=diverged)
    ended = "diverged" if diverged else "failed" if code else "done" if complete else "stopped"
    print(f"{trial.folder.name}: {ended}", flush=True)
    return 0 if diverged else code


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[IO[bytes]]:
    """Append to a log; in a bucket, which cannot append, it is written anew when the process has ended."""
    if not isinstance(path, BucketPath):
        with path.open("ab") as log:
            yield log
        return
    with tempfile.TemporaryFile() as log:
        log.write(path.read_bytes() if path.exists() else b"")
        log.flush()
        yield log
        log.seek(0)
        path.write_bytes(log.read())


def _read_result(trial: Trial) -> dict[str, Any]:
    return json.loads((trial.folder / RESULT).read_text())
