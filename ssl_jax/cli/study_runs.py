"""Trains and measures the runs of a study, each on one core, and stores them as rows."""

import concurrent.futures
import dataclasses
import multiprocessing
import operator
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.cli.configs import make_config
from ssl_jax.cli.study import FEW, Measurements, Results, Study, Variant
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.config.overrides import choices_of
from ssl_jax.core.machine import machine
from ssl_jax.core.rows import Row, read_rows, write_row
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.classifier import classifier_accuracy
from ssl_jax.evaluate.few_labels import few_labels
from ssl_jax.evaluate.finetune import finetune
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.measure import encode_source
from ssl_jax.evaluate.ridge import ridge
from ssl_jax.evaluate.spectrum import effective_rank
from ssl_jax.train.loop import fit
from ssl_jax.train.run import Watch
from ssl_jax.train.state import TrainState

COMMON: dict[str, Any] = {
    "encoder.widths": (16, 32, 64),
    "watch.log.every": 20,
    "batch_size": 64,
    "steps": 800,
}
"""What every run of a study has unless it says otherwise: a third of the results table's encoder, about 5 passes over the
10,000 images of ``embedded``."""
ROW_KEY = operator.itemgetter("variant", "seed")

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def run_config(
    study: Study, variant: Variant, seed: int, *, recorded: Mapping[str, Any] = {}
) -> build.Config:
    """Make the whole config of a run.

    Args:
      study: The study.
      variant: Variant of it.
      seed: Seed of the run, also in place of ``{seed}`` in the changes.
      recorded: Config of a run that was made: its images and weights are not opened again.
    """
    changes = {
        name: value.format(seed=seed) if isinstance(value, str) else value
        for name, value in {**study.common, **variant.changes}.items()
    }
    # Other images, or weights to start from, decide about the rest of the config.
    choices = choices_of(changes) if changes.keys() & {"data.source", "encoder.weights"} else {}
    config = make_config(variant.method, study.arguments, choices, recorded=recorded)
    # The convolutional encoder's sizes, which transformers do not have.
    common = {
        name: value for name, value in COMMON.items() if "widths" in config.encoder or "widths" not in name
    }
    config.update_from_flattened_dict({**common, **changes, "seed": seed})
    return build.to_dict(config)


def read_results(study: Study, seeds: Sequence[int], path: Path) -> dict[str, Measurements]:
    """Read the rows of a study whose config is that of the study now, by variant."""
    rows = {ROW_KEY(row): row for row in read_rows(path)}
    results = {}
    for variant in study.variants:
        stored = [rows[variant.name, seed] for seed in seeds if (variant.name, seed) in rows]
        configs = current_configs(study, variant, stored)
        current = [
            row for row, config in zip(stored, configs, strict=True) if build.same_run(row["config"], config)
        ]
        if current:
            results[variant.name] = Measurements(current)
    return results


def current_configs(study: Study, variant: Variant, rows: Sequence[Row]) -> list[build.Config]:
    """Make the configs that the runs of some rows of a variant would have now.

    What a study prepares need not be there: rows have recorded it.
    """
    if study.prepare is not None:
        return [run_config(study, variant, row["seed"], recorded=row["config"]) for row in rows]
    config = run_config(study, variant, 0) if rows else {}
    return [{**config, "seed": row["seed"]} for row in rows]


