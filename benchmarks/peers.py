"""Accuracy and time against lightly: both train the same encoder on the same images, and one probe measures both.

    python -m benchmarks.peers --source=parquet:../shared/data/cifar10
    python -m benchmarks.peers --source=tfds:cifar10 --methods=simclr --seeds=0

A run is a library, a recipe, a method and a seed. It is a process of its own and leaves one row of ``results/peers.jsonl``. A
run that has its row is not made again. Each library follows two recipes: lightly's, as far as it has published one
(:data:`LIGHTLY`), and ``color32``, that of our bench. So a difference of libraries is not mistaken for one of recipes.

Equal in all runs of a method: pixels (decoded once, in memory), which images stand in which batch, batch size, images seen,
shape and kind of initialization of the encoder, normalization of the pixels, cores, kNN and linear probe. The time is that of
the training alone: augmentation, compilation and all steps, without probes and checkpoints. Needs the extra ``peers``.
"""

import argparse
import dataclasses
import importlib
import itertools
import math
import operator
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import pairs, torch_vision
from benchmarks.trained import Clock, Trained
from ssl_jax.cli.study import smallest_difference
from ssl_jax.config import build
from ssl_jax.config.find import import_config
from ssl_jax.config.images import open_images
from ssl_jax.config.recipe import Recipe, rescale_epochs
from ssl_jax.core import check
from ssl_jax.core.rows import Row, read_rows, write_row
from ssl_jax.data.sources import Source

RESULTS = Path(__file__).parent.parent / "results/peers.jsonl"
METHODS = ("simclr", "byol", "dino", "mae")
LIBRARIES = ("lightly", "ssl_jax")
RECIPES = ("lightly", "color32")
PACKAGES = ("jax", "jaxlib", "torch", "torchvision", "timm", "lightly")
EPOCH = 50_000
"""Images of CIFAR-10, and images seen where nothing else is said."""
QUICK = 64
"""Images of each split in a quick run."""
KEY = operator.itemgetter("method", "library", "recipe", "seed")

CIFAR = "lightly's docs/source/getting_started/benchmarks/cifar10_benchmark.py; its cosine falls once an epoch, here each step"
SGD: dict[str, Any] = {
    "name": "sgd",
    "learning_rate": 0.06,
    "scaling": "linear",
    "reference_batch": 128,
    "schedule": "cosine",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "exclude": "none",
}
SIMCLR_VIEWS = {"preset": "simclr", "strength": 0.5, "blur_prob": 0.0, "interpolation": "bilinear"}
LIGHTLY: dict[str, dict[str, Any]] = {
    "simclr": {
        "source": CIFAR,
        "warmup_epochs": 0,
        "method": {"temperature": 0.5, "projector_width": 512, "projection": 128},
        "views": SIMCLR_VIEWS,
        "optimizer": SGD,
    },
    "byol": {
        "source": CIFAR,
        "warmup_epochs": 0,
        "method": {"decay": 0.99, "hidden_dim": 1024, "projection": 256, "independent_init": False},
        "views": SIMCLR_VIEWS,
        # The loss of BYOL is four times lightly's: the same steps with a quarter of the rate and four times the decay.
        "optimizer": {**SGD, "learning_rate": 0.015, "weight_decay": 2e-3},
    },
    "dino": {
        "source": CIFAR,
        "warmup_epochs": 0,
        "method": {
            "head": {"prototypes": 2048, "hidden_dim": 2048, "bottleneck": 256, "layers": 2},
            "head_batch_norm": True,
            "teacher": {"decay": 0.99},
            "temperatures": {"teacher": 0.04},
        },
        "views": {"preset": "dino", "local_count": 0, "local_size": 16, "blur_prob": (0.0, 0.0)},
        "optimizer": SGD,
        "freeze_epochs": (),
        "method_epochs": {},
    },
    "mae": {
        "source": (
            "lightly's benchmarks/imagenet/vitb16/mae.py with our small decoder, the warm-up 5 % of the run as in the paper; "
            "it has no recipe for small images"
        ),
        "warmup_epochs": 0.05,
        "method": {
            "mask_ratio": 0.75,
            "norm_pix": False,
            "decoder_width": 64,
            "decoder_depth": 2,
            "decoder_heads": 4,
        },
        "views": {"preset": "mae"},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "scaling": "linear",
            "reference_batch": 256,
            "schedule": "cosine",
            "weight_decay": 0.05,
            "b2": 0.95,
        },
    },
}
"""Lightly's recipes: fields of :class:`ssl_jax.config.recipe.Recipe` in place of those of ``color32``; a run is one epoch."""
CONSTANT_DECAY = {"byol": "method.decay_steps", "dino": "method.teacher.decay_steps"}
"""Options that keep the teacher's decay constant, as lightly's CIFAR-10 benchmark does, when they are ``None``."""


