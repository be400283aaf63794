"""Fine-tuning on a share of the labels: the whole encoder is trained, with a linear classifier on it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ssl_jax import models, optim
from ssl_jax.augment.views import Jitter, View
from ssl_jax.core import check
from ssl_jax.core.types import Params, State
from ssl_jax.data.labels import balanced_draw
from ssl_jax.data.sources import Source, Subset
from ssl_jax.methods.method import Method
from ssl_jax.methods.supervised import supervised
from ssl_jax.models.network import Network
from ssl_jax.train.features import extract_source
from ssl_jax.train.loop import fit
from ssl_jax.train.sharding import batch_sharding_of, whole
from ssl_jax.train.state import TrainState

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "mae": {
        "epochs": 100,
        "batch_size": 256,
        "weight_decay": 0.05,
        "layer_decay": 0.65,
        "drop_path": 0.1,
        "label_smoothing": 0.1,
        "mixup": 0.8,
        "cutmix": True,
        "erasing": 0.25,
        "area": (0.08, 1.0),
        "jitter": 0.4,
    },
}
"""Options of :func:`finetune`: a crop and a flip; MAE's for ViT-B, of which the learning rate is left to the caller."""


class FineTuned(NamedTuple):
    """Outcome of fine-tuning.

    Attributes:
      accuracy: share of test examples classified right, after the last step.
      labels: how many labelled examples were used.
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
    epochs: int | float = 20,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    layer_decay: float | None = None,
    drop_path: float = 0.0,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    cutmix: bool = False,
    erasing: float = 0.0,
    area: tuple[float, float] = (0.5, 1.0),
    jitter: float = 0.0,
    crop_ratio: float = 1.0,
    seed: int = 0,
) -> FineTuned:
    """Train encoder and classifier on a balanced share of the labels, then classify the test images once.

    AdamW with a linear warm-up over a tenth of the steps and a cosine to 0; views are a crop and a flip. Nothing is chosen
    on the test set, and nothing on other labels: the recipe is the same for every encoder. The draw depends on ``labels``
    and ``seed`` only, so encoders are compared on the same images. :data:`RECIPES` has two sets of options.

    Args:
      encoder: a network of :mod:`ssl_jax.models`.
      params: its parameters to start from; those of a random initialisation give the yardstick.
      state: its state to start from.
      train: labelled images.
      test: labelled images of the same classes.
      labels: of ``train``, in its order, such as ``extract(...).labels``.
      view: gives size and normalisation.
      share: of the training images that keep their label, in (0, 1]; rounded to whole examples a class.
      epochs: passes over them.
      batch_size: images a step; a multiple of the number of devices.
      learning_rate: peak, of encoder and classifier.
      weight_decay: of the kernels.
      layer_decay: factor of the learning rate a block, counted from the top, for ViTs; ``None``: one rate.
      drop_path: stochastic depth of the last block, for ViTs.
      label_smoothing: see :func:`ssl_jax.methods.supervised.supervised.build`, as for the next three.
      mixup: α; 0: none.
      cutmix: whether images are mixed that way.
      erasing: probability.
      area: least and largest share of an image in a crop.
      jitter: strength of brightness, contrast and (with three channels) saturation.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`, for the test images.
      seed: of draw, classifier, order and views.

    Returns:
      ``FineTuned(accuracy, labels, steps)``.

    Raises:
      ValueError: a share that leaves a class without a label, sources with other classes, a drop path for an encoder without.

    References: Chen et al., SimCLR (2020), section 4.2 and appendix B.5: 1 % and 10 % of the labels, balanced, no regulariser,
      many epochs; He et al., MAE (2022), table 9. Deviations: AdamW instead of SGD with momentum, and a warm-up; colour jitter
      instead of RandAugment.
    """
    check.require(0 < share <= 1, "share", share, "a number in (0, 1]")
    check.require(
        train.classes == test.classes, "test.classes", test.classes, f"those of train, {train.classes}"
    )
    classes = len(train.classes)
    per_class = round(share * len(train) / classes)
    check.require(per_class >= 1, "share", share, f"{classes / len(train):.2g} or more: one label a class")
    taken = balanced_draw(labels, classes=classes, per_class=per_class, seed=seed).ravel()
    plain = View(
        size=view.size,
        mean=view.mean,
        std=view.std,
        interpolation=view.interpolation,
        jitter=None,
        grayscale_prob=0.0,
        blur_prob=0.0,
    )
    saturation = jitter if len(view.mean or ()) == 3 else 0.0
    colours = Jitter(brightness=jitter, contrast=jitter, saturation=saturation, hue=0.0) if jitter else None
    crops = dataclasses.replace(plain, area=area, jitter=colours)
    if drop_path:
        allowed = "0 for an encoder without stochastic depth"
        check.require("drop_path" in encoder.config, "drop_path", drop_path, allowed)
        encoder = models.build(**{**encoder.config, "drop_path": drop_path})
    method = supervised.build(
        encoder,
        views=(crops,),
        classes=classes,
        label_smoothing=label_smoothing,
        mixup=mixup,
        cutmix=cutmix,
        erasing=erasing,
    )
    batch_size = min(batch_size, len(taken) // jax.device_count() * jax.device_count())
    check.require(
        batch_size >= 1, "share", share, f"so much that {jax.device_count()} devices have an image each"
    )
    steps = max(round(epochs * len(taken) / batch_size), 1)
    optimizer = optim.from_options(
        "adamw",
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        scaling="none",
        warmup_steps=steps // 10,
        weight_decay=weight_decay,
        layer_decay=layer_decay,
    )

    def begin(fresh: TrainState) -> TrainState:
        # Copies: the step donates its state, and the caller keeps these weights.
        loaded, held = jax.tree.map(jnp.copy, (params, state))
        return fresh._replace(
            params={**fresh.params, "encoder": loaded}, state={**fresh.state, "encoder": held}
        )

    end = fit(
        method,
        Subset(train, taken),
        optimizer=optimizer,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        begin=begin,
        log_every=steps,
    ).state
    return FineTuned(_accuracy(method, end, test, plain, crop_ratio), len(taken), steps)


def _accuracy(method: Method, end: TrainState, test: Source, view: View, crop_ratio: float) -> float:
    """Share of the test images that encoder and classifier get right, each counted once."""
    found = extract_source(
        method.encode,
        test,
        view=view,
        variables=(end.params, end.state),
        sharding=batch_sharding_of(end),
        crop_ratio=crop_ratio,
    )
    layer = whole(end.params["classifier"]["dense_0"])
    logits = found.features @ layer["kernel"] + layer["bias"]
    return float(np.mean(np.argmax(logits, axis=-1) == found.labels))
