"""Fine-tuning of a pretrained encoder, and of the same one from its random start: the body of ``experiments.finetune``."""

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.config.ranges import FINETUNE, check_value, exact
from ssl_jax.core.check import choice, require, shorten
from ssl_jax.core.files import write_atomically
from ssl_jax.core.machine import machine
from ssl_jax.core.table import table
from ssl_jax.core.types import Params, State
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.finetune import RECIPES, Recipe, finetune
from ssl_jax.methods.method import Method
from ssl_jax.train.step import make_init

FILE = "finetune.json"


class Task(NamedTuple):
    """What every start of a run's encoder is fine-tuned on.

    Attributes:
      method: method of the run, which gives encoder and view.
      sources: training and test images.
      labels: label of each training image; -1: none, or an image that cannot be read.
      share: share of the training labels, in (0, 1].
      recipe: how it is trained.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`, for the test images.
      max_corrupt_fraction: share of unreadable images above which it ends.
    """

    method: Method
    sources: tuple[Source, Source]
    labels: np.ndarray
    share: float
    recipe: Recipe
    crop_ratio: float
    max_corrupt_fraction: float


def finetune_run(
    workdir: Path,
    *,
    step: str = "latest",
    recipe: str = "plain",
    overrides: Sequence[str] = (),
    share: float = 1.0,
    seeds: Sequence[int] = (0,),
    random_start: bool = True,
    max_corrupt_fraction: float | None = None,
) -> None:
    """Fine-tune the encoder of a run, write ``finetune.json`` into its folder and print the table.

    Args:
      workdir: folder of the run.
      step: checkpoint: ``latest``, ``best`` or a number of steps.
      recipe: name of one of :data:`ssl_jax.evaluate.finetune.RECIPES`.
      overrides: options of the recipe to change, ``name=value`` each.
      share: share of the training labels, in (0, 1].
      seeds: seeds of draw, classifier, order and views.
      random_start: whether to train from the encoder's random start too.
      max_corrupt_fraction: share of unreadable images above which it ends; ``None``: as the config says.

    Raises:
      ValueError: an unknown recipe or option, or images without labels.
    """
    options = override(RECIPES[choice("recipe", recipe, RECIPES)], overrides)
    config, method, model = build.restore(workdir, step)
    config = build.with_corrupt_fraction(config, max_corrupt_fraction)
    evaluation = config["watch"]["evaluate"]
    splits = (evaluation["train_split"], evaluation["test_split"])
    train, test = (open_labeled(config, config["data"]["source"], split) for split in splits)
    corrupt_fraction = config["data"]["max_corrupt_fraction"]
    labels = read_labels(train, method.views[0].size, max_corrupt_fraction=corrupt_fraction)
    if unlabeled := int(np.sum(labels < 0)):
        print(f"{unlabeled:,} of {len(labels):,} training images have no label or cannot be read: not drawn")
    task = Task(
        method,
        (train, test),
        labels,
        share,
        options,
        evaluation["crop_ratio"],
        corrupt_fraction,
    )
    starts = {f"{config['method']['name']}, {model.step:,} steps": (model.params, model.state)}
    if random_start:
        fresh = jax.jit(make_init(method, build.optimizer(config), build.sample(config)))(config["seed"])
        starts = {"random encoder": (fresh.params, fresh.state), **starts}
    result = {
        "recipe": recipe,
        "options": options._asdict(),
        "share": share,
        "seeds": list(seeds),
        "splits": splits,
        "machine": machine(),
    }
    rows = []
    for name, start in starts.items():
        rows.append(finetune_start(name, start, task, seeds))
        write_atomically(workdir / FILE, json.dumps({**result, "rows": rows}, indent=2) + "\n")
    print(f"\n{accuracy_table(rows)}\n\nwritten to {workdir / FILE}")


def finetune_start(
    name: str, start: tuple[Params, State], task: Task, seeds: Sequence[int]
) -> dict[str, Any]:
    """Fine-tune from the parameters and state of a method, once for each seed.

    Returns:
      ``start`` (the name), ``accuracy`` of every seed, ``labels`` and ``steps``.
    """
    results = [
        finetune(
            task.method.encoder,
            *task.method.encoder_variables(*start),
            *task.sources,
            labels=task.labels,
            view=task.method.views[0],
            share=task.share,
            recipe=task.recipe,
            crop_ratio=task.crop_ratio,
            max_corrupt_fraction=task.max_corrupt_fraction,
            seed=seed,
        )
        for seed in seeds
    ]
    accuracies = [result.accuracy for result in results]
    return {"start": name, "accuracy": accuracies, "labels": results[0].labels, "steps": results[0].steps}


def accuracy_table(rows: Sequence[dict[str, Any]]) -> str:
    """Tabulate means over seeds, with the deviation (n − 1) if there are several."""
    cells = []
    for row in rows:
        percent = 100 * np.array(row["accuracy"])
        mean = float(percent.mean())
        accuracy = mean if len(percent) == 1 else (mean, float(percent.std(ddof=1)))
        cells.append(
            {
                "start": row["start"],
                "labels": row["labels"],
                "steps": row["steps"],
                "accuracy in %": accuracy,
            }
        )
    return table(cells)


def override(recipe: Recipe, values: Sequence[str]) -> Recipe:
    """Change options of a recipe by ``name=value``, values read as Python literals.

    Raises:
      ValueError: no value, a value that is no literal or outside of its range, an option that does not exist.

    >>> changed = override(Recipe(), ["learning_rate=0.002", "area=(0.2, 1.0)"])
    >>> changed.learning_rate, changed.area
    (0.002, (0.2, 1.0))
    """
    options = {}
    for value in values:
        name, equals, text = value.partition("=")
        require(bool(equals), "set", value, "name=value, such as learning_rate=0.002")
        found = FINETUNE[choice("set", name, FINETUNE)]
        try:
            option = exact(ast.literal_eval(text.strip()), found)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"set={shorten(repr(value))}: allowed is {found.allowed}") from error
        check_value(f"set={name}", option, found, text=text)
        options[name] = option
    return recipe._replace(**options)


def open_labeled(config: build.Config, spec: str, split: str) -> Source:
    """Open a split of the images to fine-tune on.

    Raises:
      ValueError: no labels.
    """
    source = open_images(config, spec, split)
    if not source.classes:
        raise ValueError(
            f"{spec} ({split}) has no labels, which fine-tuning needs: put the images into one folder a class; "
            "experiments.evaluate --measures=health,rotation and experiments.embed work without"
        )
    return source


def read_labels(
    source: Source, size: int, *, max_corrupt_fraction: float = MAX_CORRUPT_FRACTION
) -> np.ndarray:
    """Read the label of every example, in the source's order; -1 where there is none, or where the image cannot be read.

    Args:
      source: images.
      size: side to which they are read.
      max_corrupt_fraction: see :func:`ssl_jax.data.loader.epoch`.
    """
    labels = np.full(len(source), -1, np.int32)
    with epoch(source, batch_size=256, size=size, max_corrupt_fraction=max_corrupt_fraction) as batches:
        for batch in batches:
            labels[batch["index"][batch["mask"]]] = batch["label"][batch["mask"]]
    return labels
