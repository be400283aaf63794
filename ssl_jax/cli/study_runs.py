"""Trains and measures the runs of studies, each on one core, and stores them as rows.

Studies share runs: what several of them ask of one config is trained once, with all that any of them measures, and its row is
copied into the file of each.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import json
import multiprocessing
import operator
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ssl_jax.data.sources import Source, take_evenly
from ssl_jax.evaluate.classifier import classifier_accuracy
from ssl_jax.evaluate.few_labels import few_labels
from ssl_jax.evaluate.finetune import finetune
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.measure import encode_source
from ssl_jax.evaluate.ridge import ridge
from ssl_jax.evaluate.rotation import IMAGES, rotation_proxy
from ssl_jax.evaluate.spectrum import effective_rank
from ssl_jax.ops.tiles import rotate
from ssl_jax.train.loop import fit
from ssl_jax.train.run import Watch
from ssl_jax.train.state import TrainState
from ssl_jax.train.workdir import INCIDENTAL

COMMON: dict[str, Any] = {
    "encoder.widths": (16, 32, 64),
    "watch.log.every": 20,
    "watch.evaluate.train_split": "train[:40%]",
    "batch_size": 128,
    "steps": 600,
}
"""What every run of a study has unless it says otherwise: half of the bench's widths, 76,800 images, probes fitted on two
fifths of the training images."""
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
    if study.data:
        config.data.source = study.data
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
    config = config_of_variant(study, variant) if rows else {}
    return [{**config, "seed": row["seed"]} for row in rows]


class Task(NamedTuple):
    """A variant of a study and the seeds of the runs that are missing.

    Attributes:
      study: The study.
      variant: Variant of it.
      seeds: Seeds to run.
      path: File of its rows.
      sharing: Studies that have the same run and measure more of it.
      expected_seconds: What a run is expected to take.
    """

    study: Study
    variant: Variant
    seeds: Sequence[int]
    path: Path
    sharing: Sequence[Study] = ()
    expected_seconds: float = 0.0


def run_study(
    study: Study, seeds: Sequence[int], path: Path, jobs: int, others: Sequence[Study] = ()
) -> Results:
    """Make the runs of a study that are missing.

    Args:
      study: The study.
      seeds: Seeds of every variant.
      path: File of its rows.
      jobs: Runs at a time, one core each.
      others: Studies with whom it may share runs; their rows lie beside its own, as ``<name>.jsonl``.

    Returns:
      Measurements by variant, of runs made before and now.
    """
    copy_shared(study, seeds, path, others)
    tasks = missing_tasks([study], seeds, {study.name: path}, others)
    total = len(study.variants) * len(seeds)
    print(f"{total - sum(len(task.seeds) for task in tasks)} of {total} runs are in {path}", flush=True)
    for line in run_tasks(tasks, jobs):
        print(line, flush=True)
    return read_results(study, seeds, path)


def missing_tasks(
    studies: Sequence[Study], seeds: Sequence[int], paths: Mapping[str, Path], others: Sequence[Study] = ()
) -> list[Task]:
    """List the runs that are missing, each config once, in the order of the studies.

    Args:
      studies: The studies to complete.
      seeds: Seeds of every variant.
      paths: Files of their rows by name.
      others: Further studies whose measures are taken of runs that they have too.
    """
    extended = {study.name: study for study in (*others, *studies)}
    by_config = _by_config(list(extended.values()))
    planned: set[tuple[str, int]] = set()
    tasks = []
    for study in studies:
        results = read_results(study, seeds, paths[study.name])
        for variant in study.variants:
            made = [row["seed"] for row in results[variant.name].rows] if variant.name in results else []
            key = _config_key(study, variant)
            left = [seed for seed in seeds if seed not in made and (key, seed) not in planned]
            if study.prepare is not None and left:
                # Runs at a time begin with different seeds, each of which is prepared once.
                turn = study.variants.index(variant) % len(left)
                left = left[turn:] + left[:turn]
            planned.update((key, seed) for seed in left)
            sharing = [extended[name] for name, _ in by_config[key] if name != study.name]
            if left:
                tasks.append(Task(study, variant, left, paths[study.name], sharing))
    return tasks


def run_tasks(tasks: Sequence[Task], jobs: int, *, minutes: float | None = None) -> Iterator[str]:
    """Make runs, in the order of the tasks, and yield a line about each task.

    Args:
      tasks: From :func:`missing_tasks`.
      jobs: Runs at a time, one core each.
      minutes: No run begins that would end later than this, by what it is expected to take and what the one before it took;
        ``None``: no limit.
    """
    deadline = None if minutes is None else time.time() + 60 * minutes
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(jobs):
        cores.put(core)
    jobs = min(jobs, os.cpu_count() or 1)
    with concurrent.futures.ProcessPoolExecutor(jobs, context, _start_worker, (cores,)) as pool:
        futures = [pool.submit(_run_seeds, task, deadline) for task in tasks]
        for future in concurrent.futures.as_completed(futures):
            if line := future.result():
                yield line


def _by_config(studies: Sequence[Study]) -> dict[str, list[tuple[str, Variant]]]:
    """Collect the variants of all studies by the config of their run."""
    found: dict[str, list[tuple[str, Variant]]] = {}
    for study in studies:
        for variant in study.variants:
            found.setdefault(_config_key(study, variant), []).append((study.name, variant))
    return found


_configs: dict[tuple[Any, ...], build.Config] = {}


def config_of_variant(study: Study, variant: Variant) -> build.Config:
    """Make the config of a variant's run with seed 0, once in a process: not to be changed."""
    changes = repr(sorted({**study.common, **variant.changes}.items()))
    asked = (study.arguments, study.data, variant.method, changes)
    if asked not in _configs:
        _configs[asked] = run_config(study, variant, 0)
    return _configs[asked]


