"""Train a pretrained encoder further, with labels.

    python -m experiments.finetune --workdir=runs/mae
    python -m experiments.finetune --workdir=runs/mae --recipe=mae --share=0.1 --set=learning_rate=0.002 --set=layer_decay=0.75

Trains encoder and a linear classifier on a balanced share of the training labels, classifies the test images once, and does
the same from the encoder's random start (``--norandom``: not). Prints both, and writes ``finetune.json`` into the workdir.
Recipes: ``plain``, a crop and a flip; ``mae``, the one of MAE's ViT-B: layer-wise decay, mixup, cutmix, label smoothing,
erasing, drop path and colour jitter. ``--set`` overrides an option of ``ssl_jax.evaluate.finetune.finetune``.
"""

import ast
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.measure import labelled
from ssl_jax.config import build
from ssl_jax.core.check import choice, require
from ssl_jax.core.files import write_atomically
from ssl_jax.core.machine import machine
from ssl_jax.core.table import table
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.finetune import RECIPES, finetune
from ssl_jax.train.step import make_init

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)
_RECIPE = flags.DEFINE_string("recipe", "plain", "plain or mae.")
_SHARE = flags.DEFINE_float("share", 1.0, "Share of the training labels, in (0, 1].")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of draw, classifier, order and views.")
_SET = flags.DEFINE_multi_string("set", [], "An option, name=value; may be repeated.")
_RANDOM = flags.DEFINE_bool("random", True, "Train from the encoder's random start too.")
GIVEN = ("encoder", "params", "state", "train", "test", "labels", "view", "share", "crop_ratio", "seed")
"""Arguments of ``finetune`` that are not options of a recipe."""


def main() -> None:
    """Fine-tune the run in ``--workdir``."""
    workdir = Path(launch.require_flag("workdir", _WORKDIR.value, "DIR"))
    options = {**RECIPES[choice("recipe", _RECIPE.value, RECIPES)], **overrides(_SET.value)}
    seeds = launch.parse_seeds(_SEEDS.value)
    config, method, model = build.restore(workdir, _STEP.value)
    splits = [config["watch"]["evaluate"][f"{name}_split"] for name in ("train", "test")]
    train, test = (labelled(config, config["data"]["source"], split) for split in splits)
    labels = all_labels(train, method.views[0].size)
    starts = {f"{config['method']['name']}, {model.step:,} steps": (model.params, model.state)}
    if _RANDOM.value:
        fresh = jax.jit(make_init(method, build.optimizer(config), build.sample(config)))(config["seed"])
        starts = {"random encoder": (fresh.params, fresh.state), **starts}
    rows: list[dict[str, Any]] = []
    for name, start in starts.items():
        weights = method.encoder_variables(*start)
        done = [
            finetune(
                method.encoder,
                *weights,
                train,
                test,
                labels=labels,
                view=method.views[0],
                share=_SHARE.value,
                crop_ratio=config["watch"]["evaluate"]["crop_ratio"],
                seed=seed,
                **options,
            )
            for seed in seeds
        ]
        accuracies = [one.accuracy for one in done]
        rows.append({"start": name, "accuracy": accuracies, "labels": done[0].labels, "steps": done[0].steps})
    result = {
        "recipe": _RECIPE.value,
        "options": options,
        "share": _SHARE.value,
        "seeds": seeds,
        "splits": splits,
        "machine": machine(),
        "rows": rows,
    }
    write_atomically(workdir / "finetune.json", json.dumps(result, indent=2) + "\n")
    print(f"\n{shown(rows)}\n\nwritten to {workdir / 'finetune.json'}")


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The table that is printed: means over seeds, with the deviation (n − 1) if there are several."""
    cells = []
    for row in rows:
        percent = 100 * np.array(row["accuracy"])
        mean = float(percent.mean())
        found = mean if len(percent) == 1 else (mean, float(percent.std(ddof=1)))
        cells.append(
            {"start": row["start"], "labels": row["labels"], "steps": row["steps"], "accuracy in %": found}
        )
    return table(cells)


def overrides(values: Sequence[str]) -> dict[str, Any]:
    """``name=value`` as options, values read as Python literals.

    >>> overrides(["learning_rate=0.002", "area=(0.2, 1.0)"])
    {'learning_rate': 0.002, 'area': (0.2, 1.0)}

    Raises:
      ValueError: no value, a value that is none, an option that does not exist.
    """
    allowed = [name for name in inspect.signature(finetune).parameters if name not in GIVEN]
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        require(bool(equals), "set", value, "name=value, such as learning_rate=0.002")
        choice("set", name, allowed)
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(
                f"set={value!r}: allowed is a number, True, False, None or a pair of numbers"
            ) from error
    return found


def all_labels(source: Source, size: int) -> np.ndarray:
    """The label of every example, in the source's order."""
    with epoch(source, batch_size=256, size=size) as batches:
        return np.concatenate([batch["label"][batch["mask"]] for batch in batches])


if __name__ == "__main__":
    launch.run(main)
