"""What the features of an encoder keep of an image, as pictures and numbers: the body of ``experiments.invert``."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from ssl_jax.augment.views import normalize_for_evaluation
from ssl_jax.cli.encoders import config_without_run, describe_encoder, file_stem, load_encoder
from ssl_jax.cli.evaluate import run_candidate
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core import check
from ssl_jax.core.files import write_atomically
from ssl_jax.core.machine import machine
from ssl_jax.core.rows import Row
from ssl_jax.core.table import table
from ssl_jax.data.fingerprint import fingerprint
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source, take_evenly
from ssl_jax.evaluate.inversion import (
    KINDS,
    READINGS,
    Inverter,
    Read,
    Training,
    build_inverter,
    draw_samples,
    feature_statistics,
    images_as_seen,
    readings,
    reconstruction_error,
    train_decoder,
)
from ssl_jax.evaluate.measure import Candidate
from ssl_jax.evaluate.transformations import transformation_accuracies
from ssl_jax.ops.ode import SOLVERS
from ssl_jax.report.inversion import FILE, FOLDER, PICTURE
from ssl_jax.report.pictures import visible
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.run import Fitted
from ssl_jax.train.signals import StopRequest
from ssl_jax.train.state import TrainState
from ssl_jax.train.workdir import Workdir
from ssl_jax.train.writers import JsonlWriter

CELL = 96
"""Least side of an image in the picture, in pixels."""
CHECKPOINTS = 200
"""Steps between checkpoints."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be shown.

    Attributes:
      read: names of :data:`ssl_jax.evaluate.inversion.READINGS`; ``None``: backbone and projector, where there is one.
      kinds: names of :data:`ssl_jax.evaluate.inversion.KINDS`.
      images: test images in the picture.
      samples: images that are drawn for each, by the flow.
      solver: one of :data:`ssl_jax.ops.ode.SOLVERS`.
      solver_steps: its steps.
    """

    read: tuple[str, ...] | None = None
    kinds: tuple[str, ...] = KINDS
    images: int = 8
    samples: int = 4
    solver: str = "heun"
    solver_steps: int = 25

    def __post_init__(self) -> None:
        for name in self.read or ():
            check.choice("read", name, READINGS)
        for name in self.kinds:
            check.choice("kinds", name, KINDS)
        check.require(bool(self.kinds), "kinds", self.kinds, f"one or more of {', '.join(KINDS)}")
        check.choice("solver", self.solver, SOLVERS)
        for name, least in (("images", 2), ("samples", 2), ("solver_steps", 1)):
            value = getattr(self, name)
            check.require(value >= least, name, value, f"an integer of {least} or more")


@dataclasses.dataclass(frozen=True)
class Subject:
    """The encoder, and the images that it is inverted on.

    Attributes:
      name: of a run's folder, or of the encoder.
      candidate: the encoder.
      config: config that says how images are opened and prepared.
      source: name of the images.
      splits: splits of the training and the test images.
      step: updates of the run; ``None``: there is no run.
    """

    name: str
    candidate: Candidate
    config: build.Config
    source: str
    splits: tuple[str, str]
    step: int | None = None


class Decoded(NamedTuple):
    """A trained decoder of one reading."""

    read: str
    inverter: Inverter
    state: TrainState


def invert_run(
    workdir: Path,
    *,
    out: Path | None = None,
    step: str = "latest",
    source: str | None = None,
    splits: tuple[str | None, str | None] = (None, None),
    training: Training,
    wanted: Wanted,
    max_corrupt_fraction: float | None = None,
) -> None:
    """Invert the encoder of a run, see :func:`invert`.

    Args:
      workdir: folder of the run.
      out: folder of the results; ``None``: ``inversion`` in that of the run.
      step: checkpoint: ``latest``, ``best`` or a number of steps.
      source: images; ``None``: those of the run.
      splits: splits of the training and the test images; ``None``: as the config says.
      training: how decoders are trained.
      wanted: what is to be shown.
      max_corrupt_fraction: share of unreadable images above which it ends; ``None``: as the config says.
    """
    config, method, model = build.restore(workdir, step)
    config = build.with_corrupt_fraction(config, max_corrupt_fraction)
    options = config["watch"]["evaluate"]
    both = splits[0] or options["train_split"], splits[1] or options["test_split"]
    candidate = run_candidate(config, method, model)
    subject = Subject(
        str(workdir), candidate, config, source or config["data"]["source"], both, step=model.step
    )
    invert(subject, workdir / FOLDER if out is None else out, training, wanted)


def invert_encoder(
    name: str,
    source: str,
    *,
    out: Path | None = None,
    size: int | None = None,
    splits: tuple[str | None, str | None] = (None, None),
    training: Training,
    wanted: Wanted,
    max_corrupt_fraction: float | None = None,
) -> None:
    """Invert an encoder by its name, without a run, see :func:`invert`.

    Args:
      name: see :func:`ssl_jax.interop.load_pretrained`.
      source: images.
      out: folder of the results; ``None``: ``inversion-NAME`` in the current folder.
      size: side of the images in pixels; ``None``: that of the file.
      splits: splits of the training and the test images; ``None``: as ``experiments.evaluate`` chooses them.
      training: how decoders are trained.
      wanted: what is to be shown.
      max_corrupt_fraction: share of unreadable images above which it ends; ``None``: the default of runs.
    """
    config = build.with_corrupt_fraction(config_without_run(source, splits, None), max_corrupt_fraction)
    options = config["watch"]["evaluate"]
    both = options["train_split"], options["test_split"]
    encoder = load_encoder(name, open_images(config, source, both[0]), size=size)
    print(describe_encoder(encoder), flush=True)
    config = build.with_changes(config, {"watch.evaluate.crop_ratio": encoder.crop_ratio})
    folder = Path(f"{FOLDER}-{file_stem(name)}") if out is None else out
    invert(Subject(name, encoder.candidate, config, source, both), folder, training, wanted)


def invert(subject: Subject, out: Path, training: Training, wanted: Wanted) -> None:
    """Train decoders from what is read of an encoder to its images, and write pictures and numbers of test images.

    Each decoder has a folder with checkpoints in ``out``: the same command goes on where it was stopped. ``inversion.json`` and
    ``inversion.png`` are written when all are trained.

    Args:
      subject: encoder and images.
      out: folder of the results.
      training: how decoders are trained.
      wanted: what is to be shown.

    Raises:
      ValueError: what the encoder or the images do not have, or options that differ from those of the decoders in the folder.
    """
    config, candidate = subject.config, subject.candidate
    crop_ratio, corrupt = config["watch"]["evaluate"]["crop_ratio"], config["data"]["max_corrupt_fraction"]
    sources = tuple(open_images(config, subject.source, split) for split in subject.splits)
    train, test = (images_as_seen(candidate, source, crop_ratio) for source in sources)
    reads = choose_readings(candidate, train.channels, wanted.read)
    with Workdir(out) as folder, StopRequest():
        _configure(folder, subject, training, wanted, sources[0])
        decoded: list[Decoded] = []
        for name, read in reads.items():
            for kind in wanted.kinds:
                inverter = build_inverter(
                    candidate, read, channels=train.channels, kind=kind, width=training.width
                )
                print(f"{name}, {kind}:", flush=True)
                fitted = _train(
                    inverter, candidate, read, train, training, corrupt, folder.path / f"{name}-{kind}"
                )
                if fitted.stopped_by:
                    print(
                        f"stopped by {fitted.stopped_by} after step {int(fitted.state.step)}, saved; the same command goes on "
                        "from there"
                    )
                    return
                decoded.append(Decoded(name, inverter, fitted.state))
        originals = read_raw(test, wanted.images, corrupt)
        rows, columns = _measure(decoded, test, originals, training, wanted, corrupt)
        transformations = transformation_accuracies(
            candidate,
            (sources[0], sources[1]),
            reads,
            crop_ratio=crop_ratio,
            max_corrupt_fraction=corrupt,
        )
        result = {
            "encoder": subject.name,
            "step": subject.step,
            "source": subject.source,
            "splits": subject.splits,
            "training": training._asdict(),
            "rows": rows,
            "transformations": transformations,
            "machine": machine(),
        }
        write_atomically(folder.path / PICTURE, draw_grid(originals, columns))
        write_atomically(folder.path / FILE, json.dumps(result, indent=2) + "\n")
    print(f"\n{inversion_table(rows)}\n\n{transformation_table(transformations)}")
    print(f"\nwritten to {out / FILE} and {out / PICTURE}")


def choose_readings(candidate: Candidate, channels: int, names: Sequence[str] | None) -> dict[str, Read]:
    """Look up what is to be read of an encoder; ``None``: backbone and projector, where there is one.

    Raises:
      ValueError: something that it does not have.
    """
    size = candidate.method.views[0].size
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    found = readings(candidate.method, image, candidate.params, candidate.state)
    for name in names or ():
        check.choice("read", name, found)
    chosen = names or [name for name in ("backbone", "projector") if name in found]
    return {name: found[name] for name in chosen}


def _configure(folder: Workdir, subject: Subject, training: Training, wanted: Wanted, images: Source) -> None:
    """Refuse to go on with decoders that were trained otherwise; what is shown of them may change."""
    recorded = {
        "encoder": subject.name,
        "step": subject.step,
        "data": {"source": subject.source, "splits": subject.splits},
        "training": training._asdict(),
        "wanted": dataclasses.asdict(wanted),
    }
    try:
        folder.configure(recorded, allowed=("wanted",))
    except ValueError as error:
        raise ValueError(f"{error}: give another --out") from error
    folder.record_images(fingerprint(images))


def _train(
    inverter: Inverter,
    candidate: Candidate,
    read: Read,
    images: Source,
    training: Training,
    max_corrupt_fraction: float,
    folder: Path,
) -> Fitted:
    def statistics() -> Any:
        return feature_statistics(candidate, read, images, max_corrupt_fraction=max_corrupt_fraction)

    metadata = {"inversion": training._asdict()}
    with Checkpoints(folder / "checkpoints", every=CHECKPOINTS, metadata=metadata) as checkpoints:
        return train_decoder(
            inverter,
            candidate,
            statistics,
            images,
            training=training,
            checkpoints=checkpoints,
            writer=lambda step: JsonlWriter(folder / "metrics.jsonl", resume_step=step + 1),
            max_corrupt_fraction=max_corrupt_fraction,
        )


def read_raw(images: Source, count: int, max_corrupt_fraction: float) -> np.ndarray:
    """Read a few images, ``[n, s, s, c]`` in [0, 1], at even distances; those that cannot be read are left out."""
    part = take_evenly(images, count)
    assert images.shape is not None
    size, share = images.shape[0], max(max_corrupt_fraction, 0.5)
    with epoch(part, batch_size=len(part), size=size, max_corrupt_fraction=share) as batches:
        raw = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
    scale = np.iinfo(raw.dtype).max if raw.dtype.kind == "u" else 1
    return raw.astype(np.float32) / np.float32(scale)


def _measure(
    decoded: Sequence[Decoded],
    test: Source,
    originals: np.ndarray,
    training: Training,
    wanted: Wanted,
    max_corrupt_fraction: float,
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Numbers of every reading, and the images ``[n, s, s, c]`` of the columns of the picture by their heading."""
    rows: dict[str, Row] = {}
    columns: dict[str, np.ndarray] = {}
    for name, inverter, state in decoded:
        row = rows.setdefault(name, {"read": name, "features": int(np.size(state.state["mean"]))})
        if inverter.kind == "deterministic":
            row |= reconstruction_error(inverter, state, test, max_corrupt_fraction=max_corrupt_fraction)
            normalized = normalize_for_evaluation(originals, inverter.method.views[0])
            made = jax.jit(inverter.reconstruct)(state.params, state.state, normalized)
            columns[f"{name}: decoded"] = np.asarray(made)
            continue
        drawn = draw_samples(
            inverter,
            state,
            originals,
            samples=wanted.samples,
            steps=wanted.solver_steps,
            solver=wanted.solver,
            seed=training.seed,
        )
        row |= drawn.row
        columns |= {f"{name}: sample {k + 1}": drawn.images[:, k] for k in range(wanted.samples)}
    return list(rows.values()), columns