class PeerRun(NamedTuple):
    """One run.

    Attributes:
      library: of :data:`LIBRARIES`, which trains.
      recipe: of :data:`RECIPES`.
      method: of :data:`METHODS`.
      seed: of weights, order and everything random.
    """

    library: str
    recipe: str
    method: str
    seed: int


def plan(methods: Sequence[str], recipes: Sequence[str], seeds: Sequence[int]) -> list[PeerRun]:
    """List the runs, the most telling first: each library on its own recipe, then on the other's.

    >>> [run[:2] for run in plan(["simclr"], RECIPES, [0])]
    [('lightly', 'lightly'), ('ssl_jax', 'color32'), ('ssl_jax', 'lightly'), ('lightly', 'color32')]
    """
    own = [("lightly", "lightly"), ("ssl_jax", "color32")]
    crossed = [("ssl_jax", "lightly"), ("lightly", "color32")]
    return [
        PeerRun(library, recipe, method, seed)
        for pairs_ in (own, crossed)
        for seed in seeds
        for method in methods
        for library, recipe in pairs_
        if recipe in recipes
    ]


def run_config(run: PeerRun, *, images: int = EPOCH, quick: bool = False) -> build.Config:
    """Make the whole config of a run, the same for both libraries.

    Args:
      run: which.
      images: images to see, from which steps follow.
      quick: four steps of a tiny encoder.
    """
    entry = import_config(run.method).get_config
    recipe: Recipe = entry.recipes["color32"]
    epochs = recipe.epochs["short"]
    if run.recipe == "lightly":
        recipe = dataclasses.replace(
            recipe, epochs={"short": 1.0}, by_budget={}, by_backbone={}, **LIGHTLY[run.method]
        )
        epochs = 1.0
    recipe = rescale_epochs(recipe, images / EPOCH / epochs)
    # The dataset of the same images and numbers without a number of epochs of its own.
    entry = dataclasses.replace(entry, recipes={**entry.recipes, "cifar10": recipe})
    config = build.to_dict(entry(f"cifar10,{'smoke' if quick else 'short'}"))
    changes: dict[str, Any] = {"seed": run.seed}
    if run.recipe == "lightly" and run.method in CONSTANT_DECAY:
        changes[CONSTANT_DECAY[run.method]] = None
    return build.with_changes(config, changes)


