"""Π-model (Laine & Aila, ICLR 2017): two passes under noise agree on every image, and are right on the few with a label."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.consistency import mean_squared_difference
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.semi_supervised import (
    RampUp,
    classifier_collapse,
    noisy_classifier,
    supervised_loss,
)
from ssl_jax.models.network import Network


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    classes: int = 10,
    ramp: RampUp = RampUp(),
    noise: float = 0.15,
    dropout: float = 0.5,
    normalize_by: str = "batch",
) -> Method:
    """Π-model.

    With the predictions ``p = softmax(l)`` and ``p' = softmax(l')`` of two passes through the same weights, which differ in
    their views, in noise on the pixels and in dropout::

        L = 1/B Σ_labelled −log p_y  +  w(t) · 1/(B C) Σ_i ‖p_i − p'_i‖²        w(t) = w exp(−5 (1 − t/T)²)

    Both passes get a gradient. Each has batch statistics of its own. Images without a label are in the second term only; a
    batch without a labelled one has that term alone.

    Args:
      encoder: the network to train.
      views: two views of one size, one for each pass; or one, which both see. ``None``:
        :func:`ssl_jax.augment.presets.consistency`.
      classes: C.
      ramp: w(t), see :class:`ssl_jax.methods.parts.semi_supervised.RampUp`; w in the paper is 100 times the share of labelled
        images.
      noise: deviation of the noise on the pixels. May be traced.
      dropout: share of the features, before the classifier. May be traced.
      normalize_by: ``"batch"``: the first sum is divided by B, as by the authors; ``"labeled"``: by the labelled images.

    Returns:
      The method. ``encode`` gives the encoder's features; ``classify`` the logits of the classifier without noise. Metrics:
      ``cross_entropy`` and ``accuracy`` of the first pass on the labelled images, ``consistency`` (the second term without
      its weight) and ``weight``.

    Raises:
      ValueError: more than two views, or an option outside its range.

    Reference: Temporal Ensembling for Semi-Supervised Learning, algorithm 1; smlaine2/tempens. Deviations: there images are
    moved by up to two pixels and mirrored in the same way in both passes, here views are crops, each mirrored by itself;
    dropout stands before the classifier only; BatchNorm is the encoder's, there it is mean-only with weight normalisation.
    """
    network = noisy_classifier(encoder, classes=classes, noise=noise, dropout=dropout)
    weight_at = ramp.schedule()

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        views, (first_key, second_key) = batch["views"][0], jax.random.split(key)
        (_, logits), state = network.apply(params, state, views[:, 0], train=True, key=first_key)  # [b, c]
        (_, others), state = network.apply(params, state, views[:, -1], train=True, key=second_key)
        cross_entropy, metrics = supervised_loss(logits, batch["label"], normalize_by)
        consistency = mean_squared_difference(jax.nn.softmax(logits), jax.nn.softmax(others))
        metrics |= {"consistency": consistency, "weight": weight_at(step)}
        return cross_entropy + weight_at(step) * consistency, (state, metrics)

    def classify(params: Params, state: State, images: Array) -> dict[str, Array]:
        return {"classifier": network.apply(params, state, images)[0][1]}

    views = presets.consistency() if views is None else views
    require(len(views) in (1, 2), "views", len(views), "one view or two")
    return Method(views, init, loss, encoder, collapse=classifier_collapse(classes), classify=classify)