def draw_grid(originals: np.ndarray, columns: Mapping[str, np.ndarray]) -> bytes:
    """Draw a picture as PNG data: a row an image, the image itself first, headings above.

    Args:
      originals: ``[n, s, s, c]`` in [0, 1].
      columns: images of the same shape by heading, left to right; ``"name: what"`` is set in two lines.

    >>> picture = Image.open(io.BytesIO(draw_grid(np.zeros((2, 8, 8, 1)), {"backbone: decoded": np.ones((2, 8, 8, 1))})))
    >>> picture.format, picture.width
    ('PNG', 204)
    """
    side = originals.shape[1]
    scale = max(1, -(-CELL // side))
    cell, gap, head = scale * side, 4, 32
    headed = {"image": originals, **columns}
    width = len(headed) * (cell + gap) + gap
    picture = Image.new("RGB", (width, head + len(originals) * (cell + gap) + gap), "white")
    pen = ImageDraw.Draw(picture)
    for k, (heading, images) in enumerate(headed.items()):
        left = gap + k * (cell + gap)
        for line, text in enumerate(heading.split(": ")):
            pen.text((left, 2 + 14 * line), text, fill="black")
        for row, image in enumerate(visible(np.asarray(images, np.float32))):
            shown = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
            shown = shown.resize((cell, cell), Image.Resampling.NEAREST)
            picture.paste(shown, (left, head + row * (cell + gap)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def inversion_table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate what decoders gave back and what samples leave free, shares in percent.

    Args:
      rows: of ``inversion.json``.
      markdown: whether the table is in Markdown.
    """
    shown: list[dict[str, Any]] = []
    for row in rows:
        cells: dict[str, Any] = {"read": row["read"], "features": row["features"]}
        if "mse" in row:
            cells |= {"pixels explained, %": 100 * row["explained"], "PSNR, dB": row["psnr"]}
        if "free" in row:
            cells["free between samples, %"] = 100 * row["free"]
            cells["reciprocal rank, %"] = 100 * row["reciprocal_rank"]
            cells["by chance, %"] = 100 * row["chance_rank"]
        shown.append(cells)
    return table(shown, markdown=markdown)


def transformation_table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate how well a linear probe predicts transformations, accuracies in percent.

    Args:
      rows: of :func:`ssl_jax.evaluate.transformations.transformation_accuracies`.
      markdown: whether the table is in Markdown.
    """
    shown = [
        {"which was applied, %": row["transformation"]}
        | {name: 100 * value for name, value in row.items() if name != "transformation"}
        for row in rows
    ]
    return table(shown, markdown=markdown)
