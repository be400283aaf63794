"""What the studies share: variants are trained small, measured, and set beside the published numbers.

    python -m experiments.studies.simsiam_ablation
    python -m experiments.studies.simsiam_ablation --seeds=0 --jobs=2

A study is data: variants (a method's config and what differs from it), what the paper reports for each, and the claims, which
are decided by the measurements. Every run leaves one file, ``docs/results/studies/<study>/<variant>-<seed>.json``, with its
whole config, curves and accuracies; a run whose file is there with the same config is not made again. The command prints the
table and the claims and draws the figure; ``python -m docs.tables`` writes the page.
"""

import concurrent.futures
import importlib
import json
import multiprocessing
import os
import pkgutil
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import experiments.studies as package
from ssl_jax.cli import launch, measure
from ssl_jax.config import build
from ssl_jax.core.files import write_atomically
from ssl_jax.core.machine import machine
from ssl_jax.core.table import table
from ssl_jax.data.open import open_source
from ssl_jax.evaluate.finetune import finetune
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.linear import few_labels, ridge
from ssl_jax.evaluate.spectrum import effective_rank
from ssl_jax.train.loop import fit
from ssl_jax.train.state import TrainState

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "docs/results/studies"
FIGURES = ROOT / "docs/studies"

Record = dict[str, Any]
OF_UNTRAINED = ("knn", "linear", "finetune")
"""Measures that are taken of the encoder before training too."""
COMMON: dict[str, Any] = {
    "encoder.widths": (16, 32, 64),
    "watch.log.every": 20,
    "batch_size": 64,
    "steps": 800,
}
"""What every run of a study has unless it says otherwise: a third of the results table's encoder, about 5 passes over the
10,000 images of ``embedded``."""


class Variant(NamedTuple):
    """One row of a study.

    Attributes:
      name: as the table shows it.
      method: whose config it starts from.
      changes: dotted config names and values, such as ``{"method.decay": 0.9}``.
      published: what the paper reports, in percent; ``None``: nothing.
      line: name of the line of the figure that the variant is a point of, with ``x`` its place; ``""``: a bar of its own.
      x: place on the horizontal axis.
    """

    name: str
    method: str
    changes: Mapping[str, Any] = {}
    published: float | None = None
    line: str = ""
    x: float = 0.0


class Claim(NamedTuple):
    """What a paper says, and whether it holds here.

    Attributes:
      text: the claim.
      holds: whether the measurements agree.
      evidence: the measurements.
    """

    text: str
    holds: bool
    evidence: str


class Measured(NamedTuple):
    """The records of all seeds of a variant."""

    records: Sequence[Record]

    def of(self, name: str) -> np.ndarray:
        """A measure of every seed.

        ``knn`` and ``linear`` in percent, ``random_knn`` and ``random_linear`` of the untrained encoder, ``classifier`` of what
        was learnt from labels (of methods with a classifier its own; of others, in runs with few labels, logistic regression
        of the features on them), ``rank`` the effective rank of the features' covariance, or the name of a curve, whose last
        value it is.
        """
        return np.array([self._one(record, name) for record in self.records])

    def has(self, name: str) -> bool:
        """Whether it was measured: encoders differ in their number of layers."""
        return all(name in record["measures"] or name in record["curves"] for record in self.records)

    @staticmethod
    def _one(record: Record, name: str) -> float:
        if name in record["measures"]:
            return record["measures"][name] * (1 if name.endswith("rank") else 100)
        return record["curves"][name][-1]

    def mean(self, name: str) -> float:
        """Mean over seeds."""
        return float(self.of(name).mean())

    def spread(self, name: str) -> float:
        """Standard deviation (n − 1) over seeds, 0 of one seed."""
        values = self.of(name)
        return float(values.std(ddof=1)) if len(values) > 1 else 0.0

    def text(self, name: str, digits: int = 1) -> str:
        """Mean ± deviation."""
        return f"{self.mean(name):.{digits}f} ± {self.spread(name):.{digits}f}"


Results = Mapping[str, Measured]
Extra = Callable[[build.Config], dict[str, Callable[..., Any]]]


