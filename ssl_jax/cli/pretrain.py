"""Pretraining in a folder: ``experiments.pretrain``, and what a sweep's runs do."""

import json
import shlex
import tempfile
from pathlib import Path

import jax
import numpy as np

from ssl_jax.config import build, weights
from ssl_jax.config.images import open_images
from ssl_jax.core import commands, trees
from ssl_jax.core.bucket import is_bucket
from ssl_jax.data.fingerprint import compare, fingerprint
from ssl_jax.data.labels import with_all_labels
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.collapse_watch import CollapseWatch, print_warning
from ssl_jax.evaluate.label_free import SCALAR, OnlineLabelFree
from ssl_jax.evaluate.online import Health, OnlineEvaluation
from ssl_jax.methods.method import Method
from ssl_jax.train import storage
from ssl_jax.train.checkpoint import Checkpoints, steps
from ssl_jax.train.dump import read_dump
from ssl_jax.train.loop import fit
from ssl_jax.train.program import make_program
from ssl_jax.train.run import Hook, Watch
from ssl_jax.train.sharding import batch_sharding
from ssl_jax.train.signals import StopRequest
from ssl_jax.train.workdir import (
    CONFIG,
    INCIDENTAL,
    Ties,
    Workdir,
    difference_of_images,
    read_images,
    refusal_of_images,
    tie_to,
)
from ssl_jax.train.writers import JsonlWriter, MultiWriter, TensorBoardWriter, WandbWriter, Writer

WARMUP_STEPS = 50
"""Steps, or a tenth of the run if that is more, before features are judged: many losses begin at their collapse constant."""


def previous_config(folder: Path) -> build.Config:
    """Read the config of the run in a folder; empty if there is none."""
    return build.read_config(folder) if (folder / CONFIG).exists() else {}


def pretrain(config: build.Config, folder: Path, *, allow_changes: bool = False) -> None:
    """Train as the config says, from the last checkpoint in the folder if there is one.

    Raises:
      ValueError: the config does not fit, or differs from that of the run in the folder.
    """
    # Before anything is written: a run that cannot start leaves no folder.
    storage.resolve_directory(folder)
    try:
        objects = build.run_objects(config, starts=not steps(folder / "checkpoints"))
    except ValueError as error:
        raise_for_changed_images(config, folder, error)
        raise
    with Workdir(folder, primary=jax.process_index() == 0) as workdir:
        train(config, objects, workdir, allow_changes=allow_changes)


def train(
    config: build.Config, objects: build.RunObjects, workdir: Workdir, *, allow_changes: bool = False
) -> None:
    """Train in a workdir that is held; say with how many images, and how it ended."""
    method, _, source = objects
    config = {**config, "data": {**config["data"], "channels": source.channels}}
    host = build.host(config)
    workdir.configure(config, allowed=INCIDENTAL, allow_changes=allow_changes)
    workdir.record_images(fingerprint(source), ties=ties_of(config, method), allow_changes=allow_changes)
    first = jax.process_index() == 0
    if weights.start_of(config) is not None:
        if steps(workdir.path / "checkpoints"):
            weights.note_changed_file(workdir.path)
        elif first:
            weights.record_start(workdir.path, config)
    if first:
        print(describe_length(config, len(source)), flush=True)
    # Signals after the last step wait until it is saved.
    with (
        StopRequest(alone=jax.process_count() == 1),
        open_checkpoints(config, workdir.path, source) as checkpoints,
    ):
        watch = Watch(
            writer=(lambda step: open_writer(workdir.path, config, method, step)) if first else None,
            # Watching uses every label, also where training sees few of them.
            hooks=make_hooks(config, method, with_all_labels(source)),
            checkpoints=checkpoints,
            dumps=workdir.path / "nonfinite",
            log_every=config["watch"]["log"]["every"],
            stall_seconds=config["watch"]["log"]["stall_seconds"],
        )
        fitted = fit(build.run(config, objects), host, watch)
    step = int(fitted.state.step)
    if not first:
        return
    if fitted.stopped_by:
        print(f"stopped by {fitted.stopped_by} after step {step}, saved; the same command goes on from there")
    else:
        command = f"{commands.command('evaluate')} --workdir={shlex.quote(str(workdir.path))}"
        print(f"done: {step} steps in {workdir.path}; next: {command}")


def ties_of(config: build.Config, method: Method) -> Ties:
    """Say what ties a run to its images: what it keeps for each, the draw of few labels, the numbers of classes.

    Args:
      config: config of the run.
      method: method of the run.
    """
    name, few = config["method"]["name"], config["data"].get("num_labels")
    learns_classes = method.classify is not None or "classes" in config["method"]
    kept = f"{name} keeps something for each image by its position, which would be that of another"
    drawn = f"the {few} images that have a label are drawn from all, and would be others"
    numbers = f"{name} knows classes by their number, which would mean others"
    images = kept if method.keeps_images else drawn if few else ""
    return Ties(images, numbers if learns_classes else drawn if few else "")


