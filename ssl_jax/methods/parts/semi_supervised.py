"""Semi-supervised classifiers: encoder and classifier under noise, the cross-entropy where there is a label, collapse."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.consistency import labeled_cross_entropy
from ssl_jax.methods.method import CollapseValue
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.ops.schedules import rampup


@dataclasses.dataclass(frozen=True, kw_only=True)
class RampUp:
    """How the weight of the unsupervised term rises.

    Attributes:
      weight: w ≥ 0 after the ramp. May be traced.
      steps: T; 0: the weight does not rise.
      quiet_steps: steps at the start at which the weight is 0, the first epoch in the code of Laine and Aila.
    """

    weight: float = 100.0
    steps: int = 0
    quiet_steps: int = 0

    def schedule(self) -> Schedule:
        """Build the schedule of the weight, see :func:`ssl_jax.ops.schedules.rampup`.

        >>> float(RampUp(weight=2.0).schedule()(0))
        2.0
        """
        return rampup(self.weight, self.steps, quiet=self.quiet_steps)


def noisy_classifier(
    encoder: Network,
    *,
    classes: int,
    noise: float | Array,
    dropout: float | Array,
    classifiers: Sequence[str] = ("classifier",),
) -> Network:
    """Join an encoder and linear classifiers on its features, in training with noise on the pixels and dropout of features.

    ``logits = W drop(f(x + σ ε)) + b`` with ε standard normal, σ ``noise``, and each feature 0 with probability ``dropout``
    and otherwise divided by ``1 − dropout``; at inference, and without a key, both are left out.

    Args:
      encoder: f.
      classes: width of the logits, 2 or more.
      noise: σ ≥ 0, in units of normalised pixels. May be traced.
      dropout: share of the features, in [0, 1). May be traced.
      classifiers: names of the classifiers.

    Returns:
      The network. Params hold ``encoder`` and the classifiers; ``apply`` returns ``((features, logits of each), state)``.

    Raises:
      ValueError: an option outside its range.
    """
    require(classes >= 2, "classes", classes, "an integer of 2 or more")
    require(not isinstance(noise, int | float) or noise >= 0, "noise", noise, "a number of 0 or more")
    require(not isinstance(dropout, int | float) or 0 <= dropout < 1, "dropout", dropout, "a share in [0, 1)")
    linear = heads.mlp((classes,), dtype=compute_dtype(encoder), kernel_init=0.01)

    def init(key: Key, images: Array) -> tuple[Params, State]:
        encoder_key, *keys = jax.random.split(key, 1 + len(classifiers))
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        features = jnp.zeros((1, encoder.features))
        for name, classifier_key in zip(classifiers, keys, strict=True):
            params[name], _ = linear.init(classifier_key, features)
        return params, state

    def apply(
        params: Params, state: State, images: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[tuple[Array, ...], State]:
        encoder_key = drop_key = None
        if train and key is not None:
            noise_key, encoder_key, drop_key = jax.random.split(key, 3)
            images = images + noise * jax.random.normal(noise_key, images.shape, images.dtype)
        variables = params["encoder"], state["encoder"]
        features, encoder_state = encoder.apply(*variables, images, train=train, key=encoder_key)
        inputs = features if drop_key is None else apply_dropout(drop_key, features, dropout)
        logits = (linear.apply(params[name], {}, inputs)[0] for name in classifiers)
        return (features, *logits), {**state, "encoder": encoder_state}

    return Network(init, apply, classes, {})


def apply_dropout(key: Key, x: Float[Array, "..."], rate: float | Array) -> Float[Array, "..."]:
    """Set each entry to 0 with probability ``rate``, and divide the others by ``1 − rate``.

    >>> apply_dropout(jax.random.key(0), jnp.ones(4), 0.0).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    keep = jax.random.uniform(key, x.shape) >= rate
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def supervised_loss(
    logits: Float[Array, "b c"], labels: Int[Array, " b"], normalize_by: str
) -> tuple[Float[Array, ""], Metrics]:
    """Compute :func:`ssl_jax.losses.consistency.labeled_cross_entropy`, and what to log of it.

    Returns:
      The loss, and ``cross_entropy`` and ``accuracy``, means over the labelled examples of the batch (0 without any).
    """
    labeled = labels >= 0
    correct = labeled & (jnp.argmax(logits, axis=-1) == labels)
    accuracy = jnp.sum(correct) / jnp.maximum(jnp.sum(labeled), 1)
    mean = labeled_cross_entropy(jax.lax.stop_gradient(logits), labels, normalize_by="labeled")
    value = labeled_cross_entropy(logits, labels, normalize_by=normalize_by)
    return value, {"cross_entropy": mean, "accuracy": accuracy}


def classifier_collapse(classes: int) -> tuple[CollapseValue, ...]:
    """Return the ``collapse`` of a classifier: its cross-entropy is ``log classes`` where every class is as likely."""
    meaning = "the classifier says nothing: every class is as likely"
    return (CollapseValue("cross_entropy", math.log(classes), meaning),)
