"""Temporal ensembling (Laine & Aila, ICLR 2017): predictions agree with the average of those of earlier epochs."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.consistency import mean_squared_difference
from ssl_jax.methods.method import Method, encoder_at
from ssl_jax.methods.parts.memory_bank import update_row_averages
from ssl_jax.methods.parts.semi_supervised import (
    RampUp,
    classifier_collapse,
    noisy_classifier,
    supervised_loss,
)
from ssl_jax.models.network import Network
from ssl_jax.optim.ema import EmaState, debias_average, ema

FOLLOWS = {"num_examples": "data.num_examples"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    num_examples: int = 50_000,
    classes: int = 10,
    decay: float = 0.6,
    ramp: RampUp = RampUp(weight=30.0),
    noise: float = 0.15,
    dropout: float = 0.5,
    normalize_by: str = "batch",
) -> Method:
    """Temporal ensembling.

    One pass under noise gives ``z = softmax(l)``. Its target is the average of what the image got whenever it came before::

        L = 1/B Σ_labelled −log z_y  +  w(t) · 1/(B C) Σ_{i seen before} ‖z_i − z̃_i‖²       w(t) = w exp(−5 (1 − t/T)²)
        z̃_i = Z_i / (1 − α^{n_i})        then, for the images of the batch:   Z_i ← α Z_i + (1 − α) z_i,   n_i ← n_i + 1

    Z starts at 0, and n_i counts how often image i came: the debiased :func:`ssl_jax.optim.ema.ema` with a weight for each row.
    The paper updates all Z at the end of an epoch and divides by ``1 − α^epochs``. Where every image comes once an epoch this
    is the same, number for number: its target is read before it is written, and not read again until the next epoch. Where
    images come at different rates, as labelled ones do in batches with a fixed share of them, the number of epochs would be
    the wrong count for all but one kind; with its own count each target is a proper mean, and one of equal predictions is that
    prediction. An image that has not come before has no target and no part in the second term.

    Args:
      encoder: the network to train.
      views: one view. ``None``: :func:`ssl_jax.augment.presets.consistency`.
      num_examples: number of training images; the averages are ``[num_examples, classes]``.
      classes: C.
      decay: α, 0 (the last prediction) to 1. May be traced.
      ramp: w(t), see :class:`ssl_jax.methods.parts.semi_supervised.RampUp`; w in the paper is 30 times the share of labelled
        images, of CIFAR-100 100 times.
      noise: deviation of the noise on the pixels. May be traced.
      dropout: share of the features, before the classifier. May be traced.
      normalize_by: ``"batch"``: the first sum is divided by B, as by the authors; ``"labeled"``: by the labelled images.

    Returns:
      The method. State: ``online``, the batch statistics, and ``ensemble``, Z (``average``) and ``1 − α^n`` (``weight``).
      ``encode`` gives the encoder's features, ``classify`` the logits without noise. Metrics: as of the Π-model, and ``seen``,
      the share of the batch that has a target.

    Raises:
      ValueError: more than one view, no images, a decay outside [0, 1], or another option outside its range.

    Reference: Temporal Ensembling for Semi-Supervised Learning, algorithm 2; smlaine2/tempens, in which images that do not
    fill a batch at the end of an epoch count as predictions of 0. Deviations: as of the Π-model.
    """
    views = presets.consistency(count=1) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    require(num_examples >= 1, "num_examples", num_examples, "an integer of 1 or more")
    require(not isinstance(decay, int | float) or 0 <= decay <= 1, "decay", decay, "a number in [0, 1]")
    network = noisy_classifier(encoder, classes=classes, noise=noise, dropout=dropout)
    weight_at, average = ramp.schedule(), ema(decay, debias=True)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, online = network.init(key, batch["views"][0][:, 0])
        empty = average.init(jnp.zeros((num_examples, classes)))
        return params, {"online": online, "ensemble": empty._replace(weight=jnp.zeros((num_examples, 1)))}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        images, index, ensemble = batch["views"][0][:, 0], batch["index"], state["ensemble"]
        (_, logits), online = network.apply(params, state["online"], images, train=True, key=key)
        predictions = jax.nn.softmax(logits)
        before: EmaState = jax.lax.stop_gradient(
            ensemble._replace(average=ensemble.average[index], weight=ensemble.weight[index])
        )
        seen = before.weight[:, 0] > 0
        cross_entropy, metrics = supervised_loss(logits, batch["label"], normalize_by)
        consistency = mean_squared_difference(predictions, debias_average(before), mask=seen)
        metrics |= {"consistency": consistency, "weight": weight_at(step), "seen": jnp.mean(seen)}
        state = {"online": online, "ensemble": update_row_averages(average, ensemble, index, predictions)}
        return cross_entropy + weight_at(step) * consistency, (state, metrics)

    def classify(params: Params, state: State, images: Array) -> dict[str, Array]:
        return {"classifier": network.apply(params, state["online"], images)[0][1]}

    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_at("online"),
        collapse=classifier_collapse(classes),
        classify=classify,
        keeps_images=True,
    )
