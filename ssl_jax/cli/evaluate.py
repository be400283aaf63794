"""What a pretrained encoder is worth beside baselines and other encoders: the body of ``experiments.evaluate``."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssl_jax.cli.processes import print_once
from ssl_jax.cli.tables import evaluation_table, measure_table
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core.check import choice
from ssl_jax.core.files import write_atomically
from ssl_jax.core.machine import machine
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.baselines import flatten_pixels, pca
from ssl_jax.evaluate.measure import BASELINE, Candidate, Measure, Options, Row, Subject, encode_source
from ssl_jax.evaluate.measures import MEASURES, ON_REQUEST, parse_measures, run_measures
from ssl_jax.methods.method import Method
from ssl_jax.train.checkpoint import RestoredModel
from ssl_jax.train.features import Features
from ssl_jax.train.step import make_init

BASELINES = ("pixels", "pca", "random")
COMPONENTS = 64
"""Principal components of the baseline: probes scale each to the same variance, so that many would be mostly noise."""
FILE = "evaluation.json"


def evaluate_run(
    workdir: Path,
    *,
    step: str = "latest",
    source: str | None = None,
    splits: tuple[str | None, str | None] = (None, None),
    beside: Sequence[Path] = (),
    measures: Sequence[str] | None = None,
    baselines: Sequence[str] = BASELINES,
    max_corrupt_fraction: float | None = None,
) -> None:
    """Evaluate a run, and let the first process write ``evaluation.json`` into its folder and print the tables.

    Args:
      workdir: folder of the run.
      step: checkpoint: ``latest``, ``best`` or a number of steps.
      source: images to evaluate on; ``None``: those of the run.
      splits: splits of the training and the test images; ``None``: as the config says.
      beside: folders of other runs whose encoders are measured too.
      measures: names of measures, or ``all``; ``None``: as the config says.
      baselines: those of ``BASELINES`` to measure.
      max_corrupt_fraction: share of unreadable images above which nothing is measured; ``None``: as the config says.

    Raises:
      ValueError: an unknown measure or baseline, or images without labels for a measure that needs them.
    """
    config, method, model = build.restore(workdir, step)
    config = build.with_corrupt_fraction(config, max_corrupt_fraction)
    options = config["watch"]["evaluate"]
    chosen = parse_measures(measures or options["measures"])
    for name in baselines:
        choice("baselines", name, BASELINES)
    source = source or config["data"]["source"]
    train_split, test_split = splits[0] or options["train_split"], splits[1] or options["test_split"]
    need_labels = any("labels" in measure.needs for measure in chosen if measure.name in ON_REQUEST)
    open_split = open_labeled if need_labels else open_images
    sources = (open_split(config, source, train_split), open_split(config, source, test_split))
    candidates = [run_candidate(*build.restore(folder, "latest")) for folder in beside]
    if "random" in baselines:
        candidates.insert(0, random_candidate(config, method))
    candidates.append(run_candidate(config, method, model))
    result = {
        "workdir": str(workdir),
        "step": model.step,
        "source": source,
        "splits": (train_split, test_split),
        "machine": machine(),
        **evaluate(config, candidates, sources, measures=chosen, baselines=baselines),
    }
    if jax.process_index() == 0:
        write_atomically(workdir / FILE, json.dumps(result, indent=2) + "\n")
    print_once(f"\n{evaluation_table(result)}")
    for measure in chosen:
        if measure.own_table and result[measure.name]:
            print_once(f"\n{measure_table(measure, result[measure.name])}")
    print_once(f"\nwritten to {workdir / FILE}")


def evaluate(
    config: build.Config,
    candidates: Sequence[Candidate],
    sources: tuple[Source, Source],
    *,
    measures: Sequence[Measure],
    baselines: Sequence[str],
) -> dict[str, Any]:
    """Measure raw pixels and principal components, as asked for, and all candidates; tables of the last one.

    Args:
      config: config of the run, for its ``evaluate`` options and its training images.
      candidates: encoders; the last is the one that the evaluation is about.
      sources: training and test images.
      measures: what to measure.
      baselines: those of ``pixels`` and ``pca`` to measure.

    Returns:
      ``{"examples": [n_train, n_test], "rows": [...]}`` and the rows of each measure with a table of its own, JSON-able.
    """
    options = measure_options(config)
    in_row = [measure for measure in measures if not measure.own_table]
    rows = []

    def add_row(name: str, role: str, subject: Subject) -> None:
        facts = {"features": name, "role": role, "dims": subject.train.features.shape[1]}
        rows.append(facts | run_measures(subject, in_row))
        print_once(f"measured {name}")

    for name, (train, test) in feature_baselines(candidates[-1].method, sources, options, baselines).items():
        add_row(name, BASELINE, Subject(train, test, sources, options))
    for candidate in candidates:
        subject = candidate_subject(candidate, sources, options)
        add_row(candidate.name, candidate.role, subject)
    open_training_images = functools.partial(
        open_images, config, config["data"]["source"], config["data"]["split"]
    )
    subject = subject._replace(training_images=open_training_images)
    tables: Row = {measure.name: [] for measure in MEASURES.values() if measure.own_table}
    tables |= run_measures(subject, [measure for measure in measures if measure.own_table])
    return {"examples": [len(source) for source in sources], "rows": rows, **tables}


def measure_options(config: build.Config) -> Options:
    """Read the options of the measures from a config."""
    options = config["watch"]["evaluate"]
    share = config["data"]["max_corrupt_fraction"]
    options = {"max_corrupt_fraction": share, **options}
    return Options(**{name: options[name] for name in Options._fields})


def open_labeled(config: build.Config, spec: str, split: str) -> Source:
    """Open a split of the images to evaluate on.

    Raises:
      ValueError: no labels.
    """
    source = open_images(config, spec, split)
    if not source.classes:
        raise ValueError(
            f"{spec} ({split}) has no labels, which evaluation needs: put the images into one folder a class, or give "
            "--source with labels; experiments.embed works without"
        )
    return source


def feature_baselines(
    method: Method, sources: tuple[Source, Source], options: Options, baselines: Sequence[str]
) -> dict[str, tuple[Features, Features]]:
    """Compute the features of training and test images that need no encoder, by the name of their row.

    Args:
      method: method whose first view gives size and normalisation.
      sources: training and test images.
      options: options of the measures.
      baselines: those of ``pixels`` and ``pca`` to compute.
    """
    if not {"pixels", "pca"} & set(baselines):
        return {}
    given = {"view": method.views[0], "crop_ratio": options.crop_ratio}
    given["max_corrupt_fraction"] = options.max_corrupt_fraction
    train, test = (encode_source(source, flatten_pixels, (), **given) for source in sources)
    features = {}
    if "pixels" in baselines:
        features["raw pixels"] = (train, test)
    if "pca" in baselines:
        dims = min(COMPONENTS, train.features.shape[1])
        axes = pca(train.features, test.features, dims=dims)
        features[f"PCA of pixels, {dims} components"] = (
            train._replace(features=axes[0]),
            test._replace(features=axes[1]),
        )
    return features


def candidate_subject(candidate: Candidate, sources: tuple[Source, Source], options: Options) -> Subject:
    """Encode training and test images by a candidate."""
    variables = (candidate.params, candidate.state)
    given = {"view": candidate.method.views[0], "crop_ratio": options.crop_ratio}
    given["max_corrupt_fraction"] = options.max_corrupt_fraction
    train, test = (encode_source(source, candidate.method.encode, variables, **given) for source in sources)
    return Subject(train, test, sources, options, candidate)


def run_candidate(config: build.Config, method: Method, model: RestoredModel) -> Candidate:
    """Make a candidate of the encoder of a run."""
    role = "supervised" if method.classify is not None else "encoder"
    return Candidate(
        f"{config['method']['name']}, {model.step} steps", role, method, model.params, model.state
    )


def random_candidate(config: build.Config, method: Method) -> Candidate:
    """Make a candidate of the encoder as it was before training."""
    init = jax.jit(make_init(method, build.optimizer(config), build.sample(config)))
    # On the host, as the restored ones: the devices of several processes can take them from there.
    start = jax.tree.map(np.asarray, init(config["seed"])._replace(key=None))
    return Candidate("random encoder", BASELINE, method, start.params, start.state)
