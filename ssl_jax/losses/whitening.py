"""Whitening MSE: the views of an image agree after the batch was whitened."""

import itertools

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.numerics import center
from ssl_jax.core.types import Array, Key
from ssl_jax.losses.covariance import covariance

Scalar = Float[Array, ""]


def wmse(
    key: Key,
    z: Float[Array, "n v d"],
    *,
    w_size: int | None = None,
    w_iter: int = 1,
    epsilon: ScalarLike = 0.0,
    normalize: bool = True,
) -> Scalar:
    """Compute the whitening MSE: views of an image agree after each view's projections were whitened in groups.

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
      a group's covariance is singular and ε = 0, or where its largest variance is more than about 10⁷ times what ε adds (in
      float32). Projections that are all alike give 2 (0 without ``normalize``) for ε > 0, to rounding of each number.

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


def whiten(x: Float[Array, "n d"], *, epsilon: ScalarLike = 0.0) -> Float[Array, "n d"]:
    """Transform vectors so that their covariance over the batch is the identity: ``y_i = L⁻¹ (x_i − mean(x))``.

    ``L Lᵀ = (1 − ε) Cov(x) + ε I`` is a Cholesky decomposition, Cov unbiased; gradients pass through L. Other roots of the
    inverse covariance (ZCA, PCA) give another rotation of y. With ε > 0 dimensions are shrunk below unit variance, the more
    the smaller they are beside ε: where ``Cov(x) = σ² I``, to ``σ²/((1 − ε) σ² + ε)``.

    Args:
      x: ``[n, d]``, n > d, any float dtype; computed in float32 or wider.
      epsilon: 0 ≤ ε ≤ 1, the shrinkage; may be traced.

    Returns:
      ``[n, d]`` float32 (float64 for float64 inputs). All NaN where the covariance is singular and ε = 0, or its largest
      variance more than about 10⁷ times ε (in float32) while another is below ε; zeros where x is constant, up to
      rounding of its numbers (:func:`ssl_jax.core.numerics.center`), and ε > 0.

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
    check.share("epsilon", epsilon)
    centered = center(x)
    shrunk = (1 - epsilon) * covariance(centered, centered)
    factor = jnp.linalg.cholesky(shrunk + epsilon * jnp.eye(x.shape[1], dtype=shrunk.dtype))
    return solve_triangular(factor, centered.T, lower=True).T
