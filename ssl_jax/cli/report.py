"""The page of a run, or of a comparison of runs: the body of ``experiments.report``."""

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ssl_jax.augment.views import normalize_for_evaluation
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core.commands import spoken
from ssl_jax.core.files import require_folder, write_atomically
from ssl_jax.core.types import Params, State
from ssl_jax.data.batches import TooManyCorrupt
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.dense.features import patch_features
from ssl_jax.methods.method import Method
from ssl_jax.report import (
    attention,
    embedding,
    figures,
    invariance,
    inversion,
    patches,
    runs,
    sections,
    verdict,
)
from ssl_jax.report.page import Report, Section, missing, render
from ssl_jax.report.sample import Sample, draw_views, encode_sample
from ssl_jax.train.checkpoint import NoUsableCheckpointError, RestoredModel

DRAWN = 8
"""Images that views, reconstructions, attention and patches are drawn of."""
FITTED = 64
"""Images that the components and clusters of patches are fitted to, those that are drawn among them."""


class Pictures(NamedTuple):
    """What the parts of a page that need weights and images are made of.

    Attributes:
      step: checkpoint: ``latest``, ``best`` or a number of steps.
      source: images to show; ``None``: those of the run.
      split: split of the source; ``None``: the test split of the config.
      points: images on the map and for neighbours and spectrum.
      map: how the map is drawn, one of :data:`ssl_jax.report.embedding.MAPS`.
      max_corrupt_fraction: share of unreadable images above which none is shown; ``None``: as the config of each run says.
    """

    step: str = "latest"
    source: str | None = None
    split: str | None = None
    points: int = 2000
    map: str = "auto"
    max_corrupt_fraction: float | None = None


def write_report(folders: Sequence[str], out: Path | None, pictures: Pictures) -> None:
    """Write the page of one run or several, and print its verdict.

    Args:
      folders: folders of the runs.
      out: file to write; ``None``: ``report.html`` or ``comparison.html`` in the folder of the first run.
      pictures: options of the parts that need weights and images.

    Raises:
      ValueError: no run in a folder.
      FileNotFoundError: the folder of ``out`` does not exist.
    """
    names = runs.unique_names(folders)
    compared = [runs.read_run(folder, name=name) for folder, name in zip(folders, names, strict=True)]
    out = out or compared[0].workdir / ("report.html" if len(compared) == 1 else "comparison.html")
    require_folder("out", out)
    report = (
        run_report(compared[0], pictures) if len(compared) == 1 else comparison_report(compared, pictures)
    )
    page = spoken(render(report))
    write_atomically(out, page)
    for line in report.verdict:
        print(spoken(line.text))
    print(f"\nwritten to {out} ({len(page.encode()) / 1e6:.1f} MB)")


def run_report(run: runs.Run, pictures: Pictures) -> Report:
    """Make the page of a run."""
    parts = [sections.evaluation(run), *sections.curves([run], [0])]
    if run.checkpoints:
        parts += picture_sections(run, pictures)
    else:
        parts.append(Section("Features", missing("No pictures yet: the run has saved no checkpoint.")))
    parts += [*_invariance_section([run]), *inversion.inversion(run.workdir)]
    facts = {
        "Method": run.method,
        "Encoder": str(run.config.get("encoder", {}).get("name", "?")),
        "Data": str(run.config.get("data", {}).get("source", "?")),
        "Steps": f"{run.step:,} of {run.config.get('steps', '?'):,}",
        "Folder": str(run.workdir),
    }
    return Report(
        f"Run {run.name}", verdict.verdict(run), [*parts, sections.configuration(run)], facts, _footer([run])
    )


def comparison_report(compared: Sequence[runs.Run], pictures: Pictures) -> Report:
    """Make the page of a comparison."""
    grouped = runs.groups(compared)
    colors = [next(i for i, group in enumerate(grouped) if j in group) for j in range(len(compared))]
    names = [_group_name(compared, group) for group in grouped]
    parts = [sections.comparison(compared, grouped, names), *sections.curves(compared, colors)]
    parts += [spectrum_section(compared, colors, pictures), *_invariance_section(compared)]
    parts.append(sections.difference(compared))
    facts = {"Runs": str(len(compared)), "Configs": f"{len(grouped)}, seeds counted as one"}
    lines = verdict.comparison(compared, grouped, names)
    title = "Comparison: " + ", ".join(run.name for run in compared)
    return Report(title, lines, parts, facts, _footer(compared))