class Study(NamedTuple):
    """A published claim, small.

    Attributes:
      name: of the module.
      title: of the page.
      question: what it asks, in a sentence or two.
      source: of the published numbers: paper and table.
      published_as: heading of their column.
      variants: rows.
      claims: measurements by variant's name -> claims.
      columns: measures of the table by heading; see :meth:`Measured.of`.
      curves: curves to draw: name and heading.
      watched: names of further curves, which only the claims read.
      common: config changes of all variants, over :data:`COMMON`.
      x_label: of the horizontal axis of lines.
      x_scale: ``"log"`` or ``"linear"``.
      extra: ``config -> {name: encode}``: further features of a run, measured as ``<name>_knn``, ``<name>_linear`` and
        ``<name>_rank``.
      spectra: spectra to draw: name of the features (``""`` the encoder's, or one of ``extra``) and heading.
      layers: names of ``extra`` from the first layer to the last, whose linear accuracy is drawn as a line a variant; they are
        measured of the untrained encoder too. Variants may have fewer.
      finetune: options of :func:`ssl_jax.evaluate.finetune.finetune`, whose accuracy is then measured as ``finetune``, of the
        encoder before training too; ``None``: it is not.
      notes: what a reader should know about the differences from the paper.
    """

    name: str
    title: str
    question: str
    source: str
    published_as: str
    variants: tuple[Variant, ...]
    claims: Callable[[Results], list[Claim]]
    columns: Mapping[str, str]
    curves: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()
    common: Mapping[str, Any] = {}
    x_label: str = ""
    x_scale: str = "log"
    extra: Extra | None = None
    spectra: tuple[tuple[str, str], ...] = ()
    layers: tuple[str, ...] = ()
    finetune: Mapping[str, Any] | None = None
    notes: str = ""


def better(first: Measured, second: Measured, name: str = "knn", *, by: float = 0.0) -> bool:
    """Whether the first is higher by more than ``by`` and more than the deviations of both over seeds together."""
    band = first.spread(name) + second.spread(name)
    return first.mean(name) - second.mean(name) > max(by, band)


def studies() -> dict[str, Study]:
    """Every study by name: the modules of this folder that have one."""
    found = {}
    for module in sorted(name for _, name, _ in pkgutil.iter_modules(package.__path__)):
        study = getattr(importlib.import_module(f"{package.__name__}.{module}"), "STUDY", None)
        if study is not None:
            found[module] = study
    return found


def config_of(study: Study, variant: Variant, seed: int) -> build.Config:
    """The whole config of a run."""
    config = importlib.import_module(f"configs.{variant.method}").get_config("embedded,short")
    # The convolutional encoder's sizes, which transformers do not have.
    common = {
        name: value for name, value in COMMON.items() if "widths" in config.encoder or "widths" not in name
    }
    changes = {**common, **study.common, **variant.changes, "seed": seed}
    config.update_from_flattened_dict(changes)
    return build.plain(config)


def file_of(study: Study, variant: Variant, seed: int, out: Path) -> Path:
    """Where the record of a run is kept."""
    slug = re.sub(r"[^a-z0-9.]+", "_", variant.name.lower()).strip("_")
    return out / study.name / f"{slug}-{seed}.json"


def load(study: Study, seeds: Sequence[int], out: Path = RESULTS) -> dict[str, Measured]:
    """The records that are there and whose config is that of the study, by variant."""
    found = {}
    for variant in study.variants:
        paths = [file_of(study, variant, seed, out) for seed in seeds]
        records = [json.loads(path.read_text()) for path in paths if path.exists()]
        config = config_of(study, variant, 0)
        current = [r for r in records if build.same(r["config"], {**config, "seed": r["seed"]})]
        if current:
            found[variant.name] = Measured(current)
    return found


def run(study: Study) -> None:
    """The command of a study: make the runs that are missing, print the table and the claims, draw the figure."""
    # Defined here and not above: the pages read studies too, beside launchers with flags of the same names.
    seeds = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
    jobs = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Runs at a time, one core each.", lower_bound=1)
    out = flags.DEFINE_string("out", str(RESULTS), "Folder for the result files.")
    launch.run(lambda: _main(study, seeds.value, jobs.value, Path(out.value)))


def _main(study: Study, asked: Sequence[str], jobs: int, out: Path) -> None:
    seeds = launch.seeds(asked)
    there = load(study, seeds, out)
    missing = [
        (variant, [s for s in seeds if s not in [r["seed"] for r in _records(there, variant)]])
        for variant in study.variants
    ]
    missing = [(variant, left) for variant, left in missing if left]
    total = len(study.variants) * len(seeds)
    print(
        f"{total - sum(len(left) for _, left in missing)} of {total} runs are in {out / study.name}",
        flush=True,
    )
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(jobs):
        cores.put(core)
    jobs = min(jobs, os.cpu_count() or 1)
    with concurrent.futures.ProcessPoolExecutor(jobs, context, _begin, (cores,)) as pool:
        made = [pool.submit(_make, study.name, variant, left, out) for variant, left in missing]
        for future in concurrent.futures.as_completed(made):
            print(future.result(), flush=True)
    found = load(study, seeds, out)
    print(f"\n{results_table(study, found)}\n")
    for claim in study.claims(found):
        print(f"{'holds' if claim.holds else 'DOES NOT HOLD'}: {claim.text} ({claim.evidence})")
    if out == RESULTS:
        from experiments.studies import figure  # matplotlib is an optional dependency

        print(f"figure: {figure.draw(study, found, FIGURES / f'{study.name}.svg')}")


