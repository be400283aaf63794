"""From ``arg`` and a method's recipe to the whole config.

A recipe states only what differs from the defaults in the signatures; every option of the method, encoder, views and
optimizer then stands in the config, so that each can be overridden from the command line and a misspelt one is refused.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.config.datasets import DATASETS, Dataset
from ssl_jax.core.check import did_you_mean, options_of
from ssl_jax.methods.registry import method_module

BUDGETS = ("smoke", "short", "paper")
SMALL = 64
"""Images up to this side get the small ResNet stem and small patches."""
CONVOLUTIONAL = {
    "embedded": "convnet",
    "fashion_mnist": "convnet",
    "cifar10": "resnet18",
    "imagenet": "resnet50",
    "folder": "resnet18",
}
"""Default backbone for each dataset, of methods that are made for convolutional networks."""


GRAY_VIEWS: dict[str, Any] = {
    "area": (0.3, 1.0),
    "interpolation": "bilinear",
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0},
    "grayscale_prob": 0.0,
    "blur_prob": 0.0,
}
"""Two views of 28-pixel gray images, for the presets ``simclr`` and ``moco_v2``; chosen for SimCLR by the online probes."""
GRAY_ASYMMETRIC_VIEWS: dict[str, Any] = {**GRAY_VIEWS, "blur_prob": (0.0, 0.0), "solarize_prob": (0.0, 0.0)}
"""The same for the preset ``byol``."""
GRAY_OPTIMIZER: dict[str, Any] = {
    "name": "adamw",
    "learning_rate": 3e-3,
    "scaling": "none",
    "weight_decay": 1e-4,
}
"""The optimizer of short runs on 28-pixel gray images."""

GRAY_VIT = {"width": 64, "depth": 3, "heads": 2}
"""Sizes of ``vit_micro`` for methods that run it on two whole views in student and teacher: a fifth of the default's cost."""

RESULTS_EPOCHS = {"short": 3, "paper": 100}
"""The budgets of the results table, one for all methods: passes over the 60,000 images of ``fashion_mnist``."""


class Choice(NamedTuple):
    """What ``arg`` chooses: ``--config=configs/simclr.py:cifar10,resnet50,short``."""

    dataset: str
    backbone: str
    budget: str

    @property
    def data(self) -> Dataset:
        """The dataset's numbers."""
        return DATASETS[self.dataset]


class Recipe(NamedTuple):
    """What a method's config states.

    Attributes:
      batch_size: images a step.
      epochs: passes over the training images.
      method: options of the method's ``build``.
      views: ``preset`` and its options.
      optimizer: options of :func:`ssl_jax.optim.options.from_options`.
      warmup_epochs: linear warm-up of the learning rate (half a bell with the schedule ``ramps``).
      rampdown_epochs: at the end, with the schedule ``ramps``.
      encoder: options of the encoder beyond those of :func:`encoder_options`.
      freeze_epochs: pairs of a pattern and the epochs for which those parameters stand still.
      method_epochs: options of the method that are counted in steps, here given in epochs.
      refresh_epochs: passes over the images between refreshes, of methods that have them; ``inf``: one, at the start.
      data: options of the source beyond those that all have.
      num_labels: training images that keep their label, as many of each class, drawn by the seed; 0: all of them.
      labeled_fraction: share of them in every batch (1: no others), if ``num_labels`` are few; ``None``: images as they come.
    """

    batch_size: int
    epochs: float
    method: Mapping[str, Any]
    views: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    warmup_epochs: float = 10
    rampdown_epochs: float = 0
    encoder: Mapping[str, Any] = {}
    freeze_epochs: tuple[tuple[str, float], ...] = ()
    method_epochs: Mapping[str, float] = {}
    refresh_epochs: float = 0
    data: Mapping[str, Any] = {}
    num_labels: int = 0
    labeled_fraction: float | None = None


