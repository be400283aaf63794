"""What a pretrained encoder is worth beside baselines and other encoders: the body of ``experiments.evaluate``."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
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
from ssl_jax.data.fingerprint import Fingerprint, compare, fingerprint
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.baselines import pca, pixel_side, shrink_pixels
from ssl_jax.evaluate.measure import (
    BASELINE,
    LEFT_OUT,
    Candidate,
    Measure,
    Options,
    Row,
    Subject,
    class_name,
    encode_source,
    labeled_part,
)
from ssl_jax.evaluate.measures import MEASURES, parse_measures, run_measures
from ssl_jax.methods.method import Method
from ssl_jax.train.checkpoint import RestoredModel
from ssl_jax.train.features import Features
from ssl_jax.train.step import make_init
from ssl_jax.train.workdir import read_images

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

    The file is written after each measure, and says ``"incomplete": true`` until the last.

    Raises:
      ValueError: an unknown measure or baseline, or images that cannot be opened. What cannot be measured of them is no error,
        see :func:`ssl_jax.evaluate.measures.run_measures`.
    """
    config, method, model = build.restore(workdir, step)
    config = build.with_corrupt_fraction(config, max_corrupt_fraction)
    options = config["watch"]["evaluate"]
    chosen = parse_measures(measures or options["measures"])
    for name in baselines:
        choice("baselines", name, BASELINES)
    source = source or config["data"]["source"]
    train_split, test_split = splits[0] or options["train_split"], splits[1] or options["test_split"]
    # Both are splits to each other, whatever they are called.
    named = {"watch.evaluate.train_split": train_split, "watch.evaluate.test_split": test_split}
    config = build.with_changes(config, named)
    sources = (open_images(config, source, train_split), open_images(config, source, test_split))
    candidates = [run_candidate(*build.restore(folder, "latest")) for folder in beside]
    if "random" in baselines:
        candidates.insert(0, random_candidate(config, method))
    candidates.append(run_candidate(config, method, model))
    facts = {
        "workdir": str(workdir),
        "step": model.step,
        "source": source,
        "splits": (train_split, test_split),
        "machine": machine(),
    }

    def save(result: Mapping[str, Any]) -> None:
        if jax.process_index() == 0:
            write_atomically(workdir / FILE, json.dumps({**facts, **result}, indent=2) + "\n")

    result = {
        **facts,
        **evaluate(
            config,
            candidates,
            sources,
            measures=chosen,
            baselines=baselines,
            after=lambda partial: save({**partial, "incomplete": True}),
            trained_on=read_images(workdir),
        ),
    }
    save(result)
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
    after: Callable[[Row], None] = lambda result: None,
    trained_on: Fingerprint | None = None,
) -> dict[str, Any]:
    """Measure raw pixels and principal components, as asked for, and all candidates; tables of the last one.

    Args:
      config: config of the run, for its ``evaluate`` options and its training images.
      candidates: encoders; the last is the one that the evaluation is about.
      sources: training and test images.
      measures: what to measure.
      baselines: those of ``pixels`` and ``pca`` to measure.
      after: function that is called with what there is after each measure.
      trained_on: fingerprint of the images that the last candidate was trained on; what it keeps for each is measured on these
        only. ``None``: not known.

    Returns:
      ``{"examples": [n_train, n_test], "rows": [...]}`` and the rows of each measure with a table of its own, JSON-able. Where
      there is something to say, ``notes``, sentences on images without a label and classes without an image, and ``left_out``,
      the reason by the name of a measure with a table, or of a baseline, that could not be taken. A row has a ``left_out`` of
      its own.
    """
    options = measure_options(config)
    in_row = [measure for measure in measures if not measure.own_table]
    result: Row = {"examples": [len(source) for source in sources], "rows": []}
    result |= {measure.name: [] for measure in MEASURES.values() if measure.own_table}
    reasons: dict[str, str] = {}

    def add_row(name: str, role: str, subject: Subject) -> None:
        facts = {"features": name, "role": role, "dims": subject.train.features.shape[1]}
        if not result["rows"] and (notes := describe_labels(subject)):
            result["notes"] = notes
        result["rows"].append(facts)

        def update(row: Row) -> None:
            result["rows"][-1] = facts | row
            after(result)

        update(run_measures(subject, in_row, after=update))
        print_once(f"measured {name}")

    for name, (train, test) in feature_baselines(
        candidates[-1].method, sources, options, baselines, reasons
    ).items():
        add_row(name, BASELINE, Subject(train, test, sources, options))
    for candidate in candidates:
        subject = candidate_subject(candidate, sources, options)
        add_row(candidate.name, candidate.role, subject)
    open_trained = functools.partial(open_training_images, config, trained_on)
    subject = subject._replace(training_images=open_trained)

    def add_tables(tables: Row) -> None:
        result.update(tables)
        if left_out := reasons | tables.get(LEFT_OUT, {}):
            result[LEFT_OUT] = left_out
        after(result)

    add_tables(run_measures(subject, [m for m in measures if m.own_table], after=add_tables))
    return result


