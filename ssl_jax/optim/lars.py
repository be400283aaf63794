"""LARS: momentum SGD with a learning rate for each layer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_jax.core import check
from ssl_jax.core.types import Array, PyTree
from ssl_jax.optim.masks import Exclude, decay_mask
from ssl_jax.optim.rules import Rule, descend


def lars(
    *,
    momentum: float | Array = 0.9,
    nesterov: bool = False,
    trust_coefficient: float | Array = 1e-3,
    exclude: Exclude = "bias_and_norm",
    trust_norm: str = "sum",
    learning_rate_in_buffer: bool = False,
) -> Rule:
    """Build LARS in the order of BYOL and Barlow Twins: decay, trust ratio, momentum, learning rate.

    ``g ← g + wd·w;  q = η‖w‖ / ‖g‖;  m ← μ·m + q·g;  w ← w − lr·m``, with q = 1 where either norm is 0.
    Excluded parameters get neither decay nor ratio: plain momentum SGD at the full learning rate. μ is
    ``momentum``, η ``trust_coefficient``; norms are over one parameter tensor.

    Args:
      momentum: μ in [0, 1).
      nesterov: use ``q·g + μ·m`` instead of m.
      trust_coefficient: η > 0.
      exclude: see ``masks.is_excluded``.
      trust_norm: ``"sum"``: ``q = η‖w‖ / ‖g + wd·w‖`` (BYOL, SimCLR, Barlow Twins, VICReg, MoCo v3, DINO,
        MAE); ``"parts"``: ``q = η‖w‖ / (‖g‖ + wd‖w‖ + 1e-8)``, and neither ratio nor decay where g or w is 0
        (SwAV's LARC and DeepCluster-v2, which exclude nothing; lightly; solo-learn without ``clip_lr``).
      learning_rate_in_buffer: ``m ← μ·m + lr·q·g;  w ← w − m`` (SimCLR's TensorFlow code, ``optax.lars``). It
        differs whenever the learning rate changes, by a factor of about two early in the warm-up.

    Returns:
      A rule (see ``rules``) for ``build``; its state is optax's ``TraceState``.

    Raises:
      ValueError: an unknown ``trust_norm``, a number out of range.

    >>> import jax.numpy as jnp
    >>> rule, params = lars(), {"kernel": jnp.full((2, 2), 2.0)}
    >>> update, _ = rule.update(
    ...     {"kernel": jnp.ones((2, 2))}, rule.init(params), params, learning_rate=1.0, weight_decay=0.0)
    >>> update["kernel"][0].round(6).tolist()
    [-0.0020000000949949026, -0.0020000000949949026]

    Reference: You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks (2017), algorithm 1,
    which has the learning rate inside the buffer; the default follows the official code of BYOL.
    """
    check.choice("trust_norm", trust_norm, ("sum", "parts"))
    check.below_one("momentum", momentum)
    check.positive("trust_coefficient", trust_coefficient)
    trace = optax.trace(momentum, nesterov=nesterov)

    def adapt(g: Array, w: Array, on: bool, weight_decay: float | Array) -> Array:
        if not on:
            return g
        decayed = g + weight_decay * w
        weight_norm, plain = jnp.linalg.norm(w), decayed
        if trust_norm == "sum":
            norm = denominator = jnp.linalg.norm(decayed)
        else:
            norm, plain = jnp.linalg.norm(g), g
            denominator = norm + weight_decay * weight_norm + 1e-8
        nonzero = (weight_norm > 0) & (norm > 0)
        ratio = trust_coefficient * weight_norm / jnp.where(nonzero, denominator, 1.0)
        return jnp.where(nonzero, ratio * decayed, plain)

    def update(gradients: PyTree, state: Any, params: PyTree, *, learning_rate, weight_decay, count=None):
        del count
        adapted = decay_mask(params, exclude=exclude)
        moved = jax.tree.map(lambda g, w, on: adapt(g, w, on, weight_decay), gradients, params, adapted)
        before, after = (learning_rate, 1.0) if learning_rate_in_buffer else (1.0, learning_rate)
        moved, state = trace.update(jax.tree.map(lambda x: before * x, moved), state)
        return descend(moved, after), state

    return Rule(trace.init, update)
