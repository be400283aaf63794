"""Losses on the correlations of dimensions over the batch: Barlow Twins, VICReg, whitening, canonical correlations."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key

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
    """Barlow Twins: the cross-correlation of two views' dimensions should be the identity.

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
    _check_views(z1, z2)
    correlation = _correlation(z1, z2, normalization, epsilon)
    terms = {
        "invariance": jnp.sum((1 - jnp.diagonal(correlation)) ** 2),
        "redundancy": _off_diagonal_squares(correlation),
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
    """Barlow Twins with a cross-entropy in place of the squares, an ablation of its paper.

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
    _check_views(z1, z2)
    check.require(z1.shape[1] >= 2, "z1.shape", z1.shape, "[n, d] with d >= 2")
    correlation = _correlation(z1, z2, normalization, epsilon)
    positive = jnp.maximum(correlation, 0) / temperature
    others = jnp.where(jnp.eye(len(correlation), dtype=bool), -jnp.inf, positive)
    terms = {
        "invariance": -jax.nn.logsumexp(jnp.diagonal(correlation) / temperature),
        "redundancy": jax.nn.logsumexp(others),
    }
    return terms["invariance"] * invariance_weight + terms["redundancy"] * redundancy_weight, terms


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
    """VICReg: views agree, each dimension keeps its spread, and dimensions are not correlated.

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
      ValueError: shapes that differ, or fewer than 2 rows.

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
    _check_views(z1, z2)
    options = {"target": target, "epsilon": epsilon}
    terms = {
        "invariance": vicreg_invariance(z1, z2),
        "variance": (vicreg_variance(z1, **options) + vicreg_variance(z2, **options)) / 2,
        "covariance": vicreg_covariance(z1) + vicreg_covariance(z2),
    }
    loss = terms["invariance"] * invariance_weight + terms["variance"] * variance_weight
    return loss + terms["covariance"] * covariance_weight, terms


def vicreg_invariance(z1: Float[Array, "n d"], z2: Float[Array, "n d"]) -> Scalar:
    """VICReg's first term, the mean squared difference ``1/(n d) Σ_i ‖z1_i − z2_i‖²``.

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
    _check_views(z1, z2)
    return jnp.mean((numerics.at_least_float32(z1) - numerics.at_least_float32(z2)) ** 2)


def vicreg_variance(
    z: Float[Array, "n d"], *, target: ScalarLike = 1.0, epsilon: ScalarLike = 1e-4
) -> Scalar:
    """VICReg's second term, what is missing in the spread of each dimension: ``1/d Σ_j max(0, γ − sqrt(var(z_j) + ε))``.

    The variance is over the batch and unbiased; γ is ``target``, ε ``epsilon``.

    Args:
      z: ``[n, d]`` projections of one view, n ≥ 2, any float dtype.
      target: γ, the standard deviation below which a dimension costs something; may be traced.
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
    _check_rows("z", z)
    deviation = jnp.sqrt(jnp.var(numerics.at_least_float32(z), axis=0, ddof=1) + epsilon)
    return jnp.mean(jax.nn.relu(target - deviation))


def vicreg_covariance(z: Float[Array, "n d"]) -> Scalar:
    """VICReg's third term, the squared covariances of different dimensions: ``1/d Σ_i Σ_{j≠i} Cov(z)_ij²``.

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
    _check_rows("z", z)
    centered = _centered(z)
    return _off_diagonal_squares(_covariance(centered, centered)) / z.shape[1]


def whiten(x: Float[Array, "n d"], *, epsilon: ScalarLike = 0.0) -> Float[Array, "n d"]:
    """Vectors whose covariance over the batch is the identity: ``y_i = L⁻¹ (x_i − mean(x))``.

    ``L Lᵀ = (1 − ε) Cov(x) + ε I`` is a Cholesky decomposition, Cov unbiased; gradients pass through L. Other roots of the
    inverse covariance (ZCA, PCA) give another rotation of y. With ε > 0 dimensions are shrunk below unit variance, the more
    the smaller they are beside ε: where ``Cov(x) = σ² I``, to ``σ²/((1 − ε) σ² + ε)``.

    Args:
      x: ``[n, d]``, n > d, any float dtype; computed in float32 or wider.
      epsilon: 0 ≤ ε ≤ 1, the shrinkage; may be traced.

    Returns:
      ``[n, d]`` float32 (float64 for float64 inputs). All NaN where the covariance is singular and ε = 0; zeros where x
      is constant and ε > 0.

    Raises:
      ValueError: n of at most d, for which the covariance is singular; ε out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y = whiten(jax.random.normal(jax.random.key(0), (64, 3)) @ jnp.diag(jnp.array([1.0, 5.0, 9.0])))
      >>> bool(jnp.allclose(y.T @ y / 63, jnp.eye(3), atol=1e-4))
      True

    Reference: Ermolov et al., "Whitening for Self-Supervised Representation Learning", ICML 2021, section 3. Deviation: ε as
    in the official code.
    """
    fits = x.ndim == 2 and x.shape[0] > x.shape[1]
    check.require(fits, "x.shape", x.shape, "[n, d] with n > d: the covariance of fewer rows is singular")
    fits = not isinstance(epsilon, int | float) or 0 <= epsilon <= 1
    check.require(fits, "epsilon", epsilon, "a number in [0, 1]")
    centered = _centered(x)
    covariance = (1 - epsilon) * _covariance(centered, centered)
    factor = jnp.linalg.cholesky(covariance + epsilon * jnp.eye(x.shape[1], dtype=covariance.dtype))
    return solve_triangular(factor, centered.T, lower=True).T


def wmse(
    key: Key,
    z: Float[Array, "n v d"],
    *,
    w_size: int | None = None,
    w_iter: int = 1,
    epsilon: ScalarLike = 0.0,
    normalize: bool = True,
) -> Scalar:
    """Whitening MSE: the views of an image agree after each view's projections were whitened in groups of images.

    With x the views' projections, whitened by :func:`whiten`::

        loss = mean over pairs of views a < b and images i of    2 − 2 cos(x_ia, x_ib)         with normalize
                                                                 ‖x_ia − x_ib‖² / d            without

    Images are put into groups of ``w_size`` in a random order, the same for all views; a view of a group is whitened by
    itself, so that two views of an image never share a covariance. The loss is the mean over ``w_iter`` such orders: draw t
    takes ``jax.random.permutation(jax.random.split(key, w_iter)[t], n)``.

    Args:
      key: PRNG key.
      z: ``[n, v, d]`` projections of v ≥ 2 views of n images, any float dtype.
      w_size: images a group, more than d and a divisor of n; 2d or more is advised. ``None``: all n, whose order makes no
        difference.
      w_iter: orders to average over, 1 or more.
      epsilon: ε of :func:`whiten`; may be traced.
      normalize: unit rows after whitening.

    Returns:
      Scalar, float32 (float64 for float64 inputs), in [0, 4] with ``normalize``; about 2 where views share nothing. NaN where
      a group's covariance is singular and ε = 0. Projections that are all 0 give 2 (0 without ``normalize``) for ε > 0.

    Raises:
      ValueError: fewer than 2 views, or an option out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> z = jax.random.normal(jax.random.key(0), (32, 1, 4))
      >>> loss = wmse(jax.random.key(1), jnp.concatenate([z, 3 * z + 1], axis=1), w_size=16)
      >>> round(abs(float(loss)), 4)
      0.0

    Reference: Ermolov et al., "Whitening for Self-Supervised Representation Learning", ICML 2021, section 3. As in the
    official code the MSE without ``normalize`` is divided by d.
    """
    check.require(z.ndim == 3 and z.shape[1] >= 2, "z.shape", z.shape, "[n, v, d] with v >= 2 views")
    n, views, width = z.shape
    size = n if w_size is None else w_size
    allowed = f"more than the width {width} of the projections, and a divisor of the batch of {n}"
    check.require(size > width and n % size == 0, "w_size", size, allowed)
    check.require(w_iter >= 1, "w_iter", w_iter, "an integer of 1 or more")

    def whitened(key: Key) -> Float[Array, "n v d"]:
        order = jax.random.permutation(key, n)
        groups = z[order].reshape(-1, size, views, width).swapaxes(1, 2)
        each = jax.vmap(jax.vmap(lambda x: whiten(x, epsilon=epsilon)))
        return each(groups).swapaxes(1, 2).reshape(n, views, width)

    x = jax.vmap(whitened)(jax.random.split(key, w_iter))
    first, second = (jnp.array(side) for side in zip(*itertools.combinations(range(views), 2), strict=True))
    first, second = x[..., first, :], x[..., second, :]
    if normalize:
        return 2 - 2 * jnp.mean(numerics.cosine_similarity(first, second))
    return jnp.mean((first - second) ** 2)


def cca(
    z1: Float[Array, "n d1"],
    z2: Float[Array, "n d2"],
    *,
    ridge: ScalarLike = 1e-3,
    top_k: int | None = None,
) -> tuple[Scalar, Float[Array, " k"]]:
    """Canonical correlation: minus the sum of the canonical correlations of two embeddings.

    ``loss = −Σ_k σ_k(T)`` with the largest ``top_k`` singular values σ (all of them: the nuclear norm) of
    ``T = L1⁻¹ Σ12 L2⁻ᵀ``, ``L_a L_aᵀ = Σ_aa + r I``; Σ are unbiased covariances over the batch, r = ``ridge``. Any other root
    of the Σ_aa has the same singular values. The gradient to T is ``−U Vᵀ`` (of the top_k), with no difference of singular
    values in a denominator: it is finite where they repeat.

    Args:
      z1: ``[n, d1]``, n > d1, any float dtype; computed in float32 or wider.
      z2: ``[n, d2]``, n > d2, row i from the same image as row i of ``z1``.
      ridge: r > 0, in the units of a variance: dimensions of less variance than r do not count. May be traced.
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
    """The linear maps of two feature matrices that are correlated most, in closed form: the yardstick of deep CCA.

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
    x, y = map(_centered, embeddings.values())
    x_factor, y_factor = (
        jnp.linalg.cholesky(_covariance(a, a) + ridge * jnp.eye(a.shape[1], dtype=a.dtype)) for a in (x, y)
    )
    half = solve_triangular(x_factor, _covariance(x, y), lower=True)
    return solve_triangular(y_factor, half.T, lower=True).T, x_factor, y_factor


def _centered(z: Float[Array, "n d"]) -> Float[Array, "n d"]:
    wide = numerics.at_least_float32(z)
    return wide - jnp.mean(wide, axis=0)


def _covariance(x: Float[Array, "n d1"], y: Float[Array, "n d2"]) -> Float[Array, "d1 d2"]:
    """Unbiased, of centred rows."""
    return _product(x.T, y) / (x.shape[0] - 1)


def _product(x: Array, y: Array) -> Array:
    # A TPU multiplies float32 as bfloat16 by default: too coarse for a matrix to be inverted, and for sums over d² entries.
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _correlation(
    z1: Float[Array, "n d"], z2: Float[Array, "n d"], normalization: str, epsilon: ScalarLike
) -> Float[Array, "d d"]:
    """Mean over the batch of the products of two views' dimensions, after the normalisation."""
    check.choice("normalization", normalization, NORMALIZATIONS)
    y1, y2 = numerics.at_least_float32(z1), numerics.at_least_float32(z2)
    if normalization != "none":
        axis = NORMALIZATIONS.index(normalization)
        y1, y2 = (
            (y - jnp.mean(y, axis, keepdims=True)) * jax.lax.rsqrt(jnp.var(y, axis, keepdims=True) + epsilon)
            for y in (y1, y2)
        )
    return _product(y1.T, y2) / z1.shape[0]


def _off_diagonal_squares(matrix: Float[Array, "d d"]) -> Scalar:
    return jnp.sum(jnp.where(jnp.eye(len(matrix), dtype=bool), 0.0, matrix) ** 2)


def _check_rows(name: str, z: Array) -> None:
    check.require(z.ndim == 2 and z.shape[0] >= 2, f"{name}.shape", z.shape, "[n, d] with n >= 2")


def _check_views(z1: Array, z2: Array) -> None:
    _check_rows("z1", z1)
    check.require(z2.shape == z1.shape, "z2.shape", z2.shape, f"that of z1, {z1.shape}")
