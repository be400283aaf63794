"""Fine-tuning on a share of the labels: the whole encoder is trained, with a linear classifier on it."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ssl_jax import models, optim
from ssl_jax.augment.crop import RandomResizedCrop
from ssl_jax.augment.operations import ColorJitter, Flip, Operation
from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.types import Params, State
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.sources import Source, Subset
from ssl_jax.evaluate.measure import (
    LEFT_OUT,
    Column,
    Measure,
    Row,
    Subject,
    labeled_part,
    require_labels,
    require_two_classes,
)
from ssl_jax.methods.baseline import supervised
from ssl_jax.methods.method import Method
from ssl_jax.models.build import merge_lora
from ssl_jax.models.network import Network
from ssl_jax.train.features import extract_source
from ssl_jax.train.loop import fit
from ssl_jax.train.run import Run, Watch
from ssl_jax.train.sharding import batch_sharding_of, to_host
from ssl_jax.train.state import TrainState

PERCENTS = (1, 10)
"""Shares of the labels of which the measure ``finetune`` is taken, in percent."""


class Recipe(NamedTuple):
    """How an encoder is fine-tuned. The defaults are a crop and a flip, without further regularisation.

    Attributes:
      epochs: passes over the labelled images.
      batch_size: images a step; a multiple of the number of devices.
      learning_rate: peak learning rate of encoder and classifier.
      weight_decay: weight decay of the kernels.
      layer_decay: factor of the learning rate a layer, counted from the top, for ViTs and ConvNeXts; ``None``: one rate.
      drop_path: stochastic depth of the last block, for ViTs.
      label_smoothing: see :func:`ssl_jax.methods.baseline.supervised.build`, as for the next three.
      mixup: α of mixup; 0: none.
      cutmix: whether images are mixed that way.
      erasing: probability of random erasing.
      area: least and largest share of an image in a crop.
      jitter: strength of brightness, contrast and (with three channels) saturation.
    """

    epochs: int | float = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    layer_decay: float | None = None
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: bool = False
    erasing: float = 0.0
    area: tuple[float, float] = (0.5, 1.0)
    jitter: float = 0.0


PLAIN = Recipe()
RECIPES = {
    "plain": PLAIN,
    "mae": Recipe(
        epochs=100,
        batch_size=256,
        weight_decay=0.05,
        layer_decay=0.65,
        drop_path=0.1,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=True,
        erasing=0.25,
        area=(0.08, 1.0),
        jitter=0.4,
    ),
}
"""A crop and a flip; MAE's recipe for ViT-B, of which the learning rate is left to the caller."""


class FineTuned(NamedTuple):
    """Outcome of fine-tuning.

    Attributes:
      accuracy: share of test examples classified right, after the last step.
      labels: number of labelled examples used.
      steps: updates made.
    """

    accuracy: float
    labels: int
    steps: int