def _config_key(study: Study, variant: Variant) -> str:
    """Write the config of a run as text, the same for runs with the same result to expect.

    The runs of studies that prepare something are their own: their configs name what may not be there.
    """
    if study.prepare is not None:
        return f"{study.name}: {variant.name}"
    config = config_of_variant(study, variant)
    parts = {name: part for name, part in config.items() if name not in INCIDENTAL}
    return json.dumps({**parts, "evaluate": config["watch"]["evaluate"]}, sort_keys=True)


def shared_variants(study: Study, others: Sequence[Study]) -> dict[str, list[tuple[str, Variant]]]:
    """Find for each variant of a study the variants of other studies with the same config, by name."""
    by_config = _by_config([other for other in others if other.name != study.name])
    return {variant.name: by_config.get(_config_key(study, variant), []) for variant in study.variants}


def copy_shared(study: Study, seeds: Sequence[int], path: Path, others: Sequence[Study]) -> int:
    """Copy rows of other studies with the config of a missing run, if all was measured that this study asks for.

    Args:
      study: The study.
      seeds: Seeds of every variant.
      path: File of its rows.
      others: Studies whose rows lie beside its own.

    Returns:
      How many rows were copied.
    """
    results = read_results(study, seeds, path)
    copied = 0
    for variant in study.variants:
        made = [row["seed"] for row in results[variant.name].rows] if variant.name in results else []
        left = [seed for seed in seeds if seed not in made]
        for name, other in shared_variants(study, others)[variant.name] if left else []:
            rows = [row for row in read_rows(path.parent / f"{name}.jsonl") if row["variant"] == other.name]
            for row in rows:
                config = {**config_of_variant(study, variant), "seed": row["seed"]}
                fits = row["seed"] in left and build.same_run(row["config"], config)
                if fits and set(demands_of(study, config)) <= set(row.get("demands", ())):
                    own = {"study": study.name, "variant": variant.name, "shared_with": name}
                    write_row(path, {**row, **own}, ROW_KEY)
                    left.remove(row["seed"])
                    copied += 1
    return copied


