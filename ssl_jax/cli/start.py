"""A folder of images to an encoder, its evaluation and a report: the body of ``experiments.start``."""

import hashlib
import json
import logging
import math
import os
import shlex
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from ssl_jax.cli import evaluate, report
from ssl_jax.cli.pretrain import describe_length, pretrain, previous_config
from ssl_jax.config import build
from ssl_jax.config.images import log_description
from ssl_jax.config.load import load_config
from ssl_jax.config.options import SMALL
from ssl_jax.core.check import require
from ssl_jax.core.commands import command
from ssl_jax.core.files import write_atomically
from ssl_jax.data.device_put import put_batch
from ssl_jax.data.files import counted, open_file, sample_indices, sampled_headers
from ssl_jax.data.listing import find_splits, list_files
from ssl_jax.data.open import FORMS, open_source
from ssl_jax.data.sources import CorruptImage, Source
from ssl_jax.data.stores import is_url
from ssl_jax.train.input import open_stream
from ssl_jax.train.program import make_program, sample_batch
from ssl_jax.train.sharding import batch_sharding
from ssl_jax.train.writers import last_scalars, read_jsonl

FILE = "start.json"
"""What was chosen for a run, and why."""
LEAST = 16
"""Images below which nothing is trained: a batch of a few pictures has nothing to tell apart."""
FEW = 500
"""Images up to which the features of somebody else's encoder are likely to be better."""
SIDES = {"cpu": 64, "accelerator": 224}
"""Side of the views in pixels at most."""
LEAST_SIDE, STEP_OF_SIDES = 32, 8
BATCH = {"cpu": 128, "accelerator": 256}
MINUTES = {"cpu": 30.0, "accelerator": 60.0}
"""How long training may take by default."""
EPOCHS, LEAST_STEPS = 50, 1000
"""Passes over the images, or so many steps if that is more."""
LEARNING_RATE, LEARNING_RATE_OF_WEIGHTS = 3e-3, 5e-4
"""At :data:`REFERENCE_BATCH` images, as in the recipes for folders; and of what starts from weights, which moves less."""
REFERENCE_BATCH = 256
TIMED_STEPS = 3
MOST_READ = 2**30
"""Bytes of files of the same size that are compared at most."""
MOST_DECODED = 2 * 10**8
"""Values of images that are decoded at most in the search for near copies."""
NEAR = 1000
"""Images at most among which near copies are looked for."""
SAME_BITS = 3
"""Of the 64 bits of their hashes, near copies differ in so many at most."""


class Facts(NamedTuple):
    """What a look at the images has found.

    Attributes:
      images: number of images.
      channels: of most of them.
      other_channels: share of the files looked at that have other numbers, which cannot be converted.
      sides: least, median and largest shorter side in pixels of those looked at.
      classes: number of classes, 0 where there are no labels.
      copies: files that are byte for byte the same as an earlier one.
      near: share of a sample that looks nearly like another image of it.
      sample_size: size of that sample.
    """

    images: int
    channels: int
    other_channels: float
    sides: tuple[int, int, int]
    classes: int
    copies: int
    near: float
    sample_size: int


class Choice(NamedTuple):
    """What is trained.

    Attributes:
      spec: config, name and arguments.
      overrides: other values at dotted names.
      reasons: a sentence each.
    """

    spec: str
    overrides: dict[str, Any]
    reasons: tuple[str, ...]


class Wishes(NamedTuple):
    """What the command line asks for beyond the folder.

    Attributes:
      spec: config to use; ``""``: chosen.
      overrides: other values at dotted names, which count more than what is chosen.
      weights: name of weights to start from; ``""``: none.
      minutes: how long training may take; ``None``: :data:`MINUTES`.
    """

    spec: str = ""
    overrides: Mapping[str, Any] = {}
    weights: str = ""
    minutes: float | None = None