def finetune(
    encoder: Network,
    params: Params,
    state: State,
    train: Source,
    test: Source,
    *,
    labels: Int[np.ndarray, " n"],
    view: View,
    share: float = 0.01,
    recipe: Recipe = PLAIN,
    crop_ratio: float = 1.0,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
    seed: int = 0,
) -> FineTuned:
    """Train encoder and classifier on a balanced share of the labels, then classify the labelled test images once.

    AdamW with a linear warm-up over a tenth of the steps and a cosine to 0. Nothing is chosen on the test set, and nothing on
    other labels: the recipe is the same for every encoder. The draw depends on ``labels`` and ``seed`` only, so encoders are
    compared on the same images.

    Args:
      encoder: network of :mod:`ssl_jax.models`.
      params: parameters to start from; those of a random initialisation give the baseline.
      state: state to start from.
      train: images, some of them labelled.
      test: images of the same classes; those without a label do not count. One of a class without a training label counts as
        wrong.
      labels: label of each image of ``train``, such as ``extract(...).labels_in(train)``; -1: none, or an image that cannot be
        read; neither is drawn.
      view: view that gives size and normalisation.
      share: share of the labels, in (0, 1]; rounded to whole examples a class, see :func:`draw_share`.
      recipe: how it is trained; :data:`RECIPES` has two.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`, for the test images.
      max_corrupt_fraction: share of unreadable images, of those trained on or of the test images, above which it ends.
      seed: seed of draw, classifier, order and views.

    Returns:
      ``FineTuned(accuracy, labels, steps)``.

    Raises:
      ValueError: a share that leaves a class without a label, labels of one class only, no labelled test image, sources with
        other classes, a drop path for an encoder without.

    References: Chen et al., SimCLR (2020), section 4.2 and appendix B.5: 1 % and 10 % of the labels, balanced, no regulariser,
      many epochs; He et al., MAE (2022), table 9. Deviations: AdamW instead of SGD with momentum, and a warm-up; colour jitter
      instead of RandAugment.
    """
    encoder, params, state = merge_lora(encoder, params, state)
    check.require(
        train.classes == test.classes, "test.classes", test.classes, f"those of train, {train.classes}"
    )
    check.require(len(labels) == len(train), "labels", f"{len(labels)} labels", f"one an image, {len(train)}")
    indices = draw_share(np.asarray(labels), share, seed, classes=tuple(train.classes))
    test_view, train_view = _views(view, recipe)
    method = _method(encoder, train_view, len(train.classes), recipe)
    devices = jax.device_count()
    batch_size = min(recipe.batch_size, len(indices) // devices * devices)
    check.require(batch_size >= 1, "share", share, f"so much that {devices} devices have an image each")
    steps = max(round(recipe.epochs * len(indices) / batch_size), 1)
    optimizer = optim.from_options(
        "adamw",
        steps=steps,
        batch_size=batch_size,
        learning_rate=recipe.learning_rate,
        scaling="none",
        warmup_steps=steps // 10,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
    )

    def load_weights(fresh: TrainState) -> TrainState:
        # Copies: the step donates its state, and the caller keeps these weights.
        copied_params, copied_state = jax.tree.map(jnp.copy, (params, state))
        return fresh._replace(
            params={**fresh.params, "encoder": copied_params}, state={**fresh.state, "encoder": copied_state}
        )

    images = Subset(train, indices)
    run = Run(
        method,
        optimizer,
        images,
        steps,
        batch_size,
        seed=seed,
        max_corrupt_fraction=max_corrupt_fraction,
        init_state=load_weights,
    )
    trained = fit(run, watch=Watch(log_every=steps)).state
    given = {"crop_ratio": crop_ratio, "max_corrupt_fraction": max_corrupt_fraction}
    return FineTuned(_accuracy(method, trained, test, test_view, **given), len(indices), steps)


def draw_share(
    labels: Int[np.ndarray, " n"], share: float, seed: int, *, classes: tuple[str, ...] = ()
) -> Int[np.ndarray, " m"]:
    """Draw a share of the labelled examples, as many of each class, or as nearly so as the classes allow.

    Every class that has a label gives ``L = round(share · n / classes)`` examples. Where one has fewer, L is the least level at
    which ``Σ_c min(L, n_c) ≥ share · n``: small classes give all they have, and a share of 1 is every label.

    Args:
      labels: label of each example; -1: none, and not drawn.
      share: share of the labels, in (0, 1].
      seed: seed of the draw.
      classes: names of the classes, for errors.

    Returns:
      Positions of the examples drawn, class by class.

    Raises:
      ValueError: a share that leaves less than a label a class, no label, or one class only.

    >>> labels = np.array([0, 1, 0, -1, 0, 1, 0])
    >>> [len(draw_share(labels, share, 0)) for share in (0.4, 0.7, 1.0)]
    [2, 4, 6]
    """
    check.require(0 < share <= 1, "share", share, "a number in (0, 1]")
    known = labels[labels >= 0]
    require_labels("training", known)
    require_two_classes("training", known, classes)
    present, counts = np.unique(known, return_counts=True)
    per_class = round(share * len(known) / len(present))
    least = len(present) / len(known)
    check.require(per_class >= 1, "share", share, f"{least:.2g} or more: one label a class")
    if per_class > counts.min():
        per_class = _level(counts, share * len(known))
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in present]
    drawn = [rng.choice(rows, min(per_class, len(rows)), replace=False) for rows in members]
    return np.concatenate(drawn)