def read_images(source: Source, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read images into memory: uint8 ``[n, h, w, 3]``, and labels ``[n]``.

    Raises:
      ValueError: images of several sizes, or not of three channels of uint8.
    """
    elements = [source[index] for index in range(len(source) if count is None else count)]
    shapes = sorted({element["image"].shape for element in elements})
    fits = len(shapes) == 1 and shapes[0][2] == 3 and source.dtype == "uint8"
    check.require(fits, "source", (source.name, shapes[:3], source.dtype), "RGB images of one size, uint8")
    images = np.stack([element["image"] for element in elements])
    return images, np.array([element["label"] for element in elements])


def train_ours(config: build.Config, images: np.ndarray) -> Trained:
    """Train a method with ssl_jax on images in memory.

    Raises:
      ValueError: a signal stopped it, so that there is nothing to compare.
    """
    import jax

    from ssl_jax.data.sources import ArraySource
    from ssl_jax.evaluate.measure import encode_source
    from ssl_jax.train.loop import fit
    from ssl_jax.train.run import Watch

    writer = _Losses()
    objects = build.RunObjects(build.method(config), build.optimizer(config), ArraySource(images))
    clock = Clock()
    watch = Watch(writer=lambda step: writer, log_every=config["watch"]["log"]["every"])
    fitted = fit(build.run(config, objects), watch=watch)
    state = jax.block_until_ready(fitted.state)
    seconds, cpu_seconds = clock.read()
    if fitted.stopped_by:
        raise ValueError(f"stopped by {fitted.stopped_by}: the same command makes the run again")
    method = objects.method

    def encode(given: np.ndarray) -> np.ndarray:
        variables = (state.params, state.state)
        source, view = ArraySource(given), method.views[0]
        return encode_source(source, method.encode, variables, view=view, crop_ratio=1.0).features

    return Trained(encode, writer.losses, seconds, cpu_seconds)


class _Losses:
    """A writer that keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        del step
        if "loss" in scalars:
            self.losses.append(float(scalars["loss"]))

    def close(self) -> None:
        """Nothing to finish."""


def train_theirs(config: build.Config, images: np.ndarray) -> Trained:
    """Train a method with lightly on images in memory."""
    torch_vision.import_torchvision()
    return importlib.import_module("benchmarks.lightly_side").train(config, images)


def probe(
    config: build.Config,
    trained: Trained,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
) -> dict[str, float]:
    """Measure kNN and linear probe of a trained encoder, by our measures.

    Args:
      config: for the options of the measures.
      trained: by either library.
      splits: images and labels of training and test.
      classes: names of the labels.

    Returns:
      ``knn`` and ``linear``, shares in [0, 1].
    """
    from ssl_jax.cli.evaluate import measure_options
    from ssl_jax.data.sources import ArraySource
    from ssl_jax.evaluate.measure import Subject
    from ssl_jax.evaluate.measures import parse_measures, run_measures
    from ssl_jax.train.features import Features

    features, sources = [], []
    for images, labels in splits:
        index = np.arange(len(labels), dtype=np.int32)
        features.append(Features(trained.encode(images), labels.astype(np.int32), index))
        sources.append(ArraySource(images, labels, classes=tuple(classes)))
    subject = Subject(features[0], features[1], (sources[0], sources[1]), measure_options(config))
    row = run_measures(subject, parse_measures(("knn", "linear")))
    return {name: float(row[name]) for name in ("knn", "linear")}


def make_run(run: PeerRun, options: argparse.Namespace) -> Row:
    """Train and measure one run in this process."""
    config = run_config(run, images=options.images, quick=options.quick)
    evaluate = config["watch"]["evaluate"]
    named = [evaluate["train_split"], evaluate["test_split"]]
    sources = [open_images(config, options.source, split) for split in named]
    splits = [read_images(source, QUICK if options.quick else None) for source in sources]
    load = os.getloadavg()
    # Worker processes are forked: lightly trains before JAX starts its threads.
    train = train_theirs if run.library == "lightly" else train_ours
    trained = train(config, splits[0][0])
    measures = probe(config, trained, splits, sources[0].classes)
    return {
        **run._asdict(),
        "images": config["steps"] * config["batch_size"],
        "source": options.source,
        "quick": options.quick,
        "seconds": round(trained.seconds, 2),
        "cpu_seconds": round(trained.cpu_seconds, 2),
        "measures": measures,
        "loss": pairs.rounded(trained.losses[-1]),
        "date": datetime.now(UTC).date().isoformat(),
        "load_average": [round(value, 2) for value in load],
        "machine": pairs.machine(),
        "versions": pairs.versions(PACKAGES),
        "config": config,
    }


def is_done(run: PeerRun, options: argparse.Namespace) -> bool:
    """Tell whether there is a row of just this config."""
    config = run_config(run, images=options.images, quick=options.quick)
    rows = [row for row in read_rows(options.out) if all(row[k] == v for k, v in run._asdict().items())]
    return any(build.same_run(row["config"], config) for row in rows)


def commands(missing: Sequence[PeerRun], options: argparse.Namespace) -> Iterator[list[str]]:
    """Make the command line of each run in a process of its own."""
    shared = [f"--source={options.source}", f"--images={options.images}", f"--out={options.out}"]
    shared += ["--quick"] * options.quick
    for run in missing:
        one = [f"--methods={run.method}", f"--recipes={run.recipe}", f"--seeds={run.seed}"]
        yield [sys.executable, "-m", "benchmarks.peers", *shared, *one, f"--library={run.library}"]


def describe(row: Row) -> str:
    """Say how a run ended, in a line."""
    accuracy = ", ".join(f"{name} {100 * value:.1f}" for name, value in row["measures"].items())
    name = f"{row['method']} by {row['library']}, recipe {row['recipe']}, seed {row['seed']}"
    return f"{name}: {accuracy}; {row['seconds']:.0f} s, {row['cpu_seconds'] / 60:.1f} core-minutes"


def peers_table(rows: Sequence[Row]) -> str:
    """Tabulate accuracy, time and the differences that as many seeds can show, in Markdown."""
    rows = [row for row in rows if not row["quick"]]
    if not rows:
        return "not measured yet"
    lines = [
        "| method | library | recipe | seeds | kNN | linear | images/s | core-minutes |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for method in METHODS:
        for recipe, library in itertools.product(RECIPES, LIBRARIES):
            wanted = (method, library, recipe)
            if group := [row for row in rows if KEY(row)[:3] == wanted]:
                groups[wanted] = group
                lines.append(f"| {method} | {library} | {recipe} | {' | '.join(group_cells(group))} |")
    lines += ["", *comparison_lines(groups), "", _conditions(rows)]
    return "\n".join(lines)


def group_cells(group: Sequence[Row]) -> list[str]:
    """Write number of seeds, accuracies in percent with their deviation, speed and cost of some rows."""
    accuracies = [percent(group, name) for name in ("knn", "linear")]
    texts = [
        f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
        for values in accuracies
    ]
    speed = np.mean([row["images"] / row["seconds"] for row in group])
    cost = np.mean([row["cpu_seconds"] / 60 for row in group])
    return [str(len(group)), *texts, f"{speed:.0f}", f"{cost:.1f}"]


def percent(group: Sequence[Row], name: str) -> np.ndarray:
    """Return a measure of some rows in percent."""
    return np.array([100 * row["measures"][name] for row in group])


COMPARISONS = (
    ("ours against theirs, each on its recipe", ("ssl_jax", "color32"), ("lightly", "lightly")),
    ("ours against theirs, on lightly's recipe", ("ssl_jax", "lightly"), ("lightly", "lightly")),
    ("ours against theirs, on color32", ("ssl_jax", "color32"), ("lightly", "color32")),
    ("color32 against lightly's recipe, by ours", ("ssl_jax", "color32"), ("ssl_jax", "lightly")),
)
"""What is compared, the first and the second of each comparison as (library, recipe)."""


def comparison_lines(groups: Mapping[tuple[str, str, str], Sequence[Row]]) -> list[str]:
    """Tabulate each comparison of which both sides are there: differences of accuracy, verdict, and how many times as fast."""
    lines = [
        "| method | what | kNN | linear | accuracy | wall time | processor time |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    for method in METHODS:
        for text, first, second in COMPARISONS:
            if (method, *first) not in groups or (method, *second) not in groups:
                continue
            one, two = groups[method, *first], groups[method, *second]
            told = [difference(one, two, name) for name in ("knn", "linear")]
            cells = [
                f"{value:+.1f}" + (f" ± {smallest:.1f}" if math.isfinite(smallest) else "")
                for value, smallest in told
            ]
            faster = [ratio(two, one, name) for name in ("seconds", "cpu_seconds")]
            lines.append(
                f"| {method} | {text} | {' | '.join(cells)} | {verdict(told)} | {' | '.join(faster)} |"
            )
    return lines


def difference(one: Sequence[Row], two: Sequence[Row], name: str) -> tuple[float, float]:
    """Compute how many points the first is better, and the smallest difference that as many seeds can show.

    With the pooled deviation s of n and m seeds it is ``t(0.975, n + m − 2) s √(1/n + 1/m)``; infinite for one seed each.
    """
    first, second = percent(one, name), percent(two, name)
    smallest = smallest_difference([first, second], 1 / len(first) + 1 / len(second))
    return float(first.mean() - second.mean()), smallest


def verdict(differences: Sequence[tuple[float, float]]) -> str:
    """Say what differences of accuracy show: better or worse where one exceeds its band, and none goes the other way.

    >>> verdict([(2.0, 1.0), (0.5, 1.0)]), verdict([(-0.5, 1.0)]), verdict([(2.0, 1.0), (-2.0, 1.0)])
    ('better', 'no difference shown', 'better and worse')
    """
    signs = {"better" if value > 0 else "worse" for value, smallest in differences if abs(value) > smallest}
    return " and ".join(sorted(signs)) or "no difference shown"


def ratio(slower: Sequence[Row], faster: Sequence[Row], name: str) -> str:
    """Divide the mean times of two groups, each by its images."""
    each = [np.mean([row[name] / row["images"] for row in group]) for group in (slower, faster)]
    return f"{each[0] / each[1]:.2f} x"


def _conditions(rows: Sequence[Row]) -> str:
    """One sentence: images, hardware, versions, load."""
    seen = sorted({row["images"] for row in rows})
    machines = sorted({f"{row['machine']['cores']} cores of {row['machine']['cpu']}" for row in rows})
    versions = sorted(
        {", ".join(f"{name} {version}" for name, version in row["versions"].items()) for row in rows}
    )
    loads = [row["load_average"][0] for row in rows]
    return (
        f"Images seen: {', '.join(f'{count:,}' for count in seen)}. {'; '.join(machines)}; {'; '.join(versions)}; "
        f"load {min(loads):.1f} to {max(loads):.1f}."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
      ValueError: a method, recipe or library that does not exist, or no image to see.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").partition("\n")[0]
    )
    names = {"type": lambda text: tuple(filter(None, text.split(",")))}
    parser.add_argument("--source", default="tfds:cifar10", help="CIFAR-10, or images like it")
    parser.add_argument("--methods", default=METHODS, help=f"of {', '.join(METHODS)}; default: all", **names)
    parser.add_argument("--recipes", default=RECIPES, help=f"of {', '.join(RECIPES)}; default: both", **names)
    parser.add_argument("--seeds", default=("0", "1", "2"), help="default: 0,1,2", **names)
    parser.add_argument("--images", type=int, default=EPOCH, help=f"images seen a run; default: {EPOCH}")
    parser.add_argument("--minutes", type=float, help="begin no further run after so many; default: no limit")
    parser.add_argument("--library", default="", help=f"{' or '.join(LIBRARIES)}; default: both")
    parser.add_argument(
        "--quick", action="store_true", help="four steps of tiny encoders: numbers mean nothing"
    )
    parser.add_argument("--out", type=Path, help="file of rows; default: results/peers.jsonl")
    options = parser.parse_args(arguments)
    for name, allowed in (("methods", METHODS), ("recipes", RECIPES)):
        for value in getattr(options, name):
            check.choice(name, value, allowed)
    if options.library:
        check.choice("library", options.library, LIBRARIES)
    check.require(options.images >= 1, "images", options.images, "an integer of 1 or more")
    check.require(all(s.isdigit() for s in options.seeds), "seeds", options.seeds, "integers of 0 or more")
    quick_without_out = options.quick and options.out is None
    check.require(not quick_without_out, "out", options.out, "a file of its own for a quick run")
    options.out = options.out or RESULTS
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, each in a process of its own; one run of ``--library`` in this one."""
    options = parse(arguments)
    runs = plan(options.methods, options.recipes, [int(seed) for seed in options.seeds])
    runs = [run for run in runs if options.library in ("", run.library)]
    missing = [run for run in runs if not is_done(run, options)]
    if options.library and len(runs) == 1:
        for run in missing:
            row = make_run(run, options)
            write_row(options.out, row, KEY)
            print(describe(row), flush=True)
        return
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are in {options.out}", flush=True)
    end = time.monotonic() + 60 * (float("inf") if options.minutes is None else options.minutes)
    failures = 0
    for command in commands(missing, options):
        if time.monotonic() >= end:
            print("the time is over; the same command goes on", flush=True)
            break
        failures += subprocess.run(command, check=False).returncode != 0
    print(peers_table(read_rows(options.out)))
    if failures:
        raise ValueError(f"{failures} runs failed, see above; the same command tries them again")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ArithmeticError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on")