def start(images: str, workdir: Path | None = None, wishes: Wishes = Wishes()) -> None:  # noqa: B008
    """Look at images, choose what to train, say why, train, evaluate and report; go on where this was stopped.

    Args:
      images: folder, or a source such as ``parquet:...``.
      workdir: folder of the run; ``None``: ``<name of the folder>-run`` in the current one.
      wishes: what was asked for besides.

    Raises:
      ValueError: images that cannot be opened or are too few, or a workdir with another run.
    """
    source = as_source(images)
    folder = default_workdir(source) if workdir is None else workdir
    recorded = _read_record(folder, source, wishes)
    if recorded is None:
        require(wishes.minutes is None or wishes.minutes > 0, "minutes", wishes.minutes, "a number above 0")
        recorded = _begin(source, folder, wishes)
    else:
        print(
            f"{folder}: goes on with what was chosen when it began ({command('start')} with another --workdir begins anew)"
        )
    spec, overrides = recorded["spec"], recorded["overrides"]
    config = build.to_dict(load_config(spec, overrides, recorded=previous_config(folder)))
    if not _is_trained(folder, config):
        pretrain(config, folder)
        if not _is_trained(folder, config):
            return  # stopped by a signal, which pretrain has said
    else:
        print(f"trained already: {describe_length(config, recorded['facts']['images'])}")
    _evaluate(folder, bool(recorded["facts"]["classes"]))
    print("\nThe report:")
    report.write_report([str(folder)], None, report.Pictures())
    print(f"\n{describe_next(folder, source)}")


def as_source(images: str) -> str:
    """Name the source of what was given: a folder by its path or URL, tar and parquet files behind URLs, all else as it is.

    >>> as_source("photos/"), as_source("parquet:cats.parquet"), as_source("embedded")
    ('folder:photos', 'parquet:cats.parquet', 'embedded')
    >>> as_source("gs://bucket/photos"), as_source("s3://bucket/{0..9}.tar")
    ('folder:gs://bucket/photos', 'tar:s3://bucket/{0..9}.tar')
    """
    if is_url(images):
        suffix = images.partition("?")[0].rpartition(".")[2].lower()
        return f"{suffix if suffix in ('tar', 'parquet') else 'folder'}:{images}"
    kinds = {form.partition(":")[0] for form in FORMS}
    kind, colon, _ = images.partition(":")
    if kind in kinds and (colon or not Path(images).exists()):
        return images
    return f"folder:{Path(images).expanduser()}"


def default_workdir(source: str) -> Path:
    """Name the folder of the run.

    >>> default_workdir("folder:/data/photos"), default_workdir("tfds:cifar10")
    (PosixPath('photos-run'), PosixPath('cifar10-run'))
    """
    place = source.partition(":")[2] or source
    return Path(f"{Path(place).resolve().name or 'images'}-run")


def _read_record(folder: Path, source: str, wishes: Wishes) -> dict[str, Any] | None:
    """What was chosen for the run in a folder; ``None``: there is none yet.

    Raises:
      ValueError: it holds another run.
    """
    anew = "give another --workdir to begin anew"
    try:
        recorded = json.loads((folder / FILE).read_text("utf-8"))
    except FileNotFoundError:
        if previous_config(folder):
            raise ValueError(
                f"workdir={str(folder)!r} has a run that {command('start')} did not begin: {anew}"
            ) from None
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / FILE} cannot be read ({error}): {anew}") from error
    given = {"source": source}
    if wishes != Wishes():
        given |= {"wishes": _wishes_text(wishes)}
    for name, value in given.items():
        if recorded[name] != value:
            raise ValueError(
                f"workdir={str(folder)!r} has a run with {name} {recorded[name]}, not {value}: {anew}"
            )
    return recorded


def _wishes_text(wishes: Wishes) -> str:
    asked = {**wishes._asdict(), "overrides": dict(wishes.overrides)}
    return json.dumps({name: value for name, value in asked.items() if value})


