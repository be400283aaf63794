"""What a pretrained encoder is worth beside baselines and other encoders: the body of ``experiments.evaluate``."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssl_jax.cli.encoders import (
    NamedEncoder,
    config_without_run,
    describe_encoder,
    file_stem,
    load_encoder,
    random_encoder,
)
from ssl_jax.cli.pixel_targets import PixelOptions, open_both
from ssl_jax.cli.processes import print_once
from ssl_jax.cli.tables import evaluation_table, invariance_table, measure_table
from ssl_jax.config import build, weights
from ssl_jax.config.images import open_images
from ssl_jax.core.bucket import to_path
from ssl_jax.core.check import choice
from ssl_jax.core.files import require_folder, write_atomically
from ssl_jax.core.machine import machine
from ssl_jax.data.fingerprint import Fingerprint, compare, fingerprint
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.baselines import pca, pixel_side, shrink_pixels
from ssl_jax.evaluate.measure import (
    BASELINE,
    LEFT_OUT,
    START,
    Candidate,
    Measure,
    Options,
    PixelTargets,
    Row,
    Subject,
    class_name,
    encode_source,
    labeled_part,
)
from ssl_jax.evaluate.measures import MEASURES, parse_measures, run_measures
from ssl_jax.methods.method import Method
from ssl_jax.model import is_run
from ssl_jax.train.checkpoint import RestoredModel
from ssl_jax.train.features import Features
from ssl_jax.train.step import make_init
from ssl_jax.train.workdir import read_images

BASELINES = ("pixels", "pca", "random", "start")
COMPONENTS = 64
"""Principal components of the baseline: probes scale each to the same variance, so that many would be mostly noise."""
FILE = "evaluation.json"
RAW_PIXELS = "raw pixels"
"""How the name of the row of the pixels begins."""
NO_PIXELS = PixelOptions()
"""Nothing said about targets of pixels."""


def evaluate_run(
    workdir: Path,
    *,
    step: str = "latest",
    source: str | None = None,
    splits: tuple[str | None, str | None] = (None, None),
    beside: Sequence[str | Path] = (),
    measures: Sequence[str] | None = None,
    baselines: Sequence[str] = BASELINES,
    max_corrupt_fraction: float | None = None,
    pixels: PixelOptions = NO_PIXELS,
) -> None:
    """Evaluate a run, and let the first process write ``evaluation.json`` into its folder and print the tables.

    Args:
      workdir: folder of the run.
      step: checkpoint: ``latest``, ``best`` or a number of steps.
      source: images to evaluate on; ``None``: those of the run.
      splits: splits of the training and the test images; ``None``: as the config says.
      beside: folders of other runs, or names of encoders (:func:`ssl_jax.interop.load_pretrained`), that are measured too.
      measures: names of measures, or ``all``; ``None``: as the config says.
      baselines: those of ``BASELINES`` to measure.
      max_corrupt_fraction: share of unreadable images above which nothing is measured; ``None``: as the config says.
      pixels: targets of pixels, for measures of them.

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
    both = train_split, test_split
    sources, targets = open_both(config, source, both, pixels, chosen, measures or ())
    candidates, known = beside_candidates(beside, sources[0])
    reasons: dict[str, str] = {}
    if "random" in baselines:
        candidates.insert(0, random_candidate(config, method))
    if "start" in baselines and weights.start_of(config) is not None:
        candidates += start_candidate(config, method, reasons)
    candidates.append(run_candidate(config, method, model))
    facts = {
        "workdir": str(workdir),
        "step": model.step,
        "source": source,
        "splits": both,
        "machine": machine(),
        **({"encoders": known} if known else {}),
    }
    given = {
        "measures": chosen,
        "baselines": baselines,
        "reasons": reasons,
        "trained_on": read_images(workdir),
        "pixel_targets": targets,
    }
    _evaluate_into(workdir / FILE, facts, config, candidates, sources, given)


