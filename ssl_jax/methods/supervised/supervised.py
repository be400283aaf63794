"""Supervised training with labels: no self-supervision, the yardstick of the same encoder, views and budget."""

import math

import jax.numpy as jnp
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.common import chain, compute_dtype, encoding, merge_views
from ssl_jax.methods.method import Method, Sign
from ssl_jax.models import heads
from ssl_jax.models.network import Network


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    classes: int = 10,
    label_smoothing: float = 0.0,
) -> Method:
    """Supervised training.

    ``L = mean −Σ_c y_c log softmax(W f(v) + b)_c`` over all views v of all labelled images, y the one-hot label smoothed by
    ``label_smoothing``. An image without a label (−1) counts for nothing. Each view is an example of its own.

    Args:
      encoder: the network to train.
      views: views of one size; ``None``: one view of :func:`ssl_jax.augment.presets.mae`, a crop and a flip.
      classes: number of classes, 2 or more.
      label_smoothing: share of each label that is spread over all classes, in [0, 1). May be traced.

    Returns:
      The method. ``encode`` gives the encoder's features, before the classifier; ``metrics`` hold the accuracy on the batch.

    Raises:
      ValueError: fewer than two classes.

    Reference: Szegedy et al., Rethinking the Inception Architecture (2016), section 7, for label smoothing.
    """
    require(classes >= 2, "classes", classes, "an integer of 2 or more")
    classifier = heads.mlp((classes,), dtype=compute_dtype(encoder), kernel_init=0.01)
    network = chain(encoder=encoder, classifier=classifier)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        views = batch["views"][0]
        (_, logits), state = network.apply(params, state, merge_views(views), train=True, key=key)
        labels = jnp.repeat(batch["label"], views.shape[1])
        known = (labels >= 0).astype(logits.dtype)
        share = known / jnp.maximum(jnp.sum(known), 1.0)
        targets = optax.smooth_labels(jnp.eye(classes, dtype=logits.dtype)[labels], label_smoothing)
        value = jnp.sum(share * optax.softmax_cross_entropy(logits, targets))
        right = jnp.argmax(logits, axis=-1) == labels
        return value, (state, {"accuracy": jnp.sum(share * right)})

    def signs(batch_size: int) -> tuple[Sign, ...]:
        del batch_size
        return (Sign("loss", math.log(classes), "the classifier says nothing: every class is as likely"),)

    views = presets.mae() if views is None else views
    encode, encoder_of = encoding(encoder)
    return Method(views, init, loss, encode, encoder, encoder_of, signs=signs)
