"""Barlow Twins and its ablation: the cross-correlation of two views' dimensions should be the identity."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array
from ssl_jax.losses.covariance import matmul_exactly, require_views, sum_off_diagonal_squares

Scalar = Float[Array, ""]

NORMALIZATIONS = ("batch", "features", "none")
"""Axes along which Barlow Twins makes mean and variance 0 and 1."""


def barlow_twins(
    z1: Float[Array, "n d"],
    z2: Float[Array, "n d"],
    *,
    invariance_weight: ScalarLike = 1.0,
    redundancy_weight: ScalarLike = 0.0051,
    scale: ScalarLike = 1.0,
    normalization: str = "batch",
    epsilon: ScalarLike = 1e-5,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the loss of Barlow Twins: the cross-correlation of two views' dimensions should be the identity.

    ::

        loss = s ( α Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij² )        C = y1ᵀ y2 / n
        y    = (z − mean(z)) / sqrt(var(z) + ε)                     mean and biased variance over the batch

    with α = ``invariance_weight``, λ = ``redundancy_weight``, s = ``scale`` and ε = ``epsilon``.

    Args:
      z1: ``[n, d]`` projections of the first views, n ≥ 2, any float dtype; C is computed in float32 or wider.
      z2: ``[n, d]`` projections of the second views, row i from the same image as row i of ``z1``.
      invariance_weight: α ≥ 0; 0 is an ablation of the paper. May be traced, as the other numbers.
      redundancy_weight: λ ≥ 0; 0 is an ablation of the paper.
      scale: s > 0. Adam and, for weight matrices, LARS make steps that hardly depend on it.
      normalization: ``"batch"``: y as above; two ablations of the paper: ``"features"``: mean and variance are over the
        dimensions of each row instead; ``"none"``: y = z.
      epsilon: ε > 0, of BatchNorm.

    Returns:
      ``(loss, terms)``: float32 (float64 for float64 inputs), at least 0; terms are the two sums without weights,
      ``invariance`` and ``redundancy``. Constant projections give ``s α d``, dimensions that are all alike ``s λ d(d − 1)``.

    Raises:
      ValueError: shapes that differ, fewer than 2 rows, an unknown normalization.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, _ = barlow_twins(jnp.ones((4, 3)), jnp.ones((4, 3)))
      >>> float(loss)
      3.0

    Reference: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021, eqs. 1 and 2.
    Deviations: ε, of which the paper does not speak, is that of the official code. That code's gradient is divided by its
    number of processes (16 in its recipe); here it is exact, and ``scale`` stands for such factors.
    """
    require_views(z1, z2)
    _check_weights(invariance_weight, redundancy_weight)
    check.positive("scale", scale)
    correlation = _correlation(z1, z2, normalization, epsilon)
    terms = {
        "invariance": jnp.sum((1 - jnp.diagonal(correlation)) ** 2),
        "redundancy": sum_off_diagonal_squares(correlation),
    }
    loss = terms["invariance"] * invariance_weight + terms["redundancy"] * redundancy_weight
    return loss * scale, terms


def barlow_cross_entropy(
    z1: Float[Array, "n d"],
    z2: Float[Array, "n d"],
    *,
    temperature: ScalarLike = 0.1,
    invariance_weight: ScalarLike = 1.0,
    redundancy_weight: ScalarLike = 1.0,
    normalization: str = "batch",
    epsilon: ScalarLike = 1e-5,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the loss of Barlow Twins with a cross-entropy in place of the squares, an ablation of its paper.

    ::

        loss = −α log Σ_i exp(C_ii / τ) + λ log Σ_i Σ_{j≠i} exp(max(C_ij, 0) / τ)

    with C as in :func:`barlow_twins`.

    Args:
      z1: ``[n, d]`` projections of the first views, n ≥ 2, d ≥ 2.
      z2: ``[n, d]`` projections of the second views.
      temperature: τ > 0. May be traced, as the other numbers.
      invariance_weight: α ≥ 0.
      redundancy_weight: λ ≥ 0.
      normalization: as in :func:`barlow_twins`.
      epsilon: ε > 0, of BatchNorm.

    Returns:
      ``(loss, terms)``: terms are the two logarithms without weights, ``invariance`` negative and ``redundancy``. Constant
      projections give ``−α log d + λ log(d(d − 1))``.

    Raises:
      ValueError: shapes that differ, fewer than 2 rows or dimensions, an unknown normalization.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, _ = barlow_cross_entropy(jnp.ones((4, 3)), jnp.ones((4, 3)))
      >>> round(float(loss), 4)  # log 2
      0.6931

    Reference: Zbontar et al. 2021, "Loss function explorations" (row "Cross-entropy with temp."); the formula, its τ and λ are
    not in the official code, and the paper gives no numbers for them: the defaults are ours.
    """
    require_views(z1, z2)
    check.require(z1.shape[1] >= 2, "z1.shape", z1.shape, "[n, d] with d >= 2")
    _check_weights(invariance_weight, redundancy_weight)
    check.positive("temperature", temperature)
    correlation = _correlation(z1, z2, normalization, epsilon)
    positive = jnp.maximum(correlation, 0) / temperature
    others = jnp.where(jnp.eye(len(correlation), dtype=bool), -jnp.inf, positive)
    terms = {
        "invariance": -jax.nn.logsumexp(jnp.diagonal(correlation) / temperature),
        "redundancy": jax.nn.logsumexp(others),
    }
    return terms["invariance"] * invariance_weight + terms["redundancy"] * redundancy_weight, terms


def _check_weights(invariance_weight: ScalarLike, redundancy_weight: ScalarLike) -> None:
    check.not_negative("invariance_weight", invariance_weight)
    check.not_negative("redundancy_weight", redundancy_weight)


def _correlation(
    z1: Float[Array, "n d"], z2: Float[Array, "n d"], normalization: str, epsilon: ScalarLike
) -> Float[Array, "d d"]:
    """Mean over the batch of the products of two views' dimensions, after the normalisation."""
    check.choice("normalization", normalization, NORMALIZATIONS)
    check.positive("epsilon", epsilon)
    y1, y2 = numerics.at_least_float32(z1), numerics.at_least_float32(z2)
    if normalization != "none":
        axis = NORMALIZATIONS.index(normalization)
        y1, y2 = (numerics.center(y, axis) for y in (y1, y2))
        y1, y2 = (y * jax.lax.rsqrt(jnp.mean(y * y, axis, keepdims=True) + epsilon) for y in (y1, y2))
    return matmul_exactly(y1.T, y2) / z1.shape[0]
