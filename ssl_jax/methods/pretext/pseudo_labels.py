"""Pseudo-labels (Lee 2013): a network trained on few labels predicts the others, trains on what it is sure of, and so on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Limits, Method, Refresh, encoder_at
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.kmeans import sample_clusters_evenly

FOLLOWS = {"num_examples": "data.num_examples"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    num_examples: int = 1_281_167,
    classes: int = 10,
    num_labels: int = 100,
    threshold: float = 0.95,
    soft: bool = False,
    balance: bool = True,
    restart: bool = False,
) -> Method:
    """Pseudo-labels, or self-training in rounds.

    ``L = mean −Σ_c y_c log softmax(W f(v) + b)_c`` over the images of the round. Round 0 has the labelled images with their
    labels. Every refresh but the one before step 0 begins a next round: the network predicts all images without augmentation,
    ``p = softmax(W f(x) + b)``, and those with ``max p ≥ threshold`` join the labelled ones, with y the one-hot argmax of p, or
    p itself. The length of a round is the run's ``refresh_every``.

    Of ``num_labels`` images, at even distances in the source, the labels are used; those of all others, where there are any,
    serve the metric ``pseudo_accuracy`` alone.

    Args:
      encoder: the network to train.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      num_examples: number of training images.
      classes: number of classes, 2 or more.
      num_labels: images whose labels are used, 1 to ``num_examples``.
      threshold: least probability of a pseudo-label, 0 to 1; 0: all images. May be traced.
      soft: y is p instead of one-hot; holds ``num_examples · classes`` numbers.
      balance: images are drawn evenly over the classes of their (pseudo-)labels
        (:func:`ssl_jax.ops.kmeans.sample_clusters_evenly`), so that a class that is predicted often does not grow on; else
        every image of the round comes as often.
      restart: every round begins with new weights, instead of those that made the labels. Wants a constant learning rate.

    Returns:
      The method. ``encode`` gives the encoder's features. Metrics: ``accuracy`` on the targets; ``pseudo_share``, the share of
      all images that have a pseudo-label; ``pseudo_accuracy``, the share of right ones in the batch, 0 where it has none;
      ``round``. State: ``online``, ``round``, ``labeled``, ``truth`` (labels met) and ``labels`` ``[num_examples]``.

    Raises:
      ValueError: an option out of its range.

    References: Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks", ICML
    workshop 2013; Xie et al., "Self-training with Noisy Student", CVPR 2020, for rounds, thresholds, soft labels and balance.
    Deviations: Lee labels anew at every step, with a weight that grows; a student here is as large as its teacher, without
    other noise than the views and the encoder's own.
    """
    require(classes >= 2, "classes", classes, "an integer of 2 or more")
    require(
        1 <= num_labels <= num_examples,
        "num_labels",
        num_labels,
        f"an integer from 1 to the {num_examples} images",
    )
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    classifier = heads.mlp((classes,), dtype=compute_dtype(encoder), kernel_init=0.01)
    network = chain(encoder=encoder, classifier=classifier)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, online = network.init(key, batch["views"][0][:, 0])
        none = jnp.full(num_examples, -1, jnp.int32)
        state: State = {"online": online, "truth": none, "labels": none}
        state |= {"labeled": jnp.zeros(num_examples, bool), "round": jnp.int32(-1), "share": jnp.float32(0)}
        if soft:
            state["probabilities"] = jnp.zeros((num_examples, classes))
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images, index = batch["views"][0][:, 0], batch["index"]
        (_, logits), online = network.apply(params, state["online"], images, train=True, key=key)
        given = state["labeled"][index] & (batch["label"] >= 0)
        labels = jnp.where(given, batch["label"], state["labels"][index])
        targets = jnp.eye(classes, dtype=logits.dtype)[labels]
        if soft:
            targets = jnp.where(given[:, None], targets, jax.lax.stop_gradient(state["probabilities"][index]))
        known = (labels >= 0) / jnp.maximum(jnp.sum(labels >= 0), 1)
        value = jnp.sum(known * optax.softmax_cross_entropy(logits, targets))
        truth = state["truth"].at[index].set(jnp.where(given, batch["label"], state["truth"][index]))
        checked = ~given & (labels >= 0) & (batch["label"] >= 0)
        right = jnp.sum(checked & (labels == batch["label"]))
        metrics = {
            "accuracy": jnp.sum(known * (jnp.argmax(logits, axis=1) == labels)),
            "pseudo_accuracy": right / jnp.maximum(jnp.sum(checked), 1),
            "pseudo_share": state["share"],
            "round": state["round"],
        }
        return value, ({**state, "online": online, "truth": truth}, metrics)

    def probabilities_of(params: Params, state: State, images: Array) -> Array:
        (_, logits), _ = network.apply(params, state["online"], images, train=False)
        return jax.nn.softmax(logits, axis=1)

    def relabel(state: State, probabilities: Array, key: Key) -> State:
        del key
        count = len(probabilities)
        positions = np.unique(np.linspace(0, count - 1, min(num_labels, count)).round().astype(int))
        given = jnp.zeros(num_examples, bool).at[positions].set(True)
        trained = state["round"] >= 0
        sure = trained & (jnp.max(probabilities, axis=1) >= threshold) & ~given[:count]
        guesses = jnp.where(sure, jnp.argmax(probabilities, axis=1), -1).astype(jnp.int32)
        labels = jnp.where(
            given, state["truth"], jnp.full(num_examples, -1, jnp.int32).at[:count].set(guesses)
        )
        state = {**state, "labeled": given, "labels": labels, "round": state["round"] + 1}
        if soft:
            state["probabilities"] = state["probabilities"].at[:count].set(probabilities)
        return {**state, "share": jnp.mean(sure)}

    def order(state: State, key: Key) -> Array:
        # Labelled images that were not met yet are a class of their own.
        members = jnp.where(state["labels"] < 0, jnp.where(state["labeled"], classes, -1), state["labels"])
        if balance:
            return sample_clusters_evenly(key, members, classes + 1)
        return sample_clusters_evenly(key, jnp.minimum(members, 0), 1)

    reinit = ("encoder", "classifier") if restart else ()
    relabeling = Refresh(probabilities_of, relabel, reinit=reinit, order=order)
    collapse = (
        CollapseValue("loss", math.log(classes), "the classifier says nothing: every class is as likely"),
    )
    limits = Limits(least_images=num_labels, follows_from=f"num_labels={num_labels}")
    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_at("online"),
        refresh=relabeling,
        collapse=collapse,
        limits=limits,
        keeps_images=True,
    )