def evaluate_encoder(
    name: str,
    source: str,
    *,
    out: Path | None = None,
    size: int | None = None,
    splits: tuple[str | None, str | None] = (None, None),
    beside: Sequence[str | Path] = (),
    measures: Sequence[str] | None = None,
    baselines: Sequence[str] = BASELINES,
    max_corrupt_fraction: float | None = None,
    pixels: PixelOptions = NO_PIXELS,
) -> None:
    """Evaluate an encoder by its name, without a run, by the same measures and beside the same baselines.

    Images are resized, cropped and normalised as its file asks for, to the pixel.

    Args:
      name: see :func:`ssl_jax.interop.load_pretrained`.
      source: images to evaluate on.
      out: file to write; ``None``: ``evaluation-NAME.json`` in the current folder.
      size: side of the images in pixels; ``None``: that of the file.
      splits: splits of the training and the test images; ``None``: ``train``, and the test split of the source, or a fifth of
        the training images where there is none.
      beside: as of :func:`evaluate_run`.
      measures: names of measures, or ``all``; ``None``: kNN, linear probes and few labels.
      baselines: those of ``BASELINES`` to measure.
      max_corrupt_fraction: share of unreadable images above which nothing is measured; ``None``: the default of runs.
      pixels: as of :func:`evaluate_run`.

    Raises:
      ValueError: an encoder that cannot be loaded, and as of :func:`evaluate_run`.
    """
    out = Path(f"evaluation-{file_stem(name)}.json") if out is None else out
    require_folder("out", out)
    config = config_without_run(source, splits, None)
    config = build.with_corrupt_fraction(config, max_corrupt_fraction)
    evaluation = config["watch"]["evaluate"]
    chosen = parse_measures(measures or evaluation["measures"])
    for baseline in baselines:
        choice("baselines", baseline, BASELINES)
    both = evaluation["train_split"], evaluation["test_split"]
    sources, targets = open_both(config, source, both, pixels, chosen, measures or ())
    encoder = load_encoder(name, sources[0], size=size)
    print_once(describe_encoder(encoder))
    config = build.with_changes(config, {"watch.evaluate.crop_ratio": encoder.crop_ratio})
    candidates, known = beside_candidates(beside, sources[0])
    if "random" in baselines:
        candidates.insert(0, random_encoder(encoder.candidate, sources[0]))
    candidates.append(encoder.candidate)
    facts = {
        "encoder": name,
        "source": source,
        "splits": both,
        "machine": machine(),
        "encoders": {**known, name: _facts_of(encoder)},
    }
    given = {"measures": chosen, "baselines": baselines, "pixel_targets": targets}
    _evaluate_into(out, facts, config, candidates, sources, given)


def _evaluate_into(
    out: Path,
    facts: Mapping[str, Any],
    config: build.Config,
    candidates: Sequence[Candidate],
    sources: tuple[Source, Source],
    given: Mapping[str, Any],
) -> None:
    """Evaluate, write the file after each measure, and print the tables."""

    def save(result: Mapping[str, Any]) -> None:
        if jax.process_index() == 0:
            write_atomically(out, json.dumps({**facts, **result}, indent=2, default=str) + "\n")

    def save_partial(partial: Row) -> None:
        save({**partial, "incomplete": True})

    result = {**facts, **evaluate(config, candidates, sources, after=save_partial, **given)}
    save(result)
    print_once(f"\n{evaluation_table(result)}")
    if changes := invariance_table(result["rows"]):
        print_once(f"\n{changes}")
    for measure in given["measures"]:
        if measure.own_table and result[measure.name]:
            print_once(f"\n{measure_table(measure, result[measure.name])}")
    print_once(f"\nwritten to {out}")


def beside_candidates(
    names: Sequence[str | Path], images: Source
) -> tuple[list[Candidate], dict[str, dict[str, Any]]]:
    """Load what is measured beside an encoder: runs, by their folders, and encoders by their names.

    Args:
      names: of both kinds.
      images: some of those that they will see.

    Returns:
      The candidates, and by the name of each encoder that is not that of a run where it comes from and what it expects.
    """
    candidates, known = [], {}
    for name in map(str, names):
        folder = to_path(name)
        if is_run(folder) or (folder.is_dir() and not any(folder.glob("*.*"))):
            candidates.append(run_candidate(*build.restore(folder, "latest")))
            continue
        encoder = load_encoder(name, images)
        print_once(describe_encoder(encoder))
        candidates.append(encoder.candidate)
        known[name] = _facts_of(encoder)
    return candidates, known


def _facts_of(encoder: NamedEncoder) -> dict[str, Any]:
    view = encoder.candidate.method.views[0]
    seen = {"size": view.size, "mean": view.mean, "std": view.std}
    return {**encoder.provenance, "preprocessing": encoder.preprocessing._asdict(), "seen": seen}


def evaluate(
    config: build.Config,
    candidates: Sequence[Candidate],
    sources: tuple[Source, Source],
    *,
    measures: Sequence[Measure],
    baselines: Sequence[str],
    after: Callable[[Row], None] = lambda result: None,
    trained_on: Fingerprint | None = None,
    reasons: Mapping[str, str] = {},
    pixel_targets: PixelTargets | None = None,
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
      reasons: why baselines lack, by name.
      pixel_targets: images with a target for each pixel, for measures of them: of raw pixels and of each candidate.

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
    reasons = dict(reasons)

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
        targets = pixel_targets if name.startswith(RAW_PIXELS) else None
        add_row(name, BASELINE, Subject(train, test, sources, options, pixel_targets=targets))
    for candidate in candidates:
        subject = candidate_subject(candidate, sources, options)._replace(pixel_targets=pixel_targets)
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
        features[f"{RAW_PIXELS}{shrunk}"] = (train, test)
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
    sources = (candidate.see(sources[0]), candidate.see(sources[1]))
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


def start_candidate(config: build.Config, method: Method, reasons: dict[str, str]) -> list[Candidate]:
    """Make a candidate of the weights that a run started from; none where they cannot be read any more.

    Args:
      config: config of the run.
      method: method of the run.
      reasons: to which the reason is added then, under ``start``.
    """
    name = config["encoder"]["weights"]
    try:
        first = build.started_state(config)
    except (ValueError, OSError, ImportError) as error:
        reasons["start"] = f"the weights that the run started from cannot be loaded ({error})"
        return []
    weights.forget_weights()
    return [Candidate(f"started from {name}", START, method, first.params, first.state)]