def _records(found: Mapping[str, Measured], variant: Variant) -> Sequence[Record]:
    return found[variant.name].records if variant.name in found else []


def _begin(cores: Any) -> None:
    """One core for each worker; programs are compiled once for all seeds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _make(name: str, variant: Variant, seeds: Sequence[int], out: Path) -> str:
    study = studies()[name]
    spent = []
    for seed in seeds:
        record = train(study, variant, seed)
        spent.append(record["cpu_seconds"])
        path = file_of(study, variant, seed, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(record, indent=1) + "\n")
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


def train(study: Study, variant: Variant, seed: int) -> Record:
    """Train one variant with one seed on one core and measure it, and its encoder before training."""
    began = time.process_time()
    config = config_of(study, variant, seed)
    method, optimizer, source = build.parts(config)
    writer, before = _Curves(), []

    def begin(state: TrainState) -> TrainState:
        before.append(jax.tree.map(jnp.copy, state))  # training overwrites the state's own arrays
        return state

    fitted = fit(
        method,
        source,
        optimizer=optimizer,
        steps=config["steps"],
        batch_size=config["batch_size"],
        seed=seed,
        writer=lambda step: writer,
        log_every=config["watch"]["log"]["every"],
        refresh_every=config.get("refresh_every", 0),
        labeled_fraction=build.labeled_fraction(config),
        begin=begin,
    )
    data, options = config["data"], config["watch"]["evaluate"]
    sources = [open_source(data["source"], options[f"{part}_split"]) for part in ("train", "test")]
    asked: dict[str, tuple[TrainState, Callable[..., Any]]] = {
        "random": (before[0], method.encode),
        "": (fitted.state, method.encode),
    }
    if study.extra is not None:
        extra = study.extra(config)
        asked |= {name: (fitted.state, f) for name, f in extra.items()}
        asked |= {f"random_{name}": (before[0], extra[name]) for name in study.layers if name in extra}
    measures: dict[str, float] = {}
    spectra: dict[str, list[float]] = {}
    for prefix, (state, encode) in asked.items():
        variables = (state.params, state.state)
        train_set, test = (
            measure.features(s, encode, variables, method, options["crop_ratio"]) for s in sources
        )
        arrays = (train_set.features, train_set.labels, test.features, test.labels)
        start = f"{prefix}_" if prefix else ""
        measures[f"{start}knn"] = _knn(arrays, len(source.classes), options["k"])
        measures[f"{start}linear"] = float(ridge(*arrays, classes=len(source.classes)).accuracy)
        measures[f"{start}rank"] = float(effective_rank(test.features, of="covariance"))
        if prefix in [name for name, _ in study.spectra]:
            spectra[prefix] = spectrum(test.features)
        if study.finetune is not None and prefix in ("random", ""):
            weights = method.encoder_variables(*variables)
            given: dict[str, Any] = {
                "view": method.views[0],
                "crop_ratio": options["crop_ratio"],
                **study.finetune,
            }
            done = finetune(method.encoder, *weights, *sources, labels=train_set.labels, seed=seed, **given)
            measures[f"{start}finetune"] = done.accuracy
        if prefix == "":
            measures |= measure.classified(sources[1], method, variables, options["crop_ratio"])
            if method.classify is None and data["num_labels"]:
                # Draw 0 of this seed is what `FewLabels` keeps.
                per_class = data["num_labels"] // len(source.classes)
                few = few_labels(
                    *arrays, classes=len(source.classes), per_class=per_class, draws=1, seed=seed
                )
                measures["classifier"] = few.mean
    drawn = {"step", "loss", *(name for name, _ in study.curves), *study.columns.values(), *study.watched}
    return {
        "study": study.name,
        "variant": variant.name,
        "seed": seed,
        "config": config,
        "measures": {name: round(value, 5) for name, value in measures.items()},
        "curves": {name: values for name, values in writer.curves.items() if name in drawn},
        **({"spectra": spectra} if spectra else {}),
        "cpu_seconds": round(time.process_time() - began, 1),
        "machine": machine(),
    }


def spectrum(features: np.ndarray) -> list[float]:
    """Eigenvalues of the covariance of features ``[n, d]`` in falling order, as log10 of their share of the largest.

    >>> spectrum(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1], [0.0, -0.1]]))
    [0.0, -2.0]
    """
    values = np.linalg.eigvalsh(np.cov(np.float64(features), rowvar=False))[::-1]
    # Below float32's resolution of the features everything is rounding.
    return np.log10(np.maximum(values / values[0], 1e-12)).round(3).tolist()


def _knn(arrays: tuple[np.ndarray, ...], classes: int, k: int) -> float:
    accuracy = knn_accuracy(*arrays, classes=classes, k=k)
    assert isinstance(accuracy, float)
    return accuracy


def untrained(found: Results) -> Measured:
    """One record of each seed, for what was measured before training: variants of a method start from the same encoder."""
    records = [record for measured in found.values() for record in measured.records]
    return Measured(list({record["seed"]: record for record in reversed(records)}.values()))


def results_table(study: Study, found: Results, *, markdown: bool = False) -> str:
    """The paper's numbers beside ours, mean ± deviation over seeds."""
    rows: list[dict[str, Any]] = []
    every = untrained(found)
    if every.records:
        cells = {
            heading: (every.mean(f"random_{name}"), every.spread(f"random_{name}"))
            for heading, name in study.columns.items()
            if name in OF_UNTRAINED
        }
        rows.append(
            {"variant": "random encoder", study.published_as: None, **cells, "seeds": len(every.records)}
        )
    for variant in study.variants:
        if variant.name in found:
            measured = found[variant.name]
            cells = {
                heading: (measured.mean(name), measured.spread(name))
                for heading, name in study.columns.items()
                if measured.has(name)
            }
            seeds = len(measured.records)
            rows.append(
                {"variant": variant.name, study.published_as: variant.published, **cells, "seeds": seeds}
            )
    if not rows:
        return "no results"
    digits = 2 if any("std" in name for name in study.columns.values()) else 1
    published = [study.published_as] if any(v.published is not None for v in study.variants) else []
    return table(
        rows,
        columns=["variant", *published, *study.columns, "seeds"],
        markdown=markdown,
        digits=digits,
    )