def open_training_images(config: build.Config, trained_on: Fingerprint | None) -> Source:
    """Open the images that a run was trained on.

    Args:
      config: config of the run.
      trained_on: their fingerprint; ``None``: not known.

    Raises:
      ValueError: they are others now.
    """
    source = open_images(config, config["data"]["source"], config["data"]["split"])
    changed = () if trained_on is None else compare(trained_on, fingerprint(source)).images
    if changed:
        raise ValueError(f"the training images are others than in training: {', '.join(changed)}")
    return source


def measure_options(config: build.Config) -> Options:
    """Read the options of the measures from a config."""
    options = config["watch"]["evaluate"]
    share = config["data"]["max_corrupt_fraction"]
    options = {"max_corrupt_fraction": share, **options}
    return Options(**{name: options[name] for name in Options._fields})


def describe_labels(subject: Subject) -> list[str]:
    """Say what an accuracy is of: images without a label or that cannot be read, classes without an image.

    Args:
      subject: any features of the training and test images.
    """
    notes, known = [], []
    for which, part, source in zip(
        ("training", "test"), (subject.train, subject.test), subject.sources, strict=True
    ):
        if unreadable := len(source) - len(part.labels):
            notes.append(f"{unreadable:,} of {len(source):,} {which} images cannot be read: left out.")
        known.append(labeled_part(part).labels)
        if 0 < len(known[-1]) < len(part.labels):
            missing = len(part.labels) - len(known[-1])
            notes.append(
                f"{missing:,} of {len(part.labels):,} {which} images have no label: left out of what needs one."
            )
    unseen = np.setdiff1d(known[1], known[0])
    if len(unseen) and len(known[0]):
        count = int(np.isin(known[1], unseen).sum())
        notes.append(
            f"{count:,} of {len(known[1]):,} labelled test images are of classes without a labelled training image "
            f"({_names(unseen, subject)}): they count as wrong."
        )
    untested = np.setdiff1d(known[0], known[1])
    if len(untested) and len(known[1]):
        notes.append(f"Classes without a labelled test image: {_names(untested, subject)}.")
    return notes


def _names(labels: np.ndarray, subject: Subject) -> str:
    names = [class_name(int(label), subject.sources[0].classes) for label in labels]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def feature_baselines(
    method: Method,
    sources: tuple[Source, Source],
    options: Options,
    baselines: Sequence[str],
    reasons: dict[str, str],
) -> dict[str, tuple[Features, Features]]:
    """Compute the features of training and test images that need no encoder, by the name of their row.

    Images of more than :data:`ssl_jax.evaluate.baselines.VALUES` values are shrunk, and the name of the row says so: 50,000
    images take 0.8 GB, and their principal components 64 MiB more.

    Args:
      method: method whose first view gives size and normalisation.
      sources: training and test images.
      options: options of the measures.
      baselines: those of ``pixels`` and ``pca`` to compute.
      reasons: to which the reason is added by the name of a baseline that cannot be computed.
    """
    if not {"pixels", "pca"} & set(baselines):
        return {}
    view = method.views[0]
    given: dict[str, Any] = {"view": view, "crop_ratio": options.crop_ratio}
    given["max_corrupt_fraction"] = options.max_corrupt_fraction
    train, test = (encode_source(source, shrink_pixels, (), **given) for source in sources)
    side = pixel_side(view.size, sources[0].channels)
    shrunk = f" at {side} x {side}" if side < view.size else ""
    features = {}
    if "pixels" in baselines:
        features[f"raw pixels{shrunk}"] = (train, test)
    dims = min(COMPONENTS, len(train.features) - 1, train.features.shape[1])
    if "pca" in baselines and dims < 1:
        reasons["pca"] = "principal components need two training images, and there is one"
    elif "pca" in baselines:
        axes = pca(train.features, test.features, dims=dims)
        features[f"PCA of pixels{shrunk}, {dims} component{'s' if dims > 1 else ''}"] = (
            train._replace(features=axes[0]),
            test._replace(features=axes[1]),
        )
    return features


def candidate_subject(candidate: Candidate, sources: tuple[Source, Source], options: Options) -> Subject:
    """Encode training and test images by a candidate."""
    variables = (candidate.params, candidate.state)
    given: dict[str, Any] = {"view": candidate.method.views[0], "crop_ratio": options.crop_ratio}
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