def picture_sections(run: runs.Run, pictures: Pictures) -> list[Section]:
    """Make the sections of a run that need its weights and images."""
    try:
        config, method, model = build.restore(run.workdir, pictures.step)
    except NoUsableCheckpointError as error:
        return [Section("Features", missing(f"No pictures: {error}."))]
    try:
        source = _open(config, pictures)
    except (ValueError, OSError) as error:
        command = (
            f"python -m experiments.report --workdirs={shlex.quote(str(run.workdir))} --source=folder:PATH"
        )
        return [Section("Features", missing(f"The images cannot be opened ({error}); show others:", command))]
    try:
        sample = _sample(config, method, model, source, pictures)
    except (TooManyCorrupt, ValueError) as error:
        return [Section("Features", missing(f"No pictures: {error}."))]
    print(f"encoded {len(sample.features)} images of {source.name}", flush=True)
    key, view_key = jax.random.split(jax.random.key(config["seed"]))
    parts = [
        section_or_reason("Map of the features", lambda: _map_section(sample, source.classes, pictures.map)),
        section_or_reason("Nearest neighbours", lambda: figures.neighbors(sample, source.classes)),
        section_or_reason("Spectrum", lambda: figures.spectrum([(run.name, sample.features)], [0])),
        figures.views(draw_views(view_key, source, method.views)),
    ]
    view = method.views[0]
    shown = np.linspace(0, len(sample.images) - 1, min(DRAWN, len(sample.images))).round().astype(int)
    images = normalize_for_evaluation(sample.images[shown], view)
    variables = method.encoder_variables(model.params, model.state)
    if method.reconstruct is not None:
        reconstruction = jax.jit(method.reconstruct)(model.params, model.state, images, key)
        parts.append(figures.reconstructions(reconstruction, view))
    if attention.has_attention(method.encoder):
        maps = attention.head_maps(method.encoder, *variables, images)
        pool = str(method.encoder.config["pool"])
        parts.append(figures.attention(sample.images[shown], maps, pool=pool))
    parts.append(
        section_or_reason("Patches", lambda: _patch_section(method, variables, sample.images, shown))
    )
    return parts


def _invariance_section(compared: Sequence[runs.Run]) -> list[Section]:
    """The section on invariance where it was measured: of one run all rows of its evaluation, of several those of the runs."""
    rows = []
    for run in compared:
        measured = (run.evaluation or {}).get("rows", [])
        if len(compared) == 1:
            rows += [(str(row.get("features", "?")), row) for row in measured]
        elif row := verdict.encoder_row(run.evaluation or {}):
            rows.append((run.name, row))
    if not invariance.named_rows(rows) and len(compared) > 1:
        return []
    return [invariance.invariance(rows, workdir=str(compared[0].workdir))]


def _patch_section(
    method: Method, variables: tuple[Params, State], images: np.ndarray, shown: np.ndarray
) -> Section:
    encode = jax.jit(functools.partial(patch_features, method.encoder))
    parts = []
    for start in range(0, len(images), DRAWN):
        part = np.resize(images[start : start + DRAWN], (DRAWN, *images.shape[1:]))
        parts.append(np.asarray(encode(*variables, normalize_for_evaluation(part, method.views[0]))))
    features = np.concatenate(parts)[: len(images)]
    others = np.setdiff1d(np.arange(len(images)), shown)
    return patches.patch_section(images[shown], features[shown], more=features[others])


def section_or_reason(title: str, make: Callable[[], Section]) -> Section:
    """Make a section, or one that says why these images do not do for it.

    >>> def make() -> Section:
    ...     raise ValueError("a map needs three images")
    >>> section_or_reason("Map", make).body
    '<p class="missing">Not shown: a map needs three images.</p>'
    """
    try:
        return make()
    except ValueError as error:
        return Section(title, missing(f"Not shown: {error}."))


def _map_section(sample: Sample, classes: Sequence[str], method: str) -> Section:
    return figures.embedding_map(embedding.project(sample.features, method=method), sample, classes)


def spectrum_section(compared: Sequence[runs.Run], colors: Sequence[int], pictures: Pictures) -> Section:
    """Draw the spectra of all runs that have weights and images."""
    features, drawn_colors, failures = [], [], []
    for run, color in zip(compared, colors, strict=True):
        try:
            config, method, model = build.restore(run.workdir, pictures.step)
            sample = _sample(config, method, model, _open(config, pictures), pictures)
        except (NoUsableCheckpointError, TooManyCorrupt, ValueError, OSError) as error:
            failures.append(f"{run.name} ({error})")
            continue
        print(f"encoded {len(sample.features)} images by {run.name}", flush=True)
        features.append((run.name, sample.features))
        drawn_colors.append(color)
    note = missing(f"Without a spectrum: {'; '.join(failures)}.") if failures else ""
    if not features:
        return Section("Spectrum", note)
    section = figures.spectrum(features, drawn_colors)
    return section._replace(body=section.body + note)


def _open(config: build.Config, pictures: Pictures) -> Source:
    source = pictures.source or config["data"]["source"]
    return open_images(config, source, pictures.split or config["watch"]["evaluate"]["test_split"])


def _sample(
    config: build.Config, method: Method, model: RestoredModel, source: Source, pictures: Pictures
) -> Sample:
    config = build.with_corrupt_fraction(config, pictures.max_corrupt_fraction)
    return encode_sample(
        method,
        model.params,
        model.state,
        source,
        count=pictures.points,
        num_images=FITTED,
        crop_ratio=config["watch"]["evaluate"]["crop_ratio"],
        max_corrupt_fraction=config["data"]["max_corrupt_fraction"],
    )


def _group_name(compared: Sequence[runs.Run], members: Sequence[int]) -> str:
    first = compared[members[0]]
    return first.name if len(members) == 1 else f"{first.name} ({len(members)} seeds)"


def _footer(compared: Sequence[runs.Run]) -> str:
    folders = " ".join(f"--workdirs={shlex.quote(str(run.workdir))}" for run in compared)
    return f"Made by python -m experiments.report {folders}. This page loads nothing from outside."
