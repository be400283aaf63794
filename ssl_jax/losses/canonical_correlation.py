"""Canonical correlation analysis: as a loss (deep CCA), and of linear maps in closed form."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.numerics import center
from ssl_jax.core.types import Array
from ssl_jax.losses.covariance import covariance

Scalar = Float[Array, ""]


def cca(
    z1: Float[Array, "n d1"],
    z2: Float[Array, "n d2"],
    *,
    ridge: ScalarLike = 1e-3,
    top_k: int | None = None,
) -> tuple[Scalar, Float[Array, " k"]]:
    """Compute the loss of deep CCA: minus the sum of the canonical correlations of two embeddings.

    ``loss = −Σ_k σ_k(T)`` with the largest ``top_k`` singular values σ (all of them: the nuclear norm) of
    ``T = L1⁻¹ Σ12 L2⁻ᵀ``, ``L_a L_aᵀ = Σ_aa + r I``; Σ are unbiased covariances over the batch, r = ``ridge``. Any other root
    of the Σ_aa has the same singular values. The gradient to T is ``−U Vᵀ`` (of the top_k), with no difference of singular
    values in a denominator: it is finite where they repeat.

    Args:
      z1: ``[n, d1]``, n > d1, any float dtype; computed in float32 or wider.
      z2: ``[n, d2]``, n > d2, row i from the same image as row i of ``z1``.
      ridge: r > 0, in the units of a variance: dimensions of less variance than r do not count. May be traced. In float32
        not below 10⁻⁷ of the largest variance, or the result may be NaN.
      top_k: number of correlations, 1 to min(d1, d2); ``None``: all.

    Returns:
      ``(loss, correlations)``: a scalar in [−k, 0] and the k correlations in descending order, which are differentiated through
      too; float32 (float64 for float64 inputs). Constant embeddings give 0; equal embeddings of covariance I
      ``−k/(1 + r)``. With few images a dimension the correlations are too high: independent ones reach the order
      of ``√(d/n)`` each.

    Raises:
      ValueError: arrays that do not fit each other, n of at most d1 or d2 (fewer images are correlated perfectly, whatever they
        are), a ridge that is not positive, or ``top_k`` out of range.

    Example:
      >>> import jax
      >>> z = jax.random.normal(jax.random.key(0), (64, 3))
      >>> loss, correlations = cca(z, z[:, ::-1] * 5 + 1, ridge=1e-6)
      >>> round(float(loss), 3), correlations.round(3).tolist()
      (-3.0, [1.0, 1.0, 1.0])

    Reference: Andrew et al., "Deep Canonical Correlation Analysis", ICML 2013, eq. 10 and section 3. Deviations: a Cholesky
    factor in place of the symmetric root; unofficial code (Michaelvll/DeepCCA) takes the root of each entry of TᵀT
    before the trace, which is not the nuclear norm.
    """
    coherence, _, _ = _coherence(ridge, z1=z1, z2=z2)
    size = min(coherence.shape)
    k = size if top_k is None else top_k
    check.require(1 <= k <= size, "top_k", k, f"an integer from 1 to the {size} correlations")
    # Without vectors, SVD's derivative in JAX is uᵀ dT v for each singular value.
    correlations = jnp.linalg.svd(coherence, compute_uv=False)[:k]
    return -jnp.sum(correlations), correlations


class LinearCca(NamedTuple):
    """A fitted linear canonical correlation analysis.

    ``(x − x_mean) @ x_directions`` and ``(y − y_mean) @ y_directions`` are the canonical variates: each of unit variance and
    uncorrelated with all others but its partner in the other set.

    Attributes:
      x_mean: ``[d1]``.
      y_mean: ``[d2]``.
      x_directions: ``[d1, k]``.
      y_directions: ``[d2, k]``.
      correlations: ``[k]``, descending.
    """

    x_mean: Float[Array, " d1"]
    y_mean: Float[Array, " d2"]
    x_directions: Float[Array, "d1 k"]
    y_directions: Float[Array, "d2 k"]
    correlations: Float[Array, " k"]


def linear_cca(
    x: Float[Array, "n d1"],
    y: Float[Array, "n d2"],
    *,
    ridge: ScalarLike = 1e-4,
    components: int | None = None,
) -> LinearCca:
    """Fit the linear maps of two feature matrices that are correlated most, in closed form: the baseline of deep CCA.

    ``A = L1⁻ᵀ U``, ``B = L2⁻ᵀ V`` with L and ``T = U S Vᵀ`` as in :func:`cca`: columns of A and B are the directions, S the
    correlations. Fitted on the outputs of a trained deep CCA it gives their canonical coordinates.

    Args:
      x: ``[n, d1]``, n > d1, any float dtype; computed in float32 or wider.
      y: ``[n, d2]``, n > d2.
      ridge: r > 0, as in :func:`cca`; with it variates have a variance a little below 1.
      components: k, 1 to min(d1, d2); ``None``: all.

    Returns:
      :class:`LinearCca`. The signs of a pair of directions are free.

    Raises:
      ValueError: as in :func:`cca`, ``components`` out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (64, 3))
      >>> fit = linear_cca(x, jnp.roll(x, 1, axis=1)[:, :2], components=1)
      >>> fit.x_directions.shape, round(float(fit.correlations[0]), 3)
      ((3, 1), 1.0)

    Reference: Hotelling, "Relations between two sets of variates", Biometrika 1936; Andrew et al. 2013, section 2.
    """
    coherence, x_factor, y_factor = _coherence(ridge, x=x, y=y)
    size = min(coherence.shape)
    k = size if components is None else components
    check.require(1 <= k <= size, "components", k, f"an integer from 1 to {size}")
    u, s, vt = jnp.linalg.svd(coherence, full_matrices=False)
    return LinearCca(
        x_mean=jnp.mean(numerics.at_least_float32(x), axis=0),
        y_mean=jnp.mean(numerics.at_least_float32(y), axis=0),
        x_directions=solve_triangular(x_factor, u[:, :k], lower=True, trans="T"),
        y_directions=solve_triangular(y_factor, vt[:k].T, lower=True, trans="T"),
        correlations=s[:k],
    )


def _coherence(
    ridge: ScalarLike, **embeddings: Array
) -> tuple[Float[Array, "d1 d2"], Float[Array, "d1 d1"], Float[Array, "d2 d2"]]:
    """``T = L1⁻¹ Σ12 L2⁻ᵀ`` with the factors L1 and L2, of two embeddings by their names."""
    rows = max(len(z) for z in embeddings.values())
    for name, z in embeddings.items():
        fits = z.ndim == 2 and z.shape[0] == rows and rows > z.shape[1]
        check.require(fits, f"{name}.shape", z.shape, "[n, d] with n > d, and one n for both")
    check.positive("ridge", ridge)
    x, y = map(center, embeddings.values())
    x_factor, y_factor = (
        jnp.linalg.cholesky(covariance(a, a) + ridge * jnp.eye(a.shape[1], dtype=a.dtype)) for a in (x, y)
    )
    half = solve_triangular(x_factor, covariance(x, y), lower=True)
    return solve_triangular(y_factor, half.T, lower=True).T, x_factor, y_factor
