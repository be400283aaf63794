"""Supervised training with labels: no self-supervision, the baseline of the same encoder, views and budget."""

import math

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.mix import erase, mix_batch
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.siamese import merge_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    classes: int = 10,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    cutmix: bool = False,
    erasing: float = 0.0,
) -> Method:
    """Supervised training.

    ``L = mean −Σ_c y_c log softmax(W f(v) + b)_c`` over all views v of all labelled images, y the one-hot label smoothed by
    ``label_smoothing``. An image without a label (−1) counts for nothing. Each view is an example of its own.

    Args:
      encoder: the network to train.
      views: views of one size; ``None``: one view of :func:`ssl_jax.augment.presets.mae`, a crop and a flip.
      classes: number of classes, 2 or more.
      label_smoothing: share of each label that is spread over all classes, in [0, 1). May be traced.
      mixup: α of :func:`ssl_jax.augment.mix.mixup`, 0.8 when fine-tuning MAE; 0: images are not mixed.
      cutmix: mix images by :func:`ssl_jax.augment.mix.cutmix`; with ``mixup`` each image is mixed in one way or the other.
      erasing: probability of :func:`ssl_jax.augment.mix.erase`, of each view before it is mixed.

    Returns:
      The method. ``encode`` gives the encoder's features, before the classifier, ``classify`` its logits; ``metrics`` hold the
      accuracy on the batch.

    Raises:
      ValueError: fewer than two classes, a negative ``mixup``, an ``erasing`` outside [0, 1].

    References: Szegedy et al., Rethinking the Inception Architecture (2016), section 7, for label smoothing; He et al., Masked
    Autoencoders (2022), table 9, for the rest. An image without a label is not mixed into others' targets: its share is lost.
    """
    require(classes >= 2, "classes", classes, "an integer of 2 or more")
    require(mixup >= 0, "mixup", mixup, "a number of 0 or more")
    require(0 <= erasing <= 1, "erasing", erasing, "a probability from 0 to 1")
    kinds = ("mixup",) * (mixup > 0) + ("cutmix",) * cutmix
    classifier = heads.mlp((classes,), dtype=compute_dtype(encoder), kernel_init=0.01)
    network = chain(encoder=encoder, classifier=classifier)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        views = batch["views"][0]
        images, labels = merge_views(views), jnp.repeat(batch["label"], views.shape[1])
        network_key, erase_key, mix_key = jax.random.split(key, 3)
        known = (labels >= 0).astype(images.dtype)
        one_hot = jnp.eye(classes, dtype=images.dtype)[labels]
        targets = optax.smooth_labels(one_hot, label_smoothing) * known[:, None]
        if erasing:
            keys = jax.random.split(erase_key, len(images))
            images = jax.vmap(lambda k, x: erase(k, x, probability=erasing))(keys, images)
        if kinds:
            images, targets = mix_batch(mix_key, images, targets, alpha=mixup or 1.0, kinds=kinds)
        (_, logits), state = network.apply(params, state, images, train=True, key=network_key)
        share = known / jnp.maximum(jnp.sum(known), 1.0)
        value = jnp.sum(share * optax.softmax_cross_entropy(logits, targets))
        correct = jnp.argmax(logits, axis=-1) == labels
        return value, (state, {"accuracy": jnp.sum(share * correct)})

    def classify(params: Params, state: State, images: Array) -> dict[str, Array]:
        return {"classifier": network.apply(params, state, images)[0][1]}

    views = presets.mae() if views is None else views
    collapse = (
        CollapseValue("loss", math.log(classes), "the classifier says nothing: every class is as likely"),
    )
    return Method(views, init, loss, encoder, collapse=collapse, classify=classify)
