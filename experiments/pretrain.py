"""Pretrain an encoder without labels.

    python -m experiments.pretrain --config=configs/simclr.py --workdir=runs/first
    python -m experiments.pretrain --config=configs/dino.py:cifar10,vit_tiny --workdir=runs/dino --config.batch_size=128

The same command again goes on from the last checkpoint. Leaves ``config.json``, ``metrics.jsonl`` and
``checkpoints/<step>/`` in the workdir.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from ssl_jax.cli import launch, processes
from ssl_jax.config import build
from ssl_jax.config.recipe import with_defaults
from ssl_jax.core import trees
from ssl_jax.data.labels import with_all_labels
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.collapse_watch import CollapseWatch, tell_user
from ssl_jax.evaluate.online import Health, OnlineEvaluation
from ssl_jax.methods.method import Method
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.dump import read_dump
from ssl_jax.train.loop import Hook, fit, make_program
from ssl_jax.train.sharding import batch_sharding
from ssl_jax.train.signals import StopRequest
from ssl_jax.train.workdir import INCIDENTAL, Workdir
from ssl_jax.train.writers import JsonlWriter, MultiWriter, TensorBoardWriter, WandbWriter, Writer

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, configs/<method>.py[:dataset,backbone,budget]."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if it is missing.")
_CHANGED = flags.DEFINE_bool(
    "allow_changes", False, "Go on although the config differs from the one in the workdir."
)
_REPLAY = flags.DEFINE_string(
    "replay", None, "Folder of a dumped step to run once more, instead of training."
)

SETTLING = 50
"""Steps, or a tenth of the run if that is more, before features are judged: many losses begin at their collapse constant."""


def main() -> None:
    """Train, or replay one dumped step."""
    if _REPLAY.value is not None:
        replay(Path(_REPLAY.value))
        return
    folder = Path(launch.needed("workdir", _WORKDIR.value, "DIR"))
    if _CONFIG.value is None:
        raise ValueError("--config is missing: give --config=configs/simclr.py")
    config = build.plain(_CONFIG.value)
    with processes.joined():
        parts = build.parts(config)
        with Workdir(folder, primary=jax.process_index() == 0) as workdir:
            train(config, parts, workdir, allow_changes=_CHANGED.value)


def train(config: build.Config, parts: build.Parts, workdir: Workdir, *, allow_changes: bool = False) -> None:
    """Train as the config says, from the last checkpoint in the workdir if there is one."""
    method, optimizer, source = parts
    config = {**config, "data": {**config["data"], "channels": source.channels}}
    mesh = build.mesh(config)
    complete = functools.partial(with_defaults, new=config)
    workdir.configure(config, allowed=INCIDENTAL, allow_changes=allow_changes, complete=complete)
    saving = config["watch"]["checkpoint"]
    best = "online/knn" if saving["best"] and source.classes else None
    folder = workdir.path / "checkpoints"
    # Signals after the last step wait until it is saved.
    with (
        StopRequest(alone=jax.process_count() == 1),
        Checkpoints(
            folder, every=saving["every"], keep=saving["keep"], best=best, metadata=config
        ) as checkpoints,
    ):
        fitted = fit(
            method,
            source,
            optimizer=optimizer,
            steps=config["steps"],
            batch_size=config["batch_size"],
            seed=config["seed"],
            mesh=mesh,
            accumulate=config["accumulate"],
            cached_gradients=config["cached_gradients"],
            crop_on=config["data"]["crop_on"],
            workers=config["host"]["workers"],
            max_corrupt_fraction=config["data"]["max_corrupt_fraction"],
            # Watching uses every label, also where training sees few of them.
            hooks=hooks(config, method, with_all_labels(source)),
            writer=(lambda step: open_writer(workdir.path, config, method, step))
            if jax.process_index() == 0
            else None,
            checkpoints=checkpoints,
            dumps=workdir.path / "nonfinite",
            log_every=config["watch"]["log"]["every"],
            stall_seconds=config["watch"]["log"]["stall_seconds"],
            refresh_every=config.get("refresh_every", 0),
            labeled_fraction=build.labeled_fraction(config),
        )
    step = int(fitted.state.step)
    if jax.process_index() != 0:
        return
    if fitted.stopped_by:
        print(f"stopped by {fitted.stopped_by} after step {step}, saved; the same command goes on from there")
    else:
        print(
            f"done: {step} steps in {workdir.path}; next: python -m experiments.evaluate --workdir={workdir.path}"
        )


def hooks(config: build.Config, method: Method, source: Source) -> list[Hook]:
    """Health of the features on a small batch and on a larger sample, and with labels the online probes."""
    crop_ratio = config["watch"]["evaluate"]["crop_ratio"]
    every = {"batch": config["watch"]["log"]["every"], "health": config["watch"]["online"]["every"]}
    images = {"batch": config["watch"]["health"]["batch"], "health": config["watch"]["health"]["sample"]}
    found: list[Hook] = [
        Health(method, source, every=every[part], images=count, prefix=part, crop_ratio=crop_ratio)
        for part, count in images.items()
        if count
    ]
    if source.classes:
        found.append(OnlineEvaluation(method, source, **config["watch"]["online"], crop_ratio=crop_ratio))
    return found


def open_writer(folder: Path, config: build.Config, method: Method, step: int) -> Writer:
    """Where the scalars of a run go that starts or goes on after ``step`` updates, and what watches them."""
    parts = 1 if config["cached_gradients"] else config["accumulate"]
    collapse = [value.at(config["batch_size"] // parts) for value in method.collapse]
    writers: list[Writer] = [
        JsonlWriter(folder / "metrics.jsonl", resume_step=step + 1),
        CollapseWatch(
            collapse=collapse,
            after=max(config["steps"] // 10, SETTLING),
            tell=tell_user,
            path=folder / "warnings.jsonl",
            start=step,
        ),
    ]
    if config["watch"]["log"]["tensorboard"]:
        writers.append(TensorBoardWriter(folder / "tensorboard", resume_step=step + 1))
    if config["watch"]["log"]["wandb"]:
        writers.append(
            WandbWriter(
                project=config["watch"]["log"]["wandb"], name=folder.name, config=config, dir=str(folder)
            )
        )
    return MultiWriter(writers)


def replay(dump: Path) -> None:
    """Run a dumped step again and say which gradients and outputs were not finite."""
    workdir = dump.resolve().parent.parent
    config = build.recorded(workdir)
    method, optimizer = build.method(config), build.optimizer(config)
    mesh = build.mesh(config)
    parts = {name: config[name] for name in ("accumulate", "cached_gradients")}
    program = make_program(method, optimizer, build.sample(config), mesh, **parts)
    state, batch = read_dump(dump, program.abstract)
    batch = jax.device_put(batch, batch_sharding(mesh))
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = program.step(state, batch)
    scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
    print(json.dumps(scalars, indent=2))
    for path, leaf in trees.flatten(before).items():
        if not np.isfinite(leaf).all():
            print(f"not finite before the step: params/{path}")


if __name__ == "__main__":
    launch.run(main)
