"""One self-contained page for a run, or for a comparison of runs.

    python -m experiments.report --workdirs=runs/first
    python -m experiments.report --workdirs=runs/first,runs/second --out=comparison.html

One run: ``report.html`` in its folder, with verdict, evaluation, curves, a map of the features, neighbours, views and what
the method has to show. Several: curves and evaluations side by side, and the options in which the runs differ. What is not
there yet, such as an evaluation, is named with the command that makes it.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from ssl_jax.augment.views import normalize_for_evaluation
from ssl_jax.cli import launch
from ssl_jax.config import build
from ssl_jax.core.files import write_atomically
from ssl_jax.data.sources import Source
from ssl_jax.methods.method import Method
from ssl_jax.report import attention, embedding, figures, runs, sections, verdict
from ssl_jax.report.page import Report, Section, missing, render
from ssl_jax.report.sample import Sample, draw_views, take
from ssl_jax.train.checkpoint import NoUsableCheckpointError, RestoredModel

_WORKDIRS = flags.DEFINE_list("workdirs", None, "Folder of the run, or of several with commas between.")
_OUT = flags.DEFINE_string(
    "out", None, "File to write; default: report.html in the folder of the (first) run."
)
_POINTS = flags.DEFINE_integer(
    "points", 2000, "Images on the map and for neighbours and spectrum.", lower_bound=10
)
_MAP = flags.DEFINE_enum(
    "map",
    "auto",
    ["auto", "pca", "tsne"],
    f"How to draw the map; auto: t-SNE up to {embedding.MOST} points, else PCA.",
)
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)
_SOURCE = flags.DEFINE_string("source", None, "Images to show; default: those of the run.")
_SPLIT = flags.DEFINE_string("split", None, "Split of the source; default: the test split of the config.")


def main() -> None:
    """Write the page of ``--workdirs``."""
    folders = [name for name in _WORKDIRS.value or [] if name]
    launch.require_flag("workdirs", ",".join(folders), "DIR[,DIR...]")
    names = runs.unique_names(folders)
    found = [runs.read_run(f, name=n) for f, n in zip(folders, names, strict=True)]
    out = Path(_OUT.value) if _OUT.value else found[0].workdir / _default_name(len(found))
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"out={str(out)!r}: its folder does not exist")
    report = one(found[0]) if len(found) == 1 else several(found)
    page = render(report)
    write_atomically(out, page)
    for line in report.verdict:
        print(line.text)
    print(f"\nwritten to {out} ({len(page.encode()) / 1e6:.1f} MB)")


def one(run: runs.Run) -> Report:
    """The page of a run."""
    parts = [sections.evaluation(run), *sections.curves([run], [0])]
    if run.checkpoints:
        parts += pictured(run, *build.restore(run.workdir, _STEP.value))
    else:
        parts.append(Section("Features", missing("No pictures yet: the run has saved no checkpoint.")))
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


def several(found: Sequence[runs.Run]) -> Report:
    """The page of a comparison."""
    grouped = runs.groups(found)
    colors = [next(i for i, group in enumerate(grouped) if j in group) for j in range(len(found))]
    names = [_group_name(found, group) for group in grouped]
    parts = [sections.comparison(found, grouped, names), *sections.curves(found, colors)]
    parts += [_spectra(found, colors), sections.difference(found)]
    facts = {"Runs": str(len(found)), "Configs": f"{len(grouped)}, seeds counted as one"}
    said = verdict.comparison(found, grouped, names)
    return Report("Comparison: " + ", ".join(run.name for run in found), said, parts, facts, _footer(found))


def pictured(run: runs.Run, config: build.Config, method: Method, model: RestoredModel) -> list[Section]:
    """The sections that need the weights and the images."""
    try:
        source = _source(config)
    except (ValueError, OSError) as error:
        command = f"python -m experiments.report --workdirs={run.workdir} --source=folder:PATH"
        return [Section("Features", missing(f"The images cannot be opened ({error}); show others:", command))]
    sample = _sample(config, method, model, source)
    print(f"encoded {len(sample.features)} images of {source.name}", flush=True)
    key, view_key = jax.random.split(jax.random.key(config["seed"]))
    parts = [
        figures.embedding_map(embedding.project(sample.features, method=_MAP.value), sample, source.classes),
        figures.neighbours(sample, source.classes),
        figures.spectrum([(run.name, sample.features)], [0]),
        figures.views(draw_views(view_key, source, method.views)),
    ]
    view = method.views[0]
    images = normalize_for_evaluation(sample.images, view)
    if method.reconstruct is not None:
        made = jax.jit(method.reconstruct)(model.params, model.state, images, key)
        parts.append(figures.reconstructions(made, view))
    if attention.has_attention(method.encoder):
        variables = method.encoder_variables(model.params, model.state)
        maps = attention.head_maps(method.encoder, *variables, images)
        pool = str(method.encoder.config["pool"])
        parts.append(figures.attention(sample.images, maps, pool=pool))
    return parts


def _spectra(found: Sequence[runs.Run], colors: Sequence[int]) -> Section:
    """Spectra of all runs that have weights and images."""
    features, used, without = [], [], []
    for run, color in zip(found, colors, strict=True):
        try:
            config, method, model = build.restore(run.workdir, _STEP.value)
            sample = _sample(config, method, model, _source(config))
        except (NoUsableCheckpointError, ValueError, OSError) as error:
            without.append(f"{run.name} ({error})")
            continue
        print(f"encoded {len(sample.features)} images by {run.name}", flush=True)
        features.append((run.name, sample.features))
        used.append(color)
    note = missing(f"Without a spectrum: {'; '.join(without)}.") if without else ""
    if not features:
        return Section("Spectrum", note)
    section = figures.spectrum(features, used)
    return section._replace(body=section.body + note)


def _source(config: build.Config) -> Source:
    spec = _SOURCE.value or config["data"]["source"]
    return build.open_images(config, spec, _SPLIT.value or config["watch"]["evaluate"]["test_split"])


def _sample(config: build.Config, method: Method, model: RestoredModel, source: Source) -> Sample:
    options = {"count": _POINTS.value, "crop_ratio": config["watch"]["evaluate"]["crop_ratio"]}
    return take(method, model.params, model.state, source, **options)


def _group_name(found: Sequence[runs.Run], members: Sequence[int]) -> str:
    first = found[members[0]]
    return first.name if len(members) == 1 else f"{first.name} ({len(members)} seeds)"


def _default_name(count: int) -> str:
    return "report.html" if count == 1 else "comparison.html"


def _footer(found: Sequence[runs.Run]) -> str:
    folders = ",".join(str(run.workdir) for run in found)
    return f"Made by python -m experiments.report --workdirs={folders}. This page loads nothing from outside."


if __name__ == "__main__":
    launch.run(main)
