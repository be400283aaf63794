"""Losses of semi-supervised methods: predictions under noise should agree, and be right where there is a label."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array

NORMALIZE_BY = ("batch", "labeled")


def labeled_cross_entropy(
    logits: Float[Array, "b c"], labels: Int[Array, " b"], *, normalize_by: str = "batch"
) -> Float[Array, ""]:
    """Compute the cross-entropy of the labelled examples: ``Σ_{i: y_i ≥ 0} −log softmax(logits_i)_{y_i} / n``.

    Args:
      logits: ``[b, c]``, any float dtype.
      labels: ``[b]`` y; -1: none.
      normalize_by: n: ``"batch"``, all b examples, so that the share of labelled ones scales the loss; ``"labeled"``, those.

    Returns:
      Scalar, float32 (float64 for float64 logits); 0 without a label.

    Raises:
      ValueError: an unknown ``over``.

    Example:
      >>> logits, labels = jnp.zeros((4, 2)), jnp.array([0, -1, -1, 1])
      >>> [round(float(labeled_cross_entropy(logits, labels, normalize_by=n)), 4) for n in ("batch", "labeled")]
      [0.3466, 0.6931]

    Reference: Laine & Aila, Temporal Ensembling, ICLR 2017, algorithm 1: the sum over the labelled part of a batch is
    divided by the whole batch, as in the authors' code and in that of Mean Teacher.
    """
    check.choice("normalize_by", normalize_by, NORMALIZE_BY)
    known = labels >= 0
    costs = optax.softmax_cross_entropy_with_integer_labels(at_least_float32(logits), jnp.maximum(labels, 0))
    count = labels.shape[0] if normalize_by == "batch" else jnp.maximum(jnp.sum(known), 1)
    return jnp.sum(jnp.where(known, costs, 0.0)) / count


def mean_squared_difference(
    x: Float[Array, "b c"], y: Float[Array, "b c"], *, mask: Bool[Array, " b"] | None = None
) -> Float[Array, ""]:
    """Compute ``1/(b c) Σ_i m_i ‖x_i − y_i‖²``: of probabilities the consistency cost, of logits the distance of two heads.

    Args:
      x: ``[b, c]``, any float dtype.
      y: ``[b, c]``.
      mask: ``[b]`` m, examples that count; the mean is over all b in any case. ``None``: all.

    Returns:
      Scalar, float32 (float64 for float64 inputs). Gradients go to both arguments.

    Example:
      >>> float(mean_squared_difference(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])))
      1.0

    Reference: Laine & Aila 2017, algorithms 1 and 2; Tarvainen & Valpola, Mean teachers, NeurIPS 2017, section 2.
    """
    squared = (at_least_float32(x) - at_least_float32(y)) ** 2
    return jnp.mean(squared if mask is None else jnp.where(mask[:, None], squared, 0.0))


def mean_divergence(logits: Float[Array, "b c"], targets: Float[Array, "b c"]) -> Float[Array, ""]:
    """Compute ``1/b Σ_i KL(softmax(targets_i) ‖ softmax(logits_i))``: what Mean Teacher takes on ImageNet.

    Args:
      logits: ``[b, c]`` of the student, any float dtype.
      targets: ``[b, c]`` logits of the teacher.

    Returns:
      Scalar of 0 or more, float32 (float64 for float64 inputs). Gradients go to both arguments.

    Example:
      >>> float(mean_divergence(jnp.ones((2, 3)), jnp.zeros((2, 3))))
      0.0

    Reference: Tarvainen & Valpola 2017; the authors' ``pytorch/mean_teacher/losses.py`` sums over classes and divides by b.
    """
    log_p, log_q = (jax.nn.log_softmax(at_least_float32(x)) for x in (targets, logits))
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))
