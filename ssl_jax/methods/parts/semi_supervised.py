"""What semi-supervised methods share: a classifier under noise, its cost where there is a label, and how it classifies."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Key, Metrics, Params, State
from ssl_jax.losses.consistency import labeled_cross_entropy
from ssl_jax.methods.method import CollapseValue
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype


def noisy_classifier(
    encoder: Network,
    *,
    classes: int,
    noise: float | Array,
    dropout: float | Array,
    tops: Sequence[str] = ("classifier",),
) -> Network:
    """Encoder and linear classifiers on its features, in training with noise on the pixels and dropout on the features.

    ``logits = W drop(f(x + σ ε)) + b`` with ε standard normal, σ ``noise``, and each feature 0 with probability ``dropout``
    and otherwise divided by ``1 − dropout``; at inference, and without a key, both are left out.

    Args:
      encoder: f.
      classes: width of the logits, 2 or more.
      noise: σ ≥ 0, in units of normalised pixels. May be traced.
      dropout: in [0, 1). May be traced.
      tops: names of the classifiers.

    Returns:
      The network. Params hold ``encoder`` and the tops; ``apply`` returns ``((features, logits of each top), state)``.

    Raises:
      ValueError: an option outside its range.
    """
    require(classes >= 2, "classes", classes, "an integer of 2 or more")
    require(not isinstance(noise, int | float) or noise >= 0, "noise", noise, "a number of 0 or more")
    require(not isinstance(dropout, int | float) or 0 <= dropout < 1, "dropout", dropout, "a share in [0, 1)")
    top = heads.mlp((classes,), dtype=compute_dtype(encoder), kernel_init=0.01)

    def init(key: Key, images: Array) -> tuple[Params, State]:
        encoder_key, *keys = jax.random.split(key, 1 + len(tops))
        params, state = encoder.init(encoder_key, images)
        features = jnp.zeros((1, encoder.features))
        own = {name: top.init(k, features)[0] for name, k in zip(tops, keys, strict=True)}
        return {"encoder": params, **own}, {"encoder": state}

    def apply(
        params: Params, state: State, images: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[tuple[Array, ...], State]:
        encoder_key = drop_key = None
        if train and key is not None:
            noise_key, encoder_key, drop_key = jax.random.split(key, 3)
            images = images + noise * jax.random.normal(noise_key, images.shape, images.dtype)
        features, kept = encoder.apply(
            params["encoder"], state["encoder"], images, train=train, key=encoder_key
        )
        seen = features if drop_key is None else dropped(drop_key, features, dropout)
        logits = (top.apply(params[name], {}, seen)[0] for name in tops)
        return (features, *logits), {**state, "encoder": kept}

    return Network(init, apply, classes, {})


def dropped(key: Key, x: Float[Array, "..."], rate: float | Array) -> Float[Array, "..."]:
    """Each entry 0 with probability ``rate``, otherwise divided by ``1 − rate``.

    >>> dropped(jax.random.key(0), jnp.ones(4), 0.0).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    kept = jax.random.uniform(key, x.shape) >= rate
    return jnp.where(kept, x / (1.0 - rate), 0.0)


def supervised_cost(
    logits: Float[Array, "b c"], labels: Int[Array, " b"], normalize_by: str
) -> tuple[Float[Array, ""], Metrics]:
    """The cross-entropy of :func:`ssl_jax.losses.consistency.labeled_cross_entropy`, and what to log of it.

    Returns:
      The cost, and ``cross_entropy`` and ``accuracy``, means over the labelled examples of the batch (0 without any).
    """
    known = labels >= 0
    right = jnp.sum(known & (jnp.argmax(logits, axis=-1) == labels)) / jnp.maximum(jnp.sum(known), 1)
    mean = labeled_cross_entropy(jax.lax.stop_gradient(logits), labels, normalize_by="labeled")
    return labeled_cross_entropy(logits, labels, normalize_by=normalize_by), {
        "cross_entropy": mean,
        "accuracy": right,
    }


def classifier_collapse(classes: int) -> tuple[CollapseValue, ...]:
    """Return the ``collapse`` of a classifier: it says nothing where its cross-entropy is ``log classes``."""
    meaning = "the classifier says nothing: every class is as likely"
    return (CollapseValue("cross_entropy", math.log(classes), meaning),)