def run_study(study: Study, seeds: Sequence[int], path: Path, jobs: int) -> Results:
    """Make the runs of a study that are missing.

    Args:
      study: The study.
      seeds: Seeds of every variant.
      path: File of its rows.
      jobs: Runs at a time, one core each.

    Returns:
      Measurements by variant, of runs made before and now.
    """
    results = read_results(study, seeds, path)
    missing: list[tuple[Variant, list[int]]] = []
    for variant in study.variants:
        rows = results[variant.name].rows if variant.name in results else []
        if left := [seed for seed in seeds if seed not in [row["seed"] for row in rows]]:
            missing.append((variant, left))
    total = len(study.variants) * len(seeds)
    print(f"{total - sum(len(left) for _, left in missing)} of {total} runs are in {path}", flush=True)
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(jobs):
        cores.put(core)
    jobs = min(jobs, os.cpu_count() or 1)
    with concurrent.futures.ProcessPoolExecutor(jobs, context, _start_worker, (cores,)) as pool:
        futures = [pool.submit(_run_seeds, study, variant, left, path) for variant, left in missing]
        for future in concurrent.futures.as_completed(futures):
            print(future.result(), flush=True)
    return read_results(study, seeds, path)


def _start_worker(cores: Any) -> None:
    """One core for each worker; programs are compiled once for all seeds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _run_seeds(study: Study, variant: Variant, seeds: Sequence[int], path: Path) -> str:
    spent = []
    for seed in seeds:
        if study.prepare is not None:
            study.prepare(seed)
        row = run_variant(study, variant, seed)
        spent.append(row["cpu_seconds"])
        write_row(path, row, ROW_KEY)
    return f"{variant.name}: {len(seeds)} seeds, {np.mean(spent):.0f} CPU seconds each"


class _Curves:
    """A writer that keeps scalars in memory."""

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {"step": []}

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self.curves["step"].append(step)
        for name, value in scalars.items():
            self.curves.setdefault(name, []).append(round(float(value), 5))

    def close(self) -> None:
        """Nothing to finish."""


class TrainedVariant(NamedTuple):
    """A variant after training.

    Attributes:
      objects: Method, optimizer and training images.
      initial: State before training.
      final: State after it.
      curves: Scalars of every log step by name, and ``step``.
    """

    objects: build.RunObjects
    initial: TrainState
    final: TrainState
    curves: dict[str, list[float]]


def run_variant(study: Study, variant: Variant, seed: int) -> Row:
    """Train one variant with one seed on one core and measure it, and its encoder before training."""
    start = time.process_time()
    config = run_config(study, variant, seed)
    trained = train_variant(config)
    measures, spectra = measure_variant(study, config, trained)
    columns = {"step", "loss", *(name for name, _ in study.curves), *study.columns.values(), *study.watched}
    return {
        "study": study.name,
        "variant": variant.name,
        "seed": seed,
        "command": f"python -m experiments.studies.{study.name}",
        "config": config,
        "measures": {name: round(value, 5) for name, value in measures.items()},
        "curves": {name: values for name, values in trained.curves.items() if name in columns},
        **({"spectra": spectra} if spectra else {}),
        "cpu_seconds": round(time.process_time() - start, 1),
        "machine": machine(),
    }


def train_variant(config: build.Config) -> TrainedVariant:
    """Train the run of a config, its curves in memory."""
    objects = build.run_objects(config)
    writer, initial = _Curves(), []
    run = build.run(config, objects)
    begin = run.init_state

    def copy_state(state: TrainState) -> TrainState:
        state = state if begin is None else jax.tree.map(jnp.asarray, begin(state))
        initial.append(jax.tree.map(jnp.copy, state))  # training overwrites the state's own arrays
        return state

    run = dataclasses.replace(run, init_state=copy_state)
    fitted = fit(run, watch=Watch(writer=lambda step: writer, log_every=config["watch"]["log"]["every"]))
    return TrainedVariant(objects, initial[0], fitted.state, writer.curves)


def measure_variant(
    study: Study, config: build.Config, trained: TrainedVariant
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Measure the encoder of a trained variant, its further features, and the encoder before training.

    Returns:
      Measures by name, and spectra by the name of the features.
    """
    method, data, options = trained.objects.method, config["data"], config["watch"]["evaluate"]
    sources = [open_images(config, data["source"], options[f"{part}_split"]) for part in ("train", "test")]
    measures: dict[str, float] = {}
    spectra: dict[str, list[float]] = {}
    given = {"crop_ratio": options["crop_ratio"], "max_corrupt_fraction": data["max_corrupt_fraction"]}
    for features, (state, encode) in _encoders(study, config, trained).items():
        variables = (state.params, state.state)
        train_set, test_set = (
            encode_source(source, encode, variables, view=method.views[0], **given) for source in sources
        )
        arrays = (train_set.features, train_set.labels, test_set.features, test_set.labels)
        prefix = f"{features}_" if features else ""
        probes = _probe(arrays, len(trained.objects.source.classes), options["k"])
        if "few" in study.columns.values():
            classes = len(trained.objects.source.classes)
            probes["few"] = few_labels(
                *arrays, classes=classes, per_class=FEW, draws=3, seed=config["seed"]
            ).mean
        measures |= {f"{prefix}{name}": value for name, value in probes.items()}
        if features in [name for name, _ in study.spectra]:
            spectra[features] = spectrum(test_set.features)
        if study.finetune is not None and features in ("random", ""):
            measures[f"{prefix}finetune"] = _finetune(
                study.finetune, config, trained, state, sources, train_set.labels_in(sources[0])
            )
        if features == "":
            measures |= classifier_accuracy(sources[1], method, variables, **given)
            if method.classify is None and data["num_labels"]:
                measures["classifier"] = _few_label_accuracy(arrays, config, trained)
    return measures, spectra