def is_complete(study: Study, found: Results) -> bool:
    """Whether every variant was measured: only then are there claims and a figure."""
    return len(found) == len(study.variants)


def findings(study: Study, found: Results, *, folder: str = "") -> list[str]:
    """Lines of a docs page about a complete study: each claim and whether it holds here, and the figure in ``folder``."""
    verdicts = [
        f"- {'**Holds here.**' if c.holds else '**Does not hold here.**'} {c.text} ({c.evidence})"
        for c in study.claims(found)
    ]
    return [*verdicts, "", f"![{study.title}]({folder}{study.name}.svg)"]


KINDS = {
    "convnet": "convolutional network",
    "ladder": "ladder network",
    "mlp": "perceptron",
    "vit_micro": "vision transformer",
}
"""What the docs call an encoder."""


def how(study: Study, records: Sequence[Record]) -> str:
    """What was measured on which images, at what cost."""
    configs = [record["config"] for record in records]
    steps = {
        size: [c["steps"] for c in configs if c["batch_size"] == size]
        for size in _each(configs, "batch_size")
    }
    lengths = " or ".join(
        f"{min(found)}{f' to {max(found)}' if max(found) > min(found) else ''} steps of {size}"
        for size, found in steps.items()
    )
    encoders = " or ".join(
        f"a small {KINDS[name]}" for name in _each([c["encoder"] for c in configs], "name")
    )
    spent = np.mean([record["cpu_seconds"] for record in records])
    scale = "A scale on which the published percentages, of ImageNet, are not to be expected: only the pattern is compared."
    parts = [
        f"Ours: the 10,000 Fashion-MNIST images of `embedded`, {lengths} images, {encoders}; kNN (k = 20) and linear (ridge) "
        "accuracy in percent on the 2,000 test images, ± the deviation over seeds.",
        "`random encoder`: the same encoders before training.",
        f"One core of {records[0]['machine']['device']}, {spent:.0f} CPU seconds a run.",
        *([scale] if any(variant.published is not None for variant in study.variants) else []),
    ]
    return " ".join(parts)


def _each(tables: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return sorted({table[name] for table in tables})


def page(study: Study, seeds: Sequence[int] = (0, 1, 2)) -> str:
    """The docs page of a study."""
    found = load(study, seeds)
    lines = [f"# {study.title}", "", study.question, "", f"Published: {study.source}.", ""]
    if is_complete(study, found):
        lines += [*findings(study, found), ""]
    records = [record for measured in found.values() for record in measured.records]
    if records:
        lines += [results_table(study, found, markdown=True), "", how(study, records), ""]
    if study.notes:
        lines += [study.notes, ""]
    lines += [f"Run it again: `python -m experiments.studies.{study.name}`.", ""]
    return "\n".join(lines)
