"""What a pretrained encoder is worth: kNN and linear probes on frozen features, beside yardsticks.

    python -m experiments.evaluate --workdir=runs/first

Prints a table in which the encoder stands beside raw pixels and its own random initialisation, measured by the same code,
and writes ``evaluation.json`` into the workdir.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import build, launch
from experiments.tables import evaluation
from ssl_jax.augment.views import View
from ssl_jax.core.files import write_atomically
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.features import Features, extract
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.linear import few_labels, linear_probe
from ssl_jax.train.step import make_init

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)
_SOURCE = flags.DEFINE_string("source", None, "Labelled images to evaluate on; default: those of the run.")
_TRAIN = flags.DEFINE_string("train_split", None, "Split that fits the probes; default: as the config says.")
_TEST = flags.DEFINE_string("test_split", None, "Split that is reported; default: as the config says.")

Row = dict[str, Any]


def main() -> None:
    """Evaluate the run in ``--workdir``."""
    workdir = Path(launch.needed("workdir", _WORKDIR.value, "DIR"))
    config, method, model = build.restore(workdir, _STEP.value)
    options = config["evaluate"]
    spec = _SOURCE.value or config["data"]["source"]
    splits = (_TRAIN.value or options["train_split"], _TEST.value or options["test_split"])
    sources = [build.source(config, spec, split) for split in splits]
    for source, split in zip(sources, splits, strict=True):
        if not source.classes:
            raise ValueError(
                f"{spec} ({split}) has no labels, which evaluation needs: put the images into one folder a class, or give "
                "--source with labels; experiments.embed works without"
            )
    start = jax.jit(make_init(method, build.optimizer(config), build.sample(config)))(config["seed"])
    encoders: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "raw pixels": (pixels, ()),
        "random encoder": (method.encode, (start.params, start.state)),
        f"{config['method']['name']}, {model.step} steps": (method.encode, (model.params, model.state)),
    }
    rows = []
    for name, (encode, variables) in encoders.items():
        train, test = (
            features(s, encode, variables, method.views[0], options["crop_ratio"]) for s in sources
        )
        rows.append({"features": name, **measure(train, test, len(sources[0].classes), options)})
        print(f"measured {name}", flush=True)
    result = {
        "workdir": str(workdir),
        "step": model.step,
        "source": spec,
        "splits": splits,
        "examples": [len(source) for source in sources],
        "rows": rows,
    }
    write_atomically(workdir / "evaluation.json", json.dumps(result, indent=2) + "\n")
    print(f"\n{evaluation(result)}\n\nwritten to {workdir / 'evaluation.json'}")


def pixels(images: jax.Array) -> jax.Array:
    """Images as they are, flattened: the yardstick that needs no encoder."""
    return images.reshape(images.shape[0], -1)


def features(
    source: Source, encode: Callable[..., Any], variables: tuple[Any, ...], view: View, crop_ratio: float
) -> Features:
    """Features of every example of a source."""
    with epoch(source, batch_size=256, size=view.size, crop_ratio=crop_ratio) as batches:
        return extract(encode, batches, view=view, variables=variables)


def measure(train: Features, test: Features, classes: int, options: build.Config) -> Row:
    """kNN, linear probe and few-label linear probes, as accuracies in [0, 1]."""
    arrays = (train.features, train.labels, test.features, test.labels)
    k = min(options["k"], len(train.labels))
    row: Row = {"knn": knn_accuracy(*arrays, classes=classes, k=k, temperature=options["temperature"])}
    probe = linear_probe(*arrays, classes=classes)
    row["linear"], row["linear_l2"] = probe.accuracy, probe.l2
    smallest = int(np.bincount(train.labels, minlength=classes).min())
    for per_class in options["per_class"]:
        if per_class <= smallest:
            few = few_labels(*arrays, classes=classes, per_class=per_class, draws=options["draws"])
            row[f"linear_{per_class}"], row[f"linear_{per_class}_std"] = few.mean, few.std
    return row


if __name__ == "__main__":
    launch.run(main)