def _encoders(
    study: Study, config: build.Config, trained: TrainedVariant
) -> dict[str, tuple[TrainState, Callable[..., Any]]]:
    """States and ``encode`` functions by the name of their features."""
    encode = trained.objects.method.encode
    encoders: dict[str, tuple[TrainState, Callable[..., Any]]] = {
        "random": (trained.initial, encode),
        "": (trained.final, encode),
    }
    extra = study.extra(config) if study.extra is not None else {}
    encoders |= {name: (trained.final, function) for name, function in extra.items()}
    layers = [name for name in study.layers if name in extra]
    return encoders | {f"random_{name}": (trained.initial, extra[name]) for name in layers}


def _probe(arrays: Arrays, classes: int, k: int) -> dict[str, float]:
    return {
        "knn": knn_accuracy(*arrays, classes=classes, k=k),
        "linear": float(ridge(*arrays, classes=classes).accuracy),
        "rank": float(effective_rank(arrays[2], of="covariance")),
    }


def _finetune(
    given: Mapping[str, Any],
    config: build.Config,
    trained: TrainedVariant,
    state: TrainState,
    sources: Sequence[Source],
    labels: np.ndarray,
) -> float:
    method = trained.objects.method
    options = {"view": method.views[0], "crop_ratio": config["watch"]["evaluate"]["crop_ratio"], **given}
    weights = method.encoder_variables(state.params, state.state)
    return finetune(
        method.encoder, *weights, *sources, labels=labels, seed=config["seed"], **options
    ).accuracy


def _few_label_accuracy(arrays: Arrays, config: build.Config, trained: TrainedVariant) -> float:
    """Logistic regression on the images that keep their label: draw 0 of the seed is what ``FewLabels`` keeps."""
    classes = len(trained.objects.source.classes)
    per_class = config["data"]["num_labels"] // classes
    return few_labels(*arrays, classes=classes, per_class=per_class, draws=1, seed=config["seed"]).mean


def spectrum(features: np.ndarray) -> list[float]:
    """Compute the eigenvalues of the covariance of features ``[n, d]``, falling, as log10 of their share of the largest.

    >>> spectrum(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1], [0.0, -0.1]]))
    [0.0, -2.0]
    """
    values = np.linalg.eigvalsh(np.cov(np.float64(features), rowvar=False))[::-1]
    # Below float32's resolution of the features everything is rounding.
    return np.log10(np.maximum(values / values[0], 1e-12)).round(3).tolist()
