"""From a method's recipes to the whole config of a run.

A recipe states only what differs from the defaults in the signatures; every option of the method, encoder, views and
optimizer then stands in the config, so that each can be overridden from the command line and a misspelt one is refused.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from ssl_jax import models
from ssl_jax.config.datasets import DATASETS, Dataset
from ssl_jax.config.images import open_images
from ssl_jax.config.options import (
    SMALL,
    encoder_options,
    method_options,
    optimizer_options,
    rule_options,
    views_options,
)
from ssl_jax.config.overrides import apply_overrides
from ssl_jax.config.recipe import Recipe, in_epochs, rescale_epochs
from ssl_jax.config.weights import Origin, find_origin, normalization, start_options, whole_patches
from ssl_jax.core.check import did_you_mean
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.statistics import channel_statistics
from ssl_jax.data.values import MAX_IMAGE_MIB
from ssl_jax.evaluate.knn import NEIGHBORS, TEMPERATURE
from ssl_jax.methods.registry import method_module

BUDGETS = ("smoke", "short", "paper")
DATA_DEFAULTS = {
    "crop_on": "auto",
    "max_corrupt_fraction": MAX_CORRUPT_FRACTION,
    "max_image_mib": MAX_IMAGE_MIB,
}
NOT_OF_IMAGES = ("num_examples", "num_labels", "labeled_fraction", *DATA_DEFAULTS)
"""Options of ``data`` that do not say which images there are, nor how they are read."""
EVALUATION: Mapping[str, Any] = {
    "k": NEIGHBORS,
    "temperature": TEMPERATURE,
    "measures": ("knn", "linear", "few"),
    "per_class": (1, 5, 10, 100),
    "draws": 5,
}
"""Options of the measures, of ``watch.evaluate``."""
TEST_SPLITS = ("test", "testing", "validation", "valid", "val", "dev")
"""Names of a split to report, in the order in which one is chosen."""
OF_IMAGES = ("size", "mean", "std")
"""Options of views that belong to the images and stay when another preset is chosen."""
SMOKE_ENCODER = {
    "widths": (8, 16),
    "width": 32,
    "depth": 2,
    "heads": 2,
    "vocabulary_size": 32,
}
SMOKE_CONVNEXT = {"widths": (16, 32), "depths": (1, 1)}
SMOKE_RESNET = {"width": 0.125}
"""There ``width`` is a factor."""
SMOKE_SPLITS = {"train_split": 1000, "test_split": 500}
"""Images of each split that a smoke run is evaluated on."""


class Arguments(NamedTuple):
    """What the arguments of a config choose: ``--config=configs/simclr.py:cifar10,resnet50,short``.

    Attributes:
      dataset: name of the dataset, of :data:`ssl_jax.config.datasets.DATASETS`.
      backbone: name of the encoder; ``""``: that of the recipe.
      budget: of :data:`BUDGETS`.
    """

    dataset: str
    backbone: str
    budget: str


class Basis(NamedTuple):
    """What a config is made from.

    Attributes:
      dataset: the dataset's numbers.
      recipe_name: name of the recipe in the config file.
      recipe: the recipe, with what budget and backbone change.
      backbone: name of the encoder.
      budget: of :data:`BUDGETS`.
      origin: what the weights say that the run starts from; ``None``: it starts from none.
    """

    dataset: Dataset
    recipe_name: str
    recipe: Recipe
    backbone: str
    budget: str
    origin: Origin | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """The ``get_config`` of a config file, see :func:`entry`."""

    method: str
    recipes: Mapping[str, Recipe]
    smoke: Mapping[str, Any]
    dataset: str

    def __call__(
        self, arguments: str = "", choices: Mapping[str, Any] = {}, recorded: Mapping[str, Any] = {}
    ) -> ConfigDict:
        """Make the whole config of a run.

        Args:
          arguments: dataset, backbone and budget in any order, such as ``cifar10,resnet34,short``.
          choices: values, or texts of them, by dotted name: those on which other options depend, see
            :func:`ssl_jax.config.overrides.choices_of`.
          recorded: config of a run that goes on, whose images are not counted and measured again.

        Raises:
          ValueError: an argument or a name that does not exist, a dataset without a recipe, or images that cannot be opened.
        """
        return _make(self, self.find_basis(arguments, choices, recorded), choices, recorded)

    @property
    def follows(self) -> Mapping[str, str]:
        """Options of the method whose values follow others of the config, by dotted name; the method declares them."""
        return getattr(method_module(self.method), "FOLLOWS", {})

    def find_basis(
        self, arguments: str, choices: Mapping[str, Any] = {}, recorded: Mapping[str, Any] = {}
    ) -> Basis:
        """Find the dataset and the recipe that arguments name, and the weights to start from, as in a call."""
        named = parse_arguments(arguments, dataset=self.dataset)
        dataset = DATASETS[named.dataset]
        name = next((name for name in (named.dataset, dataset.recipe) if name in self.recipes), None)
        if name is None:
            raise ValueError(
                f"{self.method} has no recipe for {named.dataset}: there are recipes for {', '.join(self.recipes)}"
            )
        origin = find_origin(choices, recorded, dataset_size=dataset.size)
        backbone = choices.get("encoder.name") or named.backbone
        if origin is not None:
            own = origin.encoder["name"]
            if backbone not in ("", own):
                weights = choices["encoder.weights"]
                raise ValueError(
                    f"encoder {backbone} with the weights {weights}: the architecture is theirs, {own}"
                )
            backbone = own
        backbone = backbone or self.recipes[name].backbone
        recipe = self.recipes[name].resolve(named.budget, backbone)
        epochs = dict(dataset.results_epochs).get(named.budget)
        if epochs is not None:
            share = dataset.results_share if backbone.startswith("vit") else 1.0
            recipe = rescale_epochs(recipe, share * epochs / recipe.epochs[named.budget])
        return Basis(dataset, name, recipe, backbone, named.budget, origin)


def entry(
    method: str, recipes: Mapping[str, Recipe], *, smoke: Mapping[str, Any] = {}, dataset: str = "embedded"
) -> Entry:
    """Make the ``get_config`` of a config file from its recipes.

    Args:
      method: name of the method.
      recipes: by the name of the dataset.
      smoke: options of the method in the budget ``smoke``, which shows that everything runs; those of groups by dotted name.
      dataset: the one that is meant where the arguments name none.
    """
    return Entry(method, recipes, smoke, dataset)


def parse_arguments(arguments: str, *, dataset: str = "embedded") -> Arguments:
    """Parse names of a dataset, a backbone and a budget, in any order, separated by commas.

    Args:
      arguments: such as ``""``, ``"smoke"`` or ``"cifar10,resnet34"``.
      dataset: the default one.

    Raises:
      ValueError: a name that is none of these; names the nearest.

    >>> parse_arguments("resnet34,cifar10")
    Arguments(dataset='cifar10', backbone='resnet34', budget='short')
    """
    axes = {"dataset": tuple(DATASETS), "backbone": tuple(models.BUILDERS), "budget": BUDGETS}
    named = {"dataset": dataset, "backbone": "", "budget": "short"}
    given: dict[str, str] = {}
    for name in filter(None, (part.strip() for part in (arguments or "").split(","))):
        axis = next((axis for axis, names in axes.items() if name in names), None)
        if axis is None:
            known = [other for names in axes.values() for other in names]
            raise ValueError(f"config argument {name!r} is unknown: {did_you_mean(name, known)}")
        if axis in given:
            raise ValueError(f"two config arguments for the {axis}: {given[axis]!r} and {name!r}")
        given[axis] = name
    return Arguments(**{**named, **given})


def _make(entry: Entry, basis: Basis, choices: Mapping[str, Any], recorded: Mapping[str, Any]) -> ConfigDict:
    dataset, recipe = basis.dataset, basis.recipe
    config = ConfigDict()
    config.seed = 0
    data = _data(dataset, recipe, choices)
    images = _look_at_images(dataset, data, choices, recorded)
    data.num_examples = images.num_examples
    epoch = max(data.num_examples // recipe.batch_size, 1)
    epochs = recipe.epochs.get(basis.budget, 1)

    def in_steps(duration: Any) -> int:
        return round(in_epochs(duration, epochs) * epoch)

    config.steps = max(round(epochs * epoch), 1)
    config.batch_size = recipe.batch_size
    config.accumulate, config.cached_gradients = 1, False
    if recipe.refresh_epochs is not None:
        config.refresh_every = max(in_steps(recipe.refresh_epochs), 1)
        if in_epochs(recipe.refresh_epochs, epochs) == epochs:
            config.refresh_every = _following(config, "steps")
    config.host = ConfigDict({"data": -1, "fsdp": 1, "workers": 0, "packed_crops": False})
    config.data = data
    config.encoder = ConfigDict(_encoder(basis, choices))
    config.views = ConfigDict(_views_part(basis, images, choices))
    config.method = _method(entry, config, recipe, in_steps)
    config.optimizer = _optimizer(config, recipe, choices, epochs, in_steps)
    config.watch = _watch(config.steps, dataset.size, images.splits, recipe)
    if basis.origin is not None and "crop_ratio" not in recipe.evaluate:
        config.watch.evaluate.crop_ratio = basis.origin.crop_ratio
    if basis.budget == "smoke":
        config.update_from_flattened_dict(smoke_values(config, entry.smoke))
    return config


def _following(config: ConfigDict, name: str) -> FieldReference:
    """Refer to another value until this one is set itself, which leaves the other alone; a plain reference would set both."""
    *parents, last = name.split(".")
    for parent in parents:
        config = config[parent]
    return config.get_ref(last) + 0


def _data(dataset: Dataset, recipe: Recipe, choices: Mapping[str, Any]) -> ConfigDict:
    """Take the part ``data`` of a config, all but the number of images, with what is chosen of it."""
    data = ConfigDict({"source": dataset.source, "split": dataset.train, **DATA_DEFAULTS})
    data.channels = placeholder(int)
    # Of tables: None finds the column, "" is no column of labels.
    data.image_column, data.label_column = placeholder(str), placeholder(str)
    # How values are read, see ssl_jax.data.values.Values.
    data.max_value, data.percentiles = placeholder(float), placeholder(tuple)
    data.update(recipe.data)
    data.num_labels = recipe.num_labels
    data.labeled_fraction = placeholder(float)
    data.labeled_fraction = recipe.labeled_fraction
    data.num_examples = placeholder(int)
    part = ConfigDict({"data": data})
    apply_overrides(part, {name: value for name, value in choices.items() if name.split(".")[0] == "data"})
    return data


class Images(NamedTuple):
    """What a config says of its training images.

    Attributes:
      num_examples: number of images.
      mean: of the pixels in [0, 1], one number a channel.
      std: likewise.
      splits: that fit probes and that are reported.
    """

    num_examples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: tuple[str, str]


def is_own_source(dataset: Dataset, source: str) -> bool:
    """Tell whether images are those that the numbers of a dataset belong to; a folder of the user's never is.

    >>> is_own_source(DATASETS["cifar10"], "tfds:cifar10"), is_own_source(DATASETS["cifar10"], "folder:photos")
    (True, False)
    """
    return source == dataset.source and dataset.num_examples is not None


def _look_at_images(
    dataset: Dataset, data: ConfigDict, choices: Mapping[str, Any], recorded: Mapping[str, Any]
) -> Images:
    """Find the number of images, and their mean and deviation: given, recorded, those of the dataset, or looked up."""
    if _same_images(data, recorded.get("data", {})):
        views, evaluate = recorded["views"], recorded["watch"]["evaluate"]
        splits = (evaluate["train_split"], evaluate["test_split"])
        count = data.num_examples if "data.num_examples" in choices else recorded["data"]["num_examples"]
        return Images(count, tuple(views["mean"]), tuple(views["std"]), splits)
    own, splits = is_own_source(dataset, data.source), probe_splits(dataset.train, dataset.test)
    known = dataset.num_examples if own and data.split == dataset.train else None
    count = data.num_examples if data.num_examples is not None else known
    if own and count is not None:
        return Images(count, dataset.mean, dataset.std, splits)
    try:
        named = [f"{part}_split" for part in ("train", "test")]
        evaluation = {name: choices.get(f"watch.evaluate.{name}") for name in named}
        source = open_images({"data": data, "watch": {"evaluate": evaluation}}, data.source, data.split)
        mean, std = (dataset.mean, dataset.std) if own else channel_statistics(source)
    except ValueError as error:
        if count is not None:
            return Images(count, dataset.mean, dataset.std, splits)
        hint = "give --config.data.source, or --config.data.num_examples=N for a config without the images"
        raise ValueError(f"{error}; {hint}") from error
    if not own:
        splits = probe_splits(dataset.train, find_test_split(getattr(source, "splits", ())))
    return Images(len(source) if count is None else count, mean, std, splits)


def find_test_split(splits: Sequence[str]) -> str:
    """Find the split to report among those of a source; ``""`` if there is none.

    >>> find_test_split(("train", "Val", "unlabeled")), find_test_split(("train",))
    ('Val', '')
    """
    named = {name.lower(): name for name in splits}
    return next((named[name] for name in TEST_SPLITS if name in named), "")


def probe_splits(train: str, test: str) -> tuple[str, str]:
    """Name the splits that probes are fitted to and tested on.

    Without a test split every fifth image is held out from the probes; pretraining, which sees no label, has it.

    >>> probe_splits("train", "test"), probe_splits("train", "")
    (('train', 'test'), ('train[:80%]', 'train[80%:]'))
    """
    return (train, test) if test else (f"{train}[:80%]", f"{train}[80%:]")


def _same_images(data: ConfigDict, recorded: Mapping[str, Any]) -> bool:
    """Tell whether a run saw these images; what it recorded of them may fill what a config leaves open."""
    return bool(recorded) and all(
        value is None or recorded.get(name) == value
        for name, value in data.items()
        if name not in NOT_OF_IMAGES
    )


def _encoder(basis: Basis, choices: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the encoder of a recipe, or the one of the weights that the run starts from."""
    if basis.origin is None:
        return encoder_options(basis.backbone, basis.dataset, basis.recipe.encoder)
    return start_options(basis.origin, choices["encoder.weights"], basis.recipe.encoder, basis.dataset)