def raise_for_changed_images(config: build.Config, folder: Path, error: ValueError) -> None:
    """Raise where a run that cannot go on could have done so with the images that it was started with.

    Args:
      config: config of the run.
      folder: folder of the run.
      error: why it cannot go on.

    Raises:
      ValueError: says what has changed.
    """
    try:
        recorded = read_images(folder)
        if recorded is None:
            return
        images = open_images(config, config["data"]["source"], config["data"]["split"])
        changes = compare(recorded, fingerprint(images))
        tie = tie_to(changes, ties_of(config, build.method(config)))
    except (ValueError, OSError):
        return
    if changes and tie:
        raise ValueError(refusal_of_images(folder, changes, tie, possible=False)) from error
    if changes:
        raise ValueError(f"{difference_of_images(folder, changes)}. With them, {error}") from error


def describe_length(config: build.Config, num_images: int) -> str:
    """Say how long a run is, in images and in steps.

    >>> describe_length({"data": {"source": "folder:cats"}, "steps": 100, "batch_size": 32}, 640)
    '640 images in folder:cats: 100 steps of 32 are 5 epochs'
    """
    epochs = config["steps"] * config["batch_size"] / num_images
    batches = f"{config['steps']} steps of {config['batch_size']}"
    return f"{num_images} image{'s' * (num_images > 1)} in {config['data']['source']}: {batches} are {epochs:.3g} epochs"


def open_checkpoints(config: build.Config, folder: Path, source: Source) -> Checkpoints:
    """Open the checkpoints of a run; the best one by the online kNN, with labels, or by the label-free score is kept too."""
    options = config["watch"]["checkpoint"]
    return Checkpoints(
        folder / "checkpoints",
        every=options["every"],
        keep=options["keep"],
        best=rank_metric(config, source),
        metadata=config,
    )


def rank_metric(config: build.Config, source: Source) -> str | None:
    """Name the scalar by which checkpoints are ranked; ``None``: none is kept for it.

    Args:
      config: config of the run.
      source: its images.
    """
    options = config["watch"]["checkpoint"]
    if options["best"] and options["rank_by"] == "label_free":
        return SCALAR
    return "online/knn" if options["best"] and source.classes else None


def make_hooks(config: build.Config, method: Method, source: Source) -> list[Hook]:
    """Make the hooks that measure a run while it goes.

    Health of the features on a small batch and on a larger sample, the online probes where there are labels, and the score of
    the label-free rule where checkpoints are ranked by it.
    """
    watch = config["watch"]
    crop_ratio = watch["evaluate"]["crop_ratio"]
    every = {"batch": watch["log"]["every"], "health": watch["online"]["every"]}
    images = {"batch": watch["health"]["batch"], "health": watch["health"]["sample"]}
    hooks: list[Hook] = [
        Health(method, source, every=every[prefix], images=count, prefix=prefix, crop_ratio=crop_ratio)
        for prefix, count in images.items()
        if count
    ]
    if source.classes:
        hooks.append(OnlineEvaluation(method, source, **watch["online"], crop_ratio=crop_ratio))
    if rank_metric(config, source) == SCALAR:
        name, often = config["method"]["name"], watch["online"]["every"]
        hooks.append(OnlineLabelFree(method, source, every=often, method_name=name, crop_ratio=crop_ratio))
    return hooks


def open_writer(folder: Path, config: build.Config, method: Method, step: int) -> Writer:
    """Open what takes the scalars of a run that starts or goes on after ``step`` updates, and what watches them."""
    parts = 1 if config["cached_gradients"] else config["accumulate"]
    log = config["watch"]["log"]
    writers: list[Writer] = [
        JsonlWriter(folder / "metrics.jsonl", resume_step=step + 1),
        CollapseWatch(
            collapse=[value.at(config["batch_size"] // parts) for value in method.collapse],
            after=max(config["steps"] // 10, WARMUP_STEPS),
            warn=print_warning,
            path=folder / "warnings.jsonl",
            start=step,
        ),
    ]
    if log["tensorboard"]:
        writers.append(TensorBoardWriter(folder / "tensorboard", resume_step=step + 1))
    if log["wandb"]:
        # Its own files, which it sends by itself, cannot lie in a bucket.
        local = tempfile.mkdtemp(prefix="ssl_jax-wandb-") if is_bucket(folder) else str(folder)
        writers.append(WandbWriter(project=log["wandb"], name=folder.name, config=config, dir=local))
    return MultiWriter(writers)


def replay(dump: Path) -> None:
    """Run a dumped step again and say which gradients and outputs were not finite."""
    workdir = dump.resolve().parent.parent
    config = build.read_config(workdir)
    method, optimizer = build.method(config), build.optimizer(config)
    mesh = build.mesh(config)
    options = {name: config[name] for name in ("accumulate", "cached_gradients")}
    program = make_program(method, optimizer, build.sample(config), mesh, **options)
    state, batch = read_dump(dump, program.abstract)
    batch = jax.device_put(batch, batch_sharding(mesh))
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = program.step(state, batch)
    scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
    print(json.dumps(scalars, indent=2))
    for path, leaf in trees.flatten(before).items():
        if not np.isfinite(leaf).all():
            print(f"not finite before the step: params/{path}")