def _level(counts: np.ndarray, total: int | float) -> int:
    """The least number a class of which classes with ``counts`` examples give ``total`` together.

    >>> _level(np.array([1, 5, 9]), 9), _level(np.array([1, 5, 9]), 15)
    (4, 9)
    """
    levels = np.arange(1, counts.max() + 1)
    return int(levels[np.argmax(np.minimum(levels[:, None], counts).sum(axis=1) >= total)])


def _views(view: View, recipe: Recipe) -> tuple[View, View]:
    """The view of the test images, of which only the normalisation is used, and that of the training images."""
    plain = View(size=view.size, mean=view.mean, std=view.std)
    crop = RandomResizedCrop(area=recipe.area, interpolation=view.crop.interpolation)
    ops: tuple[Operation, ...] = (Flip(),)
    if recipe.jitter:
        saturation = recipe.jitter if len(view.mean) == 3 else 0.0
        ops += (ColorJitter(recipe.jitter, recipe.jitter, saturation, hue=0.0),)
    return plain, dataclasses.replace(plain, crop=crop, ops=ops)


def _method(encoder: Network, view: View, classes: int, recipe: Recipe) -> Method:
    """Supervised training of the encoder, with stochastic depth if the recipe has it."""
    if recipe.drop_path:
        allowed = "0 for an encoder without stochastic depth"
        check.require("drop_path" in encoder.config, "drop_path", recipe.drop_path, allowed)
        encoder = models.build(**{**encoder.config, "drop_path": recipe.drop_path})
    return supervised.build(
        encoder,
        views=(view,),
        classes=classes,
        label_smoothing=recipe.label_smoothing,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        erasing=recipe.erasing,
    )


def _accuracy(
    method: Method,
    trained: TrainState,
    test: Source,
    view: View,
    *,
    crop_ratio: float,
    max_corrupt_fraction: float,
) -> float:
    """Share of the labelled test images that encoder and classifier get right, each counted once."""
    encoded = extract_source(
        method.encode,
        test,
        view=view,
        variables=(trained.params, trained.state),
        sharding=batch_sharding_of(trained),
        crop_ratio=crop_ratio,
        max_corrupt_fraction=max_corrupt_fraction,
    )
    encoded = labeled_part(encoded)
    require_labels("test", encoded.labels)
    layer = to_host(trained.params["classifier"]["dense_0"])
    logits = encoded.features @ layer["kernel"] + layer["bias"]
    return float(np.mean(np.argmax(logits, axis=-1) == encoded.labels))


def _measure(subject: Subject) -> Row:
    """Accuracy with each of ``PERCENTS`` that leaves a label a class."""
    train, test = subject.sources
    method = subject.encoder.method
    weights = method.encoder_variables(subject.encoder.params, subject.encoder.state)
    _, known, *_ = subject.arrays  # refuses what cannot be measured before anything is trained
    classes, few = len(np.unique(known)), []
    row: Row = {}
    for percent in PERCENTS:
        if percent * len(known) < 100 * classes:
            few.append(f"{percent} %")
            continue
        result = finetune(
            method.encoder,
            *weights,
            train,
            test,
            labels=subject.train.labels_in(train),
            view=method.views[0],
            share=percent / 100,
            crop_ratio=subject.options.crop_ratio,
            max_corrupt_fraction=subject.options.max_corrupt_fraction,
        )
        row[f"finetune_{percent}_percent"] = result.accuracy
    if few:
        reason = f"{' and '.join(few)} of {len(known)} labels: less than one for each of {classes} classes"
        row[LEFT_OUT] = {"finetune": reason}
    return row


MEASURE = Measure(
    "finetune",
    frozenset({"features", "labels", "encoder"}),
    (Column("finetune_{}_percent", "fine-tuned, {} %", "fine-tuning with {} % of the labels"),),
    _measure,
)