def over(recipe: Recipe, epochs: float) -> Recipe:
    """The same recipe over another number of epochs: warm-up and whatever else is counted in epochs keep their share.

    >>> over(Recipe(8, 10, {}, {}, {}, warmup_epochs=1), 5).warmup_epochs
    0.5
    """
    factor = epochs / recipe.epochs
    return recipe._replace(
        epochs=epochs,
        warmup_epochs=recipe.warmup_epochs * factor,
        rampdown_epochs=recipe.rampdown_epochs * factor,
        freeze_epochs=tuple((pattern, count * factor) for pattern, count in recipe.freeze_epochs),
        method_epochs={name: count * factor for name, count in recipe.method_epochs.items()},
    )


def drops(dataset: str, batch_size: int, epochs: Sequence[float]) -> tuple[int, ...]:
    """The steps at which these epochs end, for ``schedule="step"``: from the start, whatever --config.steps becomes.

    >>> drops("cifar10", 128, (60, 120))
    (23400, 46800)
    """
    return tuple(round(epoch * (DATASETS[dataset].examples // batch_size)) for epoch in epochs)


def parse(arg: str, backbones: Mapping[str, str], *, dataset: str = "embedded") -> Choice:
    """Read ``arg``: names of a dataset, a backbone and a budget, in any order, separated by commas.

    Args:
      arg: such as ``""``, ``"smoke"`` or ``"cifar10,resnet34"``.
      backbones: default backbone for each dataset; of one that is not among them that of ``embedded``.
      dataset: the default one.

    Raises:
      ValueError: a word that is none of these; names the nearest.
    """
    axes = {"dataset": tuple(DATASETS), "backbone": tuple(models.BUILDERS), "budget": BUDGETS}
    chosen: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in (arg or "").split(","))):
        axis = next((name for name, words in axes.items() if word in words), None)
        if axis is None:
            known = [w for words in axes.values() for w in words]
            raise ValueError(f"{word!r} after the config's colon is unknown: {did_you_mean(word, known)}")
        if axis in chosen:
            raise ValueError(f"two words for the {axis}: {chosen[axis]!r} and {word!r}")
        chosen[axis] = word
    dataset = chosen.get("dataset", dataset)
    backbone = chosen.get("backbone", backbones.get(dataset, backbones["embedded"]))
    return Choice(dataset, backbone, chosen.get("budget", "short"))


def make(method: str, choice: Choice, recipe: Recipe) -> ConfigDict:
    """The whole config of a run."""
    data = choice.data
    if choice.dataset == "fashion_mnist" and choice.budget in RESULTS_EPOCHS:
        recipe = over(recipe, RESULTS_EPOCHS[choice.budget])
    config = ConfigDict()
    config.seed = 0
    batch = recipe.batch_size
    epoch = max(data.examples // batch, 1)
    config.steps = max(round(recipe.epochs * epoch), 1)
    config.batch_size = batch
    config.accumulate, config.cached_gradients = 1, False
    if recipe.refresh_epochs:
        once = math.isinf(recipe.refresh_epochs)
        config.refresh_every = (
            _following(config, "steps") if once else max(round(recipe.refresh_epochs * epoch), 1)
        )
    config.host = ConfigDict({"data": -1, "fsdp": 1, "workers": 0})
    config.data = ConfigDict(
        {"source": data.source, "split": data.train, "crop_on": "auto", "max_corrupt_fraction": 0.1}
    )
    config.data.channels = placeholder(int)
    config.data.update(recipe.data)
    config.data.num_labels = recipe.num_labels
    config.data.labeled_fraction = placeholder(float)
    config.data.labeled_fraction = recipe.labeled_fraction
    config.encoder = ConfigDict({"name": choice.backbone, **_encoder(choice, recipe)})
    config.views = _views(data, recipe)
    build = method_module(method).build
    in_steps = {name: round(epochs * epoch) for name, epochs in recipe.method_epochs.items()}
    config.method = _typed(_defaults(build, without=("encoder", "views")), {**recipe.method, **in_steps})
    config.method.name = method
    # Methods that keep something for each image.
    if "examples" in config.method:
        config.method.examples = data.examples
    for name in {"decay_steps", "run_steps"} & set(config.method):
        config.method[name] = _following(config, "steps")
    config.optimizer = _optimizer(config, recipe, epoch)
    often = {part: min(max(config.steps // part, 1), 5000) for part in (5, 10, 50)}
    config.watch = ConfigDict()
    config.watch.online = ConfigDict({"every": often[10], "bank": 2000, "queries": 1000, "k": 20})
    # Images of the health measures at each log step and at each online evaluation; 0 turns them off.
    config.watch.health = ConfigDict({"batch": 32, "sample": 256})
    config.watch.checkpoint = ConfigDict({"every": often[5], "keep": 2, "best": True})
    # Without a test split, every fifth image is held out from the probes (not from pretraining, which sees no label).
    splits = (data.train, data.test) if data.test else (f"{data.train}[:80%]", f"{data.train}[80%:]")
    config.watch.evaluate = ConfigDict(
        {"train_split": splits[0], "test_split": splits[1], "k": 20, "temperature": 0.07}
    )
    config.watch.evaluate.measures = ("knn", "linear", "few")
    config.watch.evaluate.per_class, config.watch.evaluate.draws = (1, 5, 10, 100), 5
    config.watch.evaluate.crop_ratio = 1.0 if data.size <= SMALL else 0.875
    # Seconds without a finished step after which a run says what it waits for; 0: never.
    config.watch.log = ConfigDict(
        {"every": min(often[50], 100), "stall_seconds": 300.0, "tensorboard": False, "wandb": ""}
    )
    if choice.budget == "smoke":
        _shrink(config)
    return config


def _following(config: ConfigDict, name: str) -> FieldReference:
    """The value of another field, until it is set itself, which leaves the other as it is; a plain reference would set both."""
    return config.get_ref(name) + 0


def _shrink(config: ConfigDict) -> None:
    """Seconds on one core: four steps of a few small images. Exercises every part and learns nothing."""
    config.steps, config.batch_size = 4, 8
    config.watch.online.update({"every": 2, "bank": 40, "queries": 20, "k": 5})
    config.watch.health.update({"batch": 8, "sample": 16})
    config.watch.checkpoint.every = 2
    config.watch.log.every = 1
    if "refresh_every" in config:
        config.refresh_every = 2
    for name, small in SMALL_OPTIONS.items():
        if name in config.method:
            config.method[name] = small
    small_encoder = SMALL_RESNET if "stem" in config.encoder else SMALL_ENCODER
    config.encoder.update({k: v for k, v in small_encoder.items() if k in config.encoder})


SMALL_OPTIONS = {
    "projector_width": 32,
    "predictor_width": 32,
    "hidden_dim": 32,
    "projection": 16,
    "bottleneck": 16,
    "prototypes": 64,
    "queue_size": 32,
    "subvector": 32,
    "negatives": 32,
    "vocabulary_size": 32,
    "clusters": 8,
    "code_width": 16,
    "layers": 2,
    "pca": 8,
    "exemplars": 64,
    "embedding": 16,
    "decoder_width": 32,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "rampup_steps": 1,
    "quiet_steps": 0,
    "decoder_channels": 4,
    "discriminator_channels": 4,
    "latent": 8,
}
SMALL_ENCODER = {"widths": (8, 16), "width": 32, "depth": 2, "heads": 2, "vocabulary_size": 32}
SMALL_RESNET = {"width": 0.125}
"""There ``width`` is a factor."""


def _encoder(choice: Choice, recipe: Recipe) -> dict[str, Any]:
    defaults = _defaults(models.BUILDERS[choice.backbone], without=())
    size = choice.data.size
    small: dict[str, Any] = {"stem": "small", "image_size": size, "patch": 7 if size == 28 else 4}
    fitting = small if size <= SMALL else {"image_size": size, "dtype": "bfloat16"}
    options = {name: value for name, value in fitting.items() if name in defaults}
    return _typed(defaults, {**options, **{k: v for k, v in recipe.encoder.items() if k in defaults}})


def _views(data: Dataset, recipe: Recipe) -> ConfigDict:
    """The preset's own options, and the fields of its views that they all share."""
    options = dict(recipe.views)
    preset = options.pop("preset")
    options = {"size": data.size, "mean": data.mean, "std": data.std, **options}
    views = presets.build(preset, **options)
    own = _defaults(presets.PRESETS[preset], without=("strength", "overrides"))
    first = {field.name: getattr(views[0], field.name) for field in dataclasses.fields(views[0])}
    shared = {
        name: value
        for name, value in first.items()
        if name not in own
        and f"global_{name}" not in own
        and all(getattr(view, name) == value for view in views)
    }
    if shared.get("jitter") is None:
        shared.pop("jitter", None)
    else:
        shared["jitter"] = dataclasses.asdict(shared["jitter"])
    if shared.get("blur_kernel", 0) is None:
        shared["blur_kernel"] = placeholder(int)
    given = {name: options.get(name, default) for name, default in own.items()}
    return ConfigDict({"preset": preset, **given, **shared})


def _optimizer(config: ConfigDict, recipe: Recipe, epoch: int) -> ConfigDict:
    name = recipe.optimizer["name"]
    defaults = _defaults(optim.options_of(name))
    options = dict(recipe.optimizer)
    if options.pop("hold_each_epoch", False):
        options["steps_per_epoch"] = epoch
    options["freeze"] = tuple((pattern, round(epochs * epoch)) for pattern, epochs in recipe.freeze_epochs)
    optimizer = ConfigDict(_typed(defaults, options))
    optimizer.steps, optimizer.batch_size = _following(config, "steps"), _following(config, "batch_size")
    # A share of the run in thousandths, so that it follows when --config.steps changes.
    share = round(1000 * min(recipe.warmup_epochs / recipe.epochs, 0.5))
    optimizer.warmup_steps = config.get_ref("steps") * share // 1000
    if recipe.rampdown_epochs:
        share = round(1000 * recipe.rampdown_epochs / recipe.epochs)
        optimizer.rampdown_steps = config.get_ref("steps") * share // 1000
    return optimizer


def with_defaults(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """An older config, to which options that have come since are added at their defaults: what it ran with.

    Args:
      old: a config as plain dicts.
      new: one of the same method made now, which says what options there are.
    """
    optimizer = new["optimizer"]["name"]
    known = {
        "method": _defaults(method_module(new["method"]["name"]).build, without=()),
        "encoder": _defaults(models.BUILDERS[new["encoder"]["name"]], without=()),
        "views": {field.name: field.default for field in dataclasses.fields(View)},
        "optimizer": _defaults(optim.options_of(optimizer)),
    }
    plain = lambda value: value.get() if isinstance(value, FieldReference) else value  # noqa: E731
    # Without few labels their share in the batch does nothing.
    known["data"] = {"num_labels": 0, "labeled_fraction": new["data"].get("labeled_fraction")}
    added = {
        part: {name: plain(options[name]) for name in new[part] if name in options and name not in old[part]}
        for part, options in known.items()
    }
    return {
        "cached_gradients": False,
        **old,
        **{part: {**old[part], **options} for part, options in added.items()},
    }


def _defaults(
    parameters: Callable[..., Any] | Mapping[str, inspect.Parameter], *, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Keyword options, of a function or given, and their defaults; a type's placeholder where the default is None."""
    options: dict[str, Any] = {}
    for name, parameter in (options_of(parameters) if callable(parameters) else parameters).items():
        if name in without:
            continue
        if parameter.default is None:
            options[name] = placeholder(_type_of(parameter.annotation))
        else:
            options[name] = parameter.default
    return options


def _type_of(annotation: Any) -> type:
    """The plain type in an annotation such as ``int | None``."""
    text = str(annotation)
    return next((kind for kind in (str, float, int) if kind.__name__ in text), object)


def _typed(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults overridden by what a recipe gives; integers become floats where the default is a float."""
    for name in given:
        if name not in defaults:
            raise ValueError(f"{name} is not an option: {did_you_mean(name, defaults)}")
    options = {**defaults, **given}
    return {
        name: float(value) if isinstance(defaults[name], float) and isinstance(value, int) else value
        for name, value in options.items()
        if value is not inspect.Parameter.empty
    }
