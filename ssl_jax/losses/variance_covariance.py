"""VICReg: views agree, dimensions keep their spread and are not correlated."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.numerics import center
from ssl_jax.core.types import Array
from ssl_jax.losses.covariance import (
    covariance,
    require_rows,
    require_views,
    sum_off_diagonal_squares,
)

Scalar = Float[Array, ""]


def vicreg(
    z1: Float[Array, "n d"],
    z2: Float[Array, "n d"],
    *,
    invariance_weight: ScalarLike = 25.0,
    variance_weight: ScalarLike = 25.0,
    covariance_weight: ScalarLike = 1.0,
    target: ScalarLike = 1.0,
    epsilon: ScalarLike = 1e-4,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the loss of VICReg: views agree, each dimension keeps its spread, and dimensions are not correlated.

    ::

        loss = λ s(z1, z2) + μ (v(z1) + v(z2))/2 + ν (c(z1) + c(z2))

    with s :func:`vicreg_invariance`, v :func:`vicreg_variance`, c :func:`vicreg_covariance`, λ = ``invariance_weight``,
    μ = ``variance_weight`` and ν = ``covariance_weight``.

    Args:
      z1: ``[n, d]`` projections of the first views, n ≥ 2, any float dtype. Not normalised: unit rows would have no spread
        to keep.
      z2: ``[n, d]`` projections of the second views, row i from the same image as row i of ``z1``.
      invariance_weight: λ ≥ 0; may be traced, as the other numbers.
      variance_weight: μ ≥ 0.
      covariance_weight: ν ≥ 0.
      target: γ of the variance term.
      epsilon: ε of the variance term.

    Returns:
      ``(loss, terms)``: float32 (float64 for float64 inputs), at least 0; terms are ``invariance``, ``variance`` and
      ``covariance`` without their weights. Constant projections give ``μ (γ − √ε)``: 24.75.

    Raises:
      ValueError: shapes that differ, fewer than 2 rows, or a number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, _ = vicreg(jnp.ones((4, 3)), jnp.ones((4, 3)))
      >>> round(float(loss), 4)
      24.75

    Reference: Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR
    2022, eqs. 1 to 6. Deviations, as in the official code, for which the published weights are meant: the invariance is
    divided by d, and the variance is the mean of the two views where the paper (and solo-learn) adds them. The paper's
    formula is ``invariance_weight=25 * d, variance_weight=50``.
    """
    require_views(z1, z2)
    check.not_negative("invariance_weight", invariance_weight)
    check.not_negative("variance_weight", variance_weight)
    check.not_negative("covariance_weight", covariance_weight)
    options = {"target": target, "epsilon": epsilon}
    terms = {
        "invariance": vicreg_invariance(z1, z2),
        "variance": (vicreg_variance(z1, **options) + vicreg_variance(z2, **options)) / 2,
        "covariance": vicreg_covariance(z1) + vicreg_covariance(z2),
    }
    loss = terms["invariance"] * invariance_weight + terms["variance"] * variance_weight
    return loss + terms["covariance"] * covariance_weight, terms


def vicreg_invariance(z1: Float[Array, "n d"], z2: Float[Array, "n d"]) -> Scalar:
    """Compute VICReg's first term, the mean squared difference ``1/(n d) Σ_i ‖z1_i − z2_i‖²``.

    Args:
      z1: ``[n, d]`` projections of the first views, n ≥ 2, any float dtype.
      z2: ``[n, d]`` projections of the second views.

    Returns:
      Scalar, float32 (float64 for float64 inputs), at least 0.

    Raises:
      ValueError: shapes that differ, or fewer than 2 rows.

    Example:
      >>> import jax.numpy as jnp
      >>> float(vicreg_invariance(jnp.zeros((4, 3)), jnp.full((4, 3), 2.0)))
      4.0

    Reference: VICReg, eq. 5. Deviation: divided by d, as in the official code.
    """
    require_views(z1, z2)
    return jnp.mean((numerics.at_least_float32(z1) - numerics.at_least_float32(z2)) ** 2)


def vicreg_variance(
    z: Float[Array, "n d"], *, target: ScalarLike = 1.0, epsilon: ScalarLike = 1e-4
) -> Scalar:
    """Compute VICReg's second term, the missing spread of each dimension: ``1/d Σ_j max(0, γ − sqrt(var(z_j) + ε))``.

    The variance is over the batch and unbiased; γ is ``target``, ε ``epsilon``.

    Args:
      z: ``[n, d]`` projections of one view, n ≥ 2, any float dtype.
      target: γ > 0, the standard deviation below which a dimension costs something; may be traced.
      epsilon: ε > 0, which keeps the gradient finite where a dimension is constant; may be traced.

    Returns:
      Scalar, float32 (float64 for float64 inputs), in [0, γ]; ``γ − √ε`` for constant projections.

    Raises:
      ValueError: not a matrix of 2 rows or more.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(vicreg_variance(jnp.ones((4, 3)))), 4)
      0.99

    Reference: VICReg, eqs. 1 and 2.
    """
    require_rows("z", z)
    check.positive("target", target)
    check.positive("epsilon", epsilon)
    deviation = jnp.sqrt(jnp.sum(center(z) ** 2, axis=0) / (z.shape[0] - 1) + epsilon)
    return jnp.mean(jax.nn.relu(target - deviation))


def vicreg_covariance(z: Float[Array, "n d"]) -> Scalar:
    """Compute VICReg's third term, the squared covariances of different dimensions: ``1/d Σ_i Σ_{j≠i} Cov(z)_ij²``.

    ``Cov(z) = (z − mean(z))ᵀ (z − mean(z)) / (n − 1)``.

    Args:
      z: ``[n, d]`` projections of one view, n ≥ 2, any float dtype.

    Returns:
      Scalar, float32 (float64 for float64 inputs), at least 0; about ``(d − 1)/n`` for n standard normal vectors.

    Raises:
      ValueError: not a matrix of 2 rows or more.

    Example:
      >>> import jax.numpy as jnp
      >>> float(vicreg_covariance(jnp.array([[1.0, 1.0], [-1.0, -1.0]])))  # Cov is 2 everywhere
      4.0

    Reference: VICReg, eqs. 3 and 4.
    """
    require_rows("z", z)
    centered = center(z)
    return sum_off_diagonal_squares(covariance(centered, centered)) / z.shape[1]