def _begin(source: str, folder: Path, wishes: Wishes) -> dict[str, Any]:
    """Look at the images, choose, say so and write it down."""
    opened, facts = inspect_images(source)
    log_description(opened, source, "train")
    for line in describe_facts(facts):
        print(f"  {line}")
    require_enough(facts, source)
    kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    choice = choose(facts, source, kind, len(jax.devices()), wishes)
    minutes = MINUTES[kind] if wishes.minutes is None else wishes.minutes
    if "steps" not in choice.overrides:
        choice = with_length(choice, facts, minutes)
    print("\nChosen:")
    for reason in choice.reasons:
        print(f"  {reason}")
    print("", flush=True)
    again = [*command("start").split(), source.removeprefix("folder:"), f"--workdir={folder}"]
    recorded = {
        "source": source,
        "spec": choice.spec,
        "overrides": choice.overrides,
        "reasons": list(choice.reasons),
        "facts": facts._asdict(),
        "wishes": _wishes_text(wishes),
        "command": shlex.join(again),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, json.dumps(recorded, indent=2) + "\n")
    return recorded


def inspect_images(source: str) -> tuple[Source, Facts]:
    """Open images and find out what there is: numbers, sizes, channels, classes, copies.

    Args:
      source: name of the source.

    Raises:
      ValueError: what the source finds wrong.
    """
    channels, other = None, 0.0
    if source.startswith("folder:"):
        channels, other = most_common_channels(Path(source.removeprefix("folder:")))
    given: dict[str, Any] = {} if channels is None else {"channels": channels}
    opened = open_source(source, **given)
    near, sample_size, sides = near_copies(opened)
    facts = Facts(
        len(opened),
        opened.channels,
        other,
        sides,
        len(opened.classes),
        exact_copies(opened),
        near,
        sample_size,
    )
    return opened, facts


def most_common_channels(folder: Path) -> tuple[int | None, float]:
    """Find how many channels most images of a folder have, where they differ by more than gray and colour.

    Args:
      folder: the folder.

    Returns:
      ``(None, 0)`` where all can be read as one kind; else the number, and the share of files that have another.
    """
    if not folder.is_dir():
        return None, 0.0
    names = list_files(folder, find_splits(folder, "train").start).names
    files = [(names[i], str(folder / names[i])) for i in sample_indices(len(names))]
    counts = Counter(header.shape[2] for header in sampled_headers(files)[0])
    if len(counts) < 2 or set(counts) <= {1, 3}:
        return None, 0.0
    # Gray and colour are converted to each other.
    both = counts[1] + counts[3]
    channels, count = max(
        [(3 if counts[3] else 1, both), *((c, n) for c, n in counts.items() if c not in (1, 3))],
        key=lambda x: x[1],
    )
    return channels, 1 - count / counts.total()


def exact_copies(source: Source) -> int:
    """Count files that are byte for byte the same as an earlier one: those of the same size are read and hashed.

    Args:
      source: images; 0 for others than folders.
    """
    path = getattr(source, "path", None)
    if path is None:
        return 0
    sizes: dict[int, list[str]] = {}
    for index in range(len(source)):
        try:
            sizes.setdefault(os.stat(path(index)).st_size, []).append(path(index))
        except OSError:
            continue
    copies, read = 0, 0
    for size, paths in sizes.items():
        hashes = set()
        for file in paths if len(paths) > 1 else ():
            read += size
            if read > MOST_READ:
                return copies
            try:
                with open_file(file, name=file) as opened:
                    hashes.add(hashlib.blake2b(opened.read()).digest())
            except (CorruptImage, OSError):
                hashes.add(file.encode("utf-8", "surrogateescape"))
        copies += len(paths) - max(len(hashes), 1)
    return copies


