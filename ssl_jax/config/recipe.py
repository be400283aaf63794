"""A recipe: what a paper and its code say about training one method on one dataset, as data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssl_jax.config.find import import_config


class Share(NamedTuple):
    """A share of a run, where a recipe may also give a number of epochs: it follows when the run is longer or shorter.

    Attributes:
      fraction: of the run, 0 to 1.
    """

    fraction: float


Duration = float | Share


def share(epochs: float, *, of: float) -> Share:
    """Say what part of its run a recipe means, in the numbers of its source.

    >>> share(30, of=105).fraction == 30 / 105
    True
    """
    return Share(epochs / of)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a method's config states for one dataset; all that it leaves out are defaults of signatures.

    Attributes:
      source: where the numbers come from, and in what they differ.
      backbone: encoder, if no other one is asked for.
      batch_size: images a step.
      epochs: passes over the training images, by budget (``short``, ``paper``).
      warmup_epochs: linear warm-up of the learning rate (half a bell with the schedule ``ramps``).
      method: options of the method's ``build``; those of a group as a mapping.
      views: ``preset`` and its options.
      optimizer: options of :func:`ssl_jax.optim.options.from_options`.
      encoder: options of the encoder, as far as the chosen one has them.
      rampdown_epochs: at the end, with the schedule ``ramps``.
      boundary_epochs: ends of the epochs at which the learning rate drops, with the schedule ``step``.
      freeze_epochs: pairs of a pattern and the epochs for which those parameters stand still.
      hold_each_epoch: whether the learning rate moves once an epoch.
      method_epochs: options of the method that are counted in steps, here given in epochs; those of groups by dotted name.
      refresh_epochs: passes over the images between refreshes, of methods that have them.
      data: options of the source beyond those that all have.
      num_labels: training images that keep their label, as many of each class, drawn by the seed; 0: all of them.
      labeled_fraction: share of them in every batch (1: no others), if ``num_labels`` are few; ``None``: images as they come.
      evaluate: options of ``watch.evaluate``.
      by_budget: what else a budget changes: fields of this class and their values, by budget.
      by_backbone: what a kind of backbone changes, by the beginning of its name (``resnet``).
      derived_from: method and dataset of the recipe that this one was derived from; ``""``: none.
    """

    source: str
    backbone: str
    batch_size: int
    epochs: Mapping[str, float]
    warmup_epochs: Duration
    method: Mapping[str, Any]
    views: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    encoder: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rampdown_epochs: Duration = 0
    boundary_epochs: tuple[Duration, ...] = ()
    freeze_epochs: tuple[tuple[str, Duration], ...] = ()
    hold_each_epoch: bool = False
    method_epochs: Mapping[str, Duration] = dataclasses.field(default_factory=dict)
    refresh_epochs: Duration | None = None
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_labels: int = 0
    labeled_fraction: float | None = None
    evaluate: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    by_budget: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    by_backbone: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    derived_from: str = ""

    def resolve(self, budget: str, backbone: str) -> "Recipe":
        """Fill in what a budget and a backbone change."""
        kinds = [changes for prefix, changes in self.by_backbone.items() if backbone.startswith(prefix)]
        recipe = dataclasses.replace(
            self, **{name: value for changes in kinds for name, value in changes.items()}
        )
        return dataclasses.replace(recipe, **recipe.by_budget.get(budget, {}))


def derive(method: str, dataset: str, /, *, source: str, **changes: Any) -> Recipe:
    """Take the recipe of another method, where the paper does so, with other values in some fields.

    Args:
      method: name of its config, ``configs/<method>.py``.
      dataset: name of the recipe there.
      source: where the numbers come from.
      **changes: fields of :class:`Recipe` and their values, each in place of the whole field.

    Raises:
      ValueError: the recipe is derived itself: readers follow one step, not two.
    """
    recipe = import_config(method).RECIPES[dataset]
    assert isinstance(recipe, Recipe)
    if recipe.derived_from:
        raise ValueError(f"{method}:{dataset} is derived from {recipe.derived_from} itself: derive from that")
    return dataclasses.replace(recipe, source=source, derived_from=f"{method}:{dataset}", **changes)


