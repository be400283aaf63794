"""Fine-tuning on a share of the labels: the whole encoder is trained, with a linear classifier on it."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.types import Params, State
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source, Subset
from ssl_jax.evaluate.features import extract
from ssl_jax.evaluate.linear import balanced_draw
from ssl_jax.methods.method import Method
from ssl_jax.methods.supervised import supervised
from ssl_jax.models.network import Network
from ssl_jax.optim.build import build as build_optimizer
from ssl_jax.train.loop import fit
from ssl_jax.train.state import TrainState


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
    crop_ratio: float = 1.0,
    seed: int = 0,
) -> FineTuned:
    """Train encoder and classifier on a balanced share of the labels, then classify the test images once.

    AdamW with a linear warm-up over a tenth of the steps and a cosine to 0; views are a crop and a flip. Nothing is chosen
    on the test set, and nothing on other labels: the recipe is the same for every encoder. The draw depends on ``labels``
    and ``seed`` only, so encoders are compared on the same images.

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
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`, for the test images.
      seed: of draw, classifier, order and views.

    Returns:
      ``FineTuned(accuracy, labels, steps)``.

    Raises:
      ValueError: a share that leaves a class without a label, or sources with other classes.

    Reference: Chen et al., SimCLR (2020), section 4.2 and appendix B.5: 1 % and 10 % of the labels, balanced, no regulariser,
      many epochs. Deviation: AdamW instead of SGD with momentum, and a warm-up.
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
        size=view.size, mean=view.mean, std=view.std, method=view.method, jitter=None, gray=0.0, blur=0.0
    )
    crops = dataclasses.replace(plain, area=(0.5, 1.0))
    method = supervised.build(encoder, views=(crops,), classes=classes)
    batch_size = min(batch_size, len(taken) // jax.device_count() * jax.device_count())
    check.require(
        batch_size >= 1, "share", share, f"so much that {jax.device_count()} devices have an image each"
    )
    steps = max(round(epochs * len(taken) / batch_size), 1)
    optimizer = build_optimizer(
        "adamw",
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        scaling="none",
        warmup_steps=steps // 10,
        weight_decay=weight_decay,
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
    with epoch(test, batch_size=256, size=view.size, crop_ratio=crop_ratio) as batches:
        found = extract(method.encode, batches, view=view, variables=(end.params, end.state))
    layer = end.params["classifier"]["dense_0"]
    logits = found.features @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    return float(np.mean(np.argmax(logits, axis=-1) == found.labels))