def near_copies(source: Source) -> tuple[float, int, tuple[int, int, int]]:
    """Measure which share of a sample looks nearly like another image of it, and how large the images are.

    Each image becomes 64 bits: whether each of 8 x 8 mean brightnesses is above the one to its left. Two whose bits differ in
    :data:`SAME_BITS` or fewer are near copies; flat images, which have no such bits, are not counted.

    Args:
      source: the images.

    Returns:
      ``(share, images looked at, (least, median, largest shorter side))``.
    """
    hashes, sides, values = [], [], 0
    for index in sample_indices(len(source), NEAR):
        try:
            image = source[index]["image"]
        except CorruptImage:
            continue
        sides.append(min(image.shape[:2]))
        hashes.append(difference_hash(image))
        values += image.size
        if values > MOST_DECODED:
            break
    if not sides:
        raise ValueError(f"{source.name}: none of the images looked at can be read")
    bits = np.array(hashes, np.int8)
    # Bits as ±1: a product of 64 − 2k differs in k bits.
    agreement = bits.astype(np.float32) @ bits.T.astype(np.float32)
    np.fill_diagonal(agreement, -64)
    near = (agreement >= 64 - 2 * SAME_BITS).any(axis=1)
    return float(near.mean()), len(sides), (min(sides), round(float(np.median(sides))), max(sides))


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Hash how an image looks: 64 signs of differences of mean brightness, int8 of ±1; 0 where it is flat.

    Args:
      image: ``[h, w, c]``.

    >>> difference_hash(np.tile(np.arange(90, dtype=np.uint8), (10, 1))[..., None]).tolist() == [1] * 64
    True
    """
    gray = Image.fromarray(image.astype(np.float32).mean(axis=-1))
    small = np.asarray(gray.resize((9, 8), Image.Resampling.BOX))
    span = float(small.max() - small.min())
    differences = np.diff(small, axis=1).ravel()
    if span <= 1e-6 * max(float(np.abs(small).max()), 1e-6):
        return np.zeros(64, np.int8)
    return np.where(differences > 0, 1, -1).astype(np.int8)


def describe_facts(facts: Facts) -> list[str]:
    """Say what was found, a line each.

    Args:
      facts: from :func:`inspect_images`.

    >>> describe_facts(Facts(90, 3, 0.0, (64, 80, 90), 0, 2, 0.0, 90))[0]
    'shorter sides of 64 to 90 pixels, 80 in the middle'
    """
    least, middle, most = facts.sides
    sizes = f"shorter sides of {least} to {most} pixels, {middle} in the middle"
    lines = [sizes if most > least else f"shorter sides of {least} pixels"]
    if facts.other_channels:
        lines.append(
            f"{facts.other_channels:.0%} of those looked at have another number of channels than {facts.channels}: left out"
        )
    if facts.classes:
        lines.append(f"{counted(facts.classes, 'class')}: evaluation uses them, training does not")
    else:
        lines.append("no classes: evaluation is without labels (one sub-folder a class gives accuracies)")
    if facts.copies:
        lines.append(
            f"{counted(facts.copies, 'file')} with the bytes of another one: training takes copies for different images"
        )
    if facts.near:
        lines.append(
            f"{facts.near:.0%} of {facts.sample_size} images look nearly like another one, as frames do: they add little"
        )
    if least < 8:
        lines.append("some images are smaller than 8 pixels")
    if middle > 1024:
        lines.append(
            "large images: reading them may take longer than training; copies of 256 pixels give the same encoder sooner"
        )
    return lines


def require_enough(facts: Facts, source: str) -> None:
    """Raise a ValueError where there are too few images to learn from.

    Args:
      facts: from :func:`inspect_images`.
      source: its name.
    """
    if facts.images - facts.copies >= LEAST:
        return
    different = f", {facts.images - facts.copies} of them different" if facts.copies else ""
    raise ValueError(
        f"{source} has {counted(facts.images, 'image')}{different}: allowed are {LEAST} or more to learn from; a pretrained "
        'encoder needs none: ssl_jax.load("hf:facebook/dinov2-small").embed(...), see docs/guides/foundation.md'
    )


def choose(facts: Facts, source: str, kind: str, devices: int, wishes: Wishes) -> Choice:
    """Choose method, encoder, size and batch, with the reason of each.

    Args:
      facts: from :func:`inspect_images`.
      source: name of the source.
      kind: ``cpu`` or ``accelerator``.
      devices: number of devices.
      wishes: what was asked for.
    """
    size = STEP_OF_SIDES * math.ceil(facts.sides[1] / STEP_OF_SIDES)
    size = min(max(size, LEAST_SIDE), SIDES[kind])
    different = facts.images - facts.copies
    batch = min(BATCH[kind], 2 ** int(math.log2(different / 2)))
    batch = max(batch - batch % devices, devices)
    chosen: dict[str, Any] = {"data.source": source, "batch_size": batch}
    where = "a CPU" if kind == "cpu" else counted(devices, f"{jax.default_backend().upper()} device")
    reasons = []
    method = "simclr" if batch >= REFERENCE_BATCH else "dcl"
    spec = wishes.spec or f"{method}:folder"
    spec = spec if ":" in spec.replace("://", "") else f"{spec}:folder"
    if not wishes.spec:
        rate = LEARNING_RATE_OF_WEIGHTS if wishes.weights else LEARNING_RATE
        rate *= math.sqrt(batch / REFERENCE_BATCH)
        chosen["optimizer.learning_rate"] = float(f"{rate:.2g}")
        why = (
            "no teacher, queue or prototypes to tune"
            if method == "simclr"
            else f"SimCLR without the coupling that hurts small batches, here of {batch}"
        )
        reasons.append(f"method {method}: {why}")
    else:
        reasons.append(f"method {spec}: as asked for")
    if wishes.weights:
        chosen["encoder.weights"] = wishes.weights
        reasons.append(f"encoder: that of {wishes.weights}, in the size that it takes")
    else:
        chosen["views.size"] = size
        if not wishes.spec and "encoder.name" not in wishes.overrides:
            encoder, why = _encoder(facts, kind, size)
            chosen |= encoder
            reasons.append(f"encoder {encoder['encoder.name']}: {why}")
        because = "about as most of the images"
        if facts.sides[1] > size:
            because = "what a CPU gets through" if kind == "cpu" else "the usual size"
        reasons.append(f"{size} x {size} pixels: {because}")
    if facts.other_channels:
        chosen["data.channels"] = facts.channels
        chosen["data.max_corrupt_fraction"] = round(min(facts.other_channels + 0.1, 1.0), 2)
    rated = (
        ""
        if wishes.spec
        else f"; learning rate {chosen['optimizer.learning_rate']:g}, by the root of the batch"
    )
    reasons.append(f"batches of {batch} on {where}{rated}")
    if different < FEW and not wishes.weights:
        reasons.append(
            f"{different} images are few to learn from: starting from somebody's weights is likely to be better, "
            "--weights=hf:facebook/dinov2-small"
        )
    return Choice(spec, {**chosen, **wishes.overrides}, tuple(reasons))


def _encoder(facts: Facts, kind: str, size: int) -> tuple[dict[str, Any], str]:
    if kind == "cpu":
        widths = tuple(32 * 2**k for k in range(4 if size > 32 else 3))
        why = "a ResNet-18 takes many times as long a step on a CPU"
        return {"encoder.name": "convnet", "encoder.widths": widths}, why
    name = "resnet50" if facts.images >= 50_000 else "resnet18"
    stem = {"encoder.stem": "imagenet"} if size > SMALL else {}
    return {"encoder.name": name, **stem}, "the usual one for so many images"


def with_length(choice: Choice, facts: Facts, minutes: float) -> Choice:
    """Choose the number of steps: :data:`EPOCHS` passes over the images, or what fits into the time, by a few measured steps.

    Args:
      choice: all else.
      facts: from :func:`inspect_images`.
      minutes: how long training may take.
    """
    logger = logging.getLogger("ssl_jax")
    level = logger.level
    logger.setLevel(logging.WARNING)  # what it says of a run is said of the real one
    try:
        config = build.to_dict(load_config(choice.spec, choice.overrides))
        seconds = seconds_per_step(config)
    finally:
        logger.setLevel(level)
    batch = config["batch_size"]
    wanted = max(math.ceil(EPOCHS * facts.images / batch), LEAST_STEPS)
    fitting = max(int(60 * minutes / seconds), 10)
    steps = min(wanted, fitting)
    lengths = {
        "steps": steps,
        "watch.online.every": max(steps // 10, 1),
        "watch.checkpoint.every": max(steps // 20, 1),
        "watch.log.every": min(max(steps // 50, 1), 100),
    }
    epochs = steps * batch / facts.images
    takes = _minutes(steps * seconds)
    length = f"{steps:,} steps of {seconds:.2g} s (measured), {epochs:.3g} passes over the images in {takes}"
    if steps < wanted:
        needed = math.ceil(wanted * seconds / 60)
        length += (
            f"; {wanted:,} steps would take {_minutes(wanted * seconds)}: --minutes={needed} allows them"
        )
    return choice._replace(
        overrides={**lengths, **choice.overrides}, reasons=(*choice.reasons, f"length: {length}")
    )


def _minutes(seconds: float) -> str:
    """Write a time.

    >>> _minutes(20), _minutes(600), _minutes(9000)
    ('20 s', '10 min', '2.5 h')
    """
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def seconds_per_step(config: build.Config) -> float:
    """Measure how long a step of a config takes, reading of images included, by a few of them after the first.

    Args:
      config: config of the run.
    """
    objects = build.run_objects(config)
    run, host = build.run(config, objects), build.host(config)
    assert host.mesh is not None
    sample = sample_batch(run.source, run.method, crop_on=run.crop_on)
    program = make_program(run.method, run.optimizer, sample, host.mesh)
    state = program.init(run.seed)
    sharding = batch_sharding(host.mesh)
    with open_stream(run, host.mesh, 0, None, workers=host.workers) as batches:
        times = [0.0]
        for _ in range(1 + TIMED_STEPS):
            state, metrics = program.step(state, put_batch(next(batches), sharding))
            jax.block_until_ready(metrics)
            times.append(time.perf_counter())
    return (times[-1] - times[1]) / TIMED_STEPS


def _is_trained(folder: Path, config: build.Config) -> bool:
    file = folder / "metrics.jsonl"
    return file.exists() and last_scalars(read_jsonl(file)).get("step") == config["steps"]


def _evaluate(folder: Path, labeled: bool) -> None:
    """Measure what the encoder is worth, unless that was done."""
    try:
        done = json.loads((folder / evaluate.FILE).read_text("utf-8"))
        if not done.get("incomplete"):
            print(f"evaluated already: {folder / evaluate.FILE}")
            return
    except (OSError, ValueError):
        pass
    measures = None if labeled else ("health", "rotation", "label_free")
    evaluate.evaluate_run(folder, measures=measures)


def _has_unreadable(folder: Path) -> bool:
    """Tell whether evaluation has met files that cannot be read."""
    try:
        notes = json.loads((folder / evaluate.FILE).read_text("utf-8"))["notes"]
        return any("cannot be read: left out" in note for note in notes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def describe_next(folder: Path, source: str) -> str:
    """Say what can be done with the run.

    Args:
      folder: of the run.
      source: its images.
    """
    quoted = shlex.quote(str(folder))
    place = source.removeprefix("folder:")
    on_disk = place != source and not is_url(place)
    images = f'"{place}"' if on_disk else f'ssl_jax.data.open_source("{source}")'
    if _has_unreadable(folder):
        images = "paths"
    lines = [
        "Next:",
        f'  in Python     ssl_jax.load("{folder}").embed({images})'
        + ("  # of files that can be read: some cannot" if images == "paths" else ""),
        f"  as a file     {command('embed')} --workdir={quoted} --source={shlex.quote(source)} --out=features.npz",
        f"  elsewhere     {command('export')} --workdir={quoted} --out=encoder",
    ]
    return "\n".join(lines)