BENCH = "CIFAR-10 in minutes on two CPU cores: encoder, head and optimizer of fashion_mnist's recipe, views of cifar10's."
AS_SMALL = ("global_area", "local_area", "local_count")
"""Options of views that follow the small recipe: how many crops of which area a short run can afford."""


def in_color(
    recipes: Mapping[str, Recipe], /, *, small: str = "fashion_mnist", source: str = BENCH, **changes: Any
) -> Recipe:
    """Make the recipe of the bench ``color32``: encoder, head, optimizer of ``fashion_mnist``, colors of ``cifar10``.

    ViTs have patches of 4 pixels; local crops have 16.

    Args:
      recipes: of one method.
      small: name of the small recipe.
      source: what differs, and how it was chosen.
      **changes: fields of :class:`Recipe` and their values; mappings are added to those of the field.
    """
    base, color = recipes[small], recipes["cifar10"]
    views = {**color.views, **{name: base.views[name] for name in AS_SMALL if name in base.views}}
    encoder = {**base.encoder, **({"patch": 4} if base.backbone.startswith("vit") else {})}
    return _with_changes(dataclasses.replace(base, source=source, views=views, encoder=encoder), changes)


BENCH_64 = (
    "60 classes of Tiny-ImageNet in 20 minutes of two CPU cores: the recipe for one's own images, a smaller encoder, two local "
    "crops."
)


def at_64_pixels(recipes: Mapping[str, Recipe], /, *, source: str = BENCH_64, **changes: Any) -> Recipe:
    """Make the recipe of the bench ``color64`` from the one for one's own images (``folder``).

    A ResNet-18 of half the width, or a ViT of 4 blocks with patches of 8 pixels; no more than two local crops.

    Args:
      recipes: of one method.
      source: what differs, and how it was chosen.
      **changes: fields of :class:`Recipe` and their values; mappings are added to those of the field.
    """
    base = recipes["folder"]
    smaller = {"patch": 8} if base.backbone.startswith("vit") else {"width": 0.5}
    views = {**base.views, **({"local_count": 2} if "local_count" in base.views else {})}
    # bfloat16, the default at this size, is slow on CPUs.
    encoder = {**base.encoder, **smaller, "dtype": "float32"}
    return _with_changes(dataclasses.replace(base, source=source, views=views, encoder=encoder), changes)


def _with_changes(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Replace fields of a recipe, mappings entry by entry."""
    merged: dict[str, Any] = {
        name: {**getattr(recipe, name), **value} if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(recipe, **merged)


def rescale_epochs(recipe: Recipe, factor: float) -> Recipe:
    """Change what is counted in epochs by a factor, refreshes excepted: a run of so many times the epochs keeps its shape.

    >>> numbers = {"method": {}, "views": {}, "optimizer": {}, "source": "", "backbone": "mlp", "batch_size": 8}
    >>> rescale_epochs(Recipe(epochs={"short": 10}, warmup_epochs=1, **numbers), 0.5).warmup_epochs
    0.5
    """

    def scaled(duration: Duration) -> Duration:
        return duration if isinstance(duration, Share) else duration * factor

    return dataclasses.replace(
        recipe,
        epochs={budget: epochs * factor for budget, epochs in recipe.epochs.items()},
        warmup_epochs=scaled(recipe.warmup_epochs),
        rampdown_epochs=scaled(recipe.rampdown_epochs),
        boundary_epochs=tuple(map(scaled, recipe.boundary_epochs)),
        freeze_epochs=tuple((pattern, scaled(duration)) for pattern, duration in recipe.freeze_epochs),
        method_epochs={name: scaled(duration) for name, duration in recipe.method_epochs.items()},
    )


def in_epochs(duration: Duration, epochs: float) -> float:
    """Express a duration in epochs of a run.

    >>> in_epochs(share(30, of=90), 12), in_epochs(5, 12)
    (4.0, 5)
    """
    return duration.fraction * epochs if isinstance(duration, Share) else duration


def epoch_boundaries(num_examples: int, batch_size: int, epochs: Sequence[float]) -> tuple[int, ...]:
    """Compute the steps at which these epochs end, counted from the start of the run.

    >>> epoch_boundaries(50_000, 128, (60, 120))
    (23400, 46800)
    """
    return tuple(round(epoch * max(num_examples // batch_size, 1)) for epoch in epochs)