def demands_of(study: Study, config: build.Config) -> list[str]:
    """List what a study measures of a run, in words that rows record."""
    names = {"loss", *(name for name, _ in study.curves), *study.columns.values(), *study.watched}
    asked = {f"curve {name}" for name in names}
    asked |= {f"features {name}" for name in (study.extra(config) if study.extra is not None else {})}
    asked |= {f"untrained {name}" for name in study.layers}
    asked |= {f"spectrum {name}" for name, _ in study.spectra}
    asked |= {f"measured {name}" for name in study.measured}
    asked |= {"few"} if "few" in study.columns.values() else set()
    asked |= {"rotation"} if study.rotation else set()
    return sorted(asked | ({f"finetune {dict(study.finetune)}"} if study.finetune is not None else set()))


def measuring_more(study: Study, sharing: Sequence[Study]) -> Study:
    """Extend a study by what others measure of the same run; of fine-tuning by the first recipe."""
    every = (study, *sharing)
    extras = [each.extra for each in every if each.extra is not None]

    def extra(config: build.Config) -> dict[str, Callable[..., Any]]:
        return {name: function for make in extras for name, function in make(config).items()}

    return study._replace(
        columns={name: name for each in every for name in each.columns.values()},
        curves=tuple({name: (name, text) for each in every for name, text in each.curves}.values()),
        watched=tuple(sorted({name for each in every for name in each.watched})),
        extra=extra if extras else None,
        spectra=tuple({name: (name, text) for each in every for name, text in each.spectra}.values()),
        layers=tuple(dict.fromkeys(name for each in every for name in each.layers)),
        measured={name: function for each in every for name, function in each.measured.items()},
        finetune=next((each.finetune for each in every if each.finetune is not None), None),
        rotation=any(each.rotation for each in every),
    )


def _start_worker(cores: Any) -> None:
    """One core for each worker; programs are compiled once for all seeds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one process of this machine at a time do what has a name, such as the preparation of a seed."""
    with (Path(tempfile.gettempdir()) / f"ssl_jax-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run_seeds(task: Task, deadline: float | None) -> str:
    """Run the seeds of a task one after the other, as long as there is time."""
    study = measuring_more(task.study, task.sharing)
    spent: list[float] = []
    longest = task.expected_seconds
    for seed in task.seeds:
        start = time.time()
        if deadline is not None and start + longest > deadline:
            break
        if study.prepare is not None:
            with _alone(f"{study.name}-{seed}"):
                study.prepare(seed)
        row = run_variant(study, task.variant, seed)
        spent.append(row["cpu_seconds"])
        write_row(task.path, row, ROW_KEY)
        longest = max(longest, time.time() - start)
    if not spent:
        return ""
    return f"{study.name}, {task.variant.name}: {len(spent)} seeds, {np.mean(spent):.0f} CPU seconds each"


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
    for function in study.measured.values():
        measures |= function(config, trained)
    columns = {"step", "loss", *(name for name, _ in study.curves), *study.columns.values(), *study.watched}
    return {
        "study": study.name,
        "variant": variant.name,
        "seed": seed,
        "command": f"python -m experiments.studies.{study.name}",
        "config": config,
        "demands": demands_of(study, config),
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
        if study.rotation:
            measures[f"{prefix}rotation"] = _rotation(
                encode, variables, sources, view=method.views[0], **given
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


def _rotation(
    encode: Callable[..., Any], variables: tuple[Any, ...], sources: Sequence[Source], **options: Any
) -> float:
    """Accuracy of a linear head that tells by how much an image was turned."""

    def encode_turned(params: Any, state: Any, images: Any) -> Any:
        turned = rotate(images)
        features = encode(params, state, turned.reshape(-1, *turned.shape[2:]))
        return features.reshape(len(images), 4, -1)

    parts = (
        encode_source(take_evenly(source, count), encode_turned, variables, **options).features
        for source, count in zip(sources, IMAGES, strict=True)
    )
    return rotation_proxy(*parts).accuracy


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