def _views_part(basis: Basis, images: Images, choices: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the views of a recipe in the size and the normalisation of the images, or of the weights that the run starts from.

    The normalisation is that of the weights where they know the channels; smaller views, such as multi-crop's, keep
    their share of the size, in whole patches.
    """
    dataset, origin = basis.dataset, basis.origin
    views = _views(basis.recipe, choices)
    if origin is None:
        return views_options(dataset.size, {"mean": images.mean, "std": images.std, **views})
    known, measured = (origin.mean, origin.std), (images.mean, images.std)
    mean, std = normalization(known, len(images.mean), lambda: measured)
    numbers = {"mean": mean, "std": std}
    options = views_options(dataset.size, {**views, **numbers})
    factor = origin.size / options["size"]
    sizes = {
        name: whole_patches(round(factor * value), origin.encoder)
        for name, value in options.items()
        if name.endswith("_size")
    }
    return views_options(origin.size, {**views, **numbers, **sizes, "size": origin.size})


def _views(recipe: Recipe, choices: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the views of a recipe; of another preset only what belongs to the images."""
    preset = choices.get("views.preset", recipe.views["preset"])
    if preset == recipe.views["preset"]:
        return recipe.views
    return {"preset": preset, **{k: v for k, v in recipe.views.items() if k in OF_IMAGES}}


def _method(entry: Entry, config: ConfigDict, recipe: Recipe, in_steps: Callable[[Any], int]) -> ConfigDict:
    method = ConfigDict(method_options(entry.method, recipe.method))
    for name, duration in recipe.method_epochs.items():
        _set(method, name, in_steps(duration))
    for name, followed in entry.follows.items():
        _set(method, name, _following(config, followed))
    return method


def _set(config: ConfigDict, name: str, value: Any) -> None:
    """Set an option, in a group by its dotted name.

    Raises:
      ValueError: there is no such option.
    """
    *groups, last = name.split(".")
    for group in groups:
        config = config[_known(config, group, name)]
    config[_known(config, last, name)] = value


def _known(config: ConfigDict, member: str, name: str) -> str:
    if member not in config:
        raise ValueError(f"{name} is not an option: {did_you_mean(member, config)}")
    return member


def _optimizer(
    config: ConfigDict,
    recipe: Recipe,
    choices: Mapping[str, Any],
    epochs: float,
    in_steps: Callable[[Any], int],
) -> ConfigDict:
    """Take the optimizer of a recipe; of another rule only the options that do not belong to the recipe's."""
    options = dict(recipe.optimizer)
    name = choices.get("optimizer.name", options["name"])
    if name != options["name"]:
        options = {k: v for k, v in options.items() if k not in rule_options(options["name"])} | {
            "name": name
        }
    if recipe.boundary_epochs:
        options["boundaries"] = tuple(in_steps(duration) for duration in recipe.boundary_epochs)
    if recipe.hold_each_epoch:
        options["steps_per_epoch"] = in_steps(1)
    options["freeze"] = tuple((pattern, in_steps(duration)) for pattern, duration in recipe.freeze_epochs)
    optimizer = ConfigDict(optimizer_options(options))
    optimizer.steps, optimizer.batch_size = _following(config, "steps"), _following(config, "batch_size")
    # A share of the run in thousandths, so that it follows when --config.steps changes.
    share = round(1000 * min(in_epochs(recipe.warmup_epochs, epochs) / epochs, 0.5))
    optimizer.warmup_steps = config.get_ref("steps") * share // 1000
    if recipe.rampdown_epochs:
        share = round(1000 * in_epochs(recipe.rampdown_epochs, epochs) / epochs)
        optimizer.rampdown_steps = config.get_ref("steps") * share // 1000
    return optimizer


def _watch(steps: int, size: int, splits: tuple[str, str], recipe: Recipe) -> ConfigDict:
    often = {part: min(max(steps // part, 1), 5000) for part in (5, 10, 50)}
    evaluate = {
        "train_split": splits[0],
        "test_split": splits[1],
        **EVALUATION,
        "crop_ratio": 1.0 if size <= SMALL else 0.875,
    }
    return ConfigDict(
        {
            "online": {"every": often[10], "bank": 2000, "queries": 1000, "k": NEIGHBORS},
            # Images of the health measures at each log step and at each online evaluation; 0 turns them off.
            "health": {"batch": 32, "sample": 256},
            # What the best checkpoint is told by: the online kNN, where there are labels, or label_free.
            "checkpoint": {"every": often[5], "keep": 2, "best": True, "rank_by": "knn"},
            "evaluate": {**evaluate, **recipe.evaluate},
            # Seconds without a finished step after which a run says what it waits for; 0: never.
            "log": {
                "every": min(often[50], 100),
                "stall_seconds": 300.0,
                "tensorboard": False,
                "wandb": "",
            },
        }
    )


def smoke_values(config: ConfigDict, smoke: Mapping[str, Any]) -> dict[str, Any]:
    """List the values, by dotted name, that make a run of seconds on one core: four steps of a few small images.

    It exercises every part and learns nothing.

    Args:
      config: config of the run before.
      smoke: options of the method.
    """
    small_encoder: Mapping[str, Any] = SMOKE_ENCODER
    if "stem" in config.encoder:
        small_encoder = SMOKE_RESNET
    if "stem_patch" in config.encoder:
        small_encoder = SMOKE_CONVNEXT
    if "weights" in config.encoder:
        small_encoder = {}
    evaluate = config.watch.evaluate
    # A part of a split stays as it is; of a whole one some images, those of all classes.
    parts = {
        f"watch.evaluate.{name}": evaluate[name] if "[" in evaluate[name] else f"{evaluate[name]}[:{count}]"
        for name, count in SMOKE_SPLITS.items()
    }
    values = {
        "steps": 4,
        "batch_size": 8,
        **parts,
        "watch.evaluate.per_class": (1, 5, 10),
        "watch.online.every": 2,
        "watch.online.bank": 40,
        "watch.online.queries": 20,
        "watch.online.k": 5,
        "watch.health.batch": 8,
        "watch.health.sample": 16,
        "watch.checkpoint.every": 2,
        "watch.log.every": 1,
        **{f"method.{name}": value for name, value in smoke.items()},
        **{f"encoder.{name}": value for name, value in small_encoder.items() if name in config.encoder},
    }
    return {**values, "refresh_every": 2} if "refresh_every" in config else values
