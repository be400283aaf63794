"""How features fill their space: ranks, the decay of the spectrum, spread, alignment and uniformity."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32, center, center_with_mean, compute_std, normalize
from ssl_jax.core.types import Array

AnyArray = Array | np.ndarray
SPECTRA = ("singular_values", "covariance")
WEIGHTS = ("uniform", "inverse")


def rankme(
    features: Float[AnyArray, "n d"], *, epsilon: float = 1e-7, of: str = "singular_values"
) -> Float[Array, ""]:
    """Compute RankMe, the exponential of the entropy of the spectrum.

    ``exp(−Σ_k p_k ln p_k)``, ``p_k = σ_k / Σσ + ε``, σ the singular values of the uncentred ``features``, ε
    ``epsilon``.

    Args:
      features: features, any float type; the paper takes the projector's outputs to compare runs, and 25 600 rows.
      epsilon: ε, the paper's 1e-7; stable-pretraining has 1e-5, which reads higher.
      of: spectrum that is meant: ``"singular_values"``, the paper's; or ``"covariance"``: σ are the eigenvalues of the centred
        covariance (reptrix), which falls faster and so reads lower. Name the one that a number is of.

    Returns:
      A number from 1 (all rows on one line) to about ``min(n, d)``; invariant to scale and rotation. 1 for
      zeros.

    Raises:
      ValueError: an unknown ``of``.

    >>> round(float(rankme(np.eye(4, dtype=np.float32))), 4)
    4.0

    Reference: Garrido et al., RankMe (2023), eq. 1. It compares runs of one method; noise scores full rank.
    """
    return jnp.exp(_entropy(_shares(_spectrum(features, of)) + epsilon))


def effective_rank(features: Float[AnyArray, "n d"], *, of: str = "singular_values") -> Float[Array, ""]:
    """Compute the effective rank, RankMe without its ε, ``exp(H(σ / Σσ))``; for ``of`` see ``rankme``.

    >>> round(float(effective_rank(np.diag(np.array([1.0, 1.0, 0.0], np.float32)))), 4)
    2.0

    Reference: Roy & Vetterli, The effective rank (2007), definition 1.
    """
    return rankme(features, epsilon=0.0, of=of)


def stable_rank(features: Float[AnyArray, "n d"]) -> Float[Array, ""]:
    """Compute the stable rank of the centred features, ``Σλ / λ_max``, λ the eigenvalues of their covariance.

    Returns:
      A number from 1 to ``min(n − 1, d)``; 0 where features do not vary.

    >>> round(float(stable_rank(np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32))), 4)
    3.0

    Reference: He & Ozay, Exploring the Gap between Collapsed & Whitened Features (2022), NESum.
    """
    values = _spectrum(features, "covariance")
    return jnp.where(values[0] > 0, jnp.sum(values) / jnp.where(values[0] > 0, values[0], 1.0), 0.0)


def participation_ratio(features: Float[AnyArray, "n d"]) -> Float[Array, ""]:
    """Compute the participation ratio ``(Σλ)² / Σλ²``, λ the eigenvalues of the centred covariance.

    Returns:
      A number from 1 to ``min(n − 1, d)``; 0 where features do not vary.

    >>> round(float(participation_ratio(np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32))), 4)
    3.0

    Reference: Gao et al., A theory of multineuronal dimensionality (2017).
    """
    squares = jnp.sum(_shares(_spectrum(features, "covariance")) ** 2)
    return jnp.where(squares > 0, 1.0 / jnp.where(squares > 0, squares, 1.0), 0.0)


def lidar(
    features: Float[AnyArray, "n q d"], *, delta: float = 1e-4, epsilon: float = 1e-8
) -> Float[Array, ""]:
    """Compute LiDAR, the effective rank of what differs between images, in units of what differs between their views.

    ``exp(−Σ p ln p)``, ``p = (λ + ε) / Σ(λ + ε)``, λ the eigenvalues of ``Σ_w^{−½} Σ_b Σ_w^{−½}``. Σ_b is the
    covariance of the n image means (divided by n − 1), Σ_w the mean over images of the covariance of an
    image's q views (q − 1) plus δ·I.

    Args:
      features: features of q views of each of n images, any float type; views are those of the training objective.
        n and q are 2 or more; n should exceed d, as the measure cannot exceed n − 1.
      delta: δ > 0, absolute: the measure depends on the scale of the features unless the views differ by
        much more than δ.
      epsilon: ε.

    Returns:
      A number from 1 to ``min(n − 1, d)``. 1 where no λ exceeds ε: there the formula would read d, the best,
      for features that do not vary at all.

    Raises:
      ValueError: fewer than two images or views, or a ``delta`` that is not above 0.

    >>> images = np.concatenate([np.eye(3), -np.eye(3)])[:, None]
    >>> views = images + 0.1 * np.array([-1.0, 1.0])[:, None]
    >>> round(float(lidar(views.astype(np.float32), delta=1.0)), 1)
    3.0

    Reference: Thilak et al., LiDAR (2024); δ is that of stable-pretraining, reptrix has 1e-6.
    """
    images, views, width = features.shape
    check.require(
        images >= 2 and views >= 2, "features", f"{images} x {views}", "two images and views or more"
    )
    check.positive("delta", delta)
    x = at_least_float32(jnp.asarray(features))
    within, means = center_with_mean(x, 1)
    within, between = within.reshape(-1, width), center(means[:, 0])
    noise = within.T @ within / (images * (views - 1)) + delta * jnp.eye(width, dtype=x.dtype)
    # Σ_w = L Lᵀ; the singular values of the whitened means, squared, are the λ: no covariance is squared.
    factor = jnp.linalg.cholesky(noise)
    whitened = jax.scipy.linalg.solve_triangular(factor, between.T, lower=True)
    nonzero = jnp.linalg.svd(whitened, compute_uv=False) ** 2 / (images - 1)
    values = jnp.pad(nonzero, (0, width - len(nonzero)))
    return jnp.where(values[0] > epsilon, jnp.exp(_entropy(_shares(values + epsilon))), 1.0)


def alpha_req(
    features: Float[AnyArray, "n d"], *, first: int = 1, last: int = 100, weights: str = "uniform"
) -> Float[Array, ""]:
    """Compute the decay of the spectrum, minus the slope of log eigenvalue against log index.

    ``ln λ_i ≈ c − α ln i`` by least squares over i = ``first``..``last``, λ the eigenvalues of the centred
    covariance in falling order.

    Args:
      features: backbone features, any float type.
      first: first index, 1-based.
      last: last index, included; indices beyond d, or whose eigenvalue is rounding noise, are left out.
      weights: of the indices: ``"uniform"``, the fit of the paper; or ``"inverse"``, the authors' code: the squared error at
        index i counts 1/i. Their code also has ``first=11``.

    Returns:
      α; the best encoders are near 1. NaN where fewer than two eigenvalues are left.

    Raises:
      ValueError: an empty range or unknown weights.

    >>> values = np.arange(1, 6) ** -1.0
    >>> rows = np.sqrt(values / 2) * np.concatenate([np.eye(5), -np.eye(5)])
    >>> round(float(alpha_req(rows.astype(np.float32))), 3)
    1.0

    Reference: Agrawal et al., α-ReQ (2022), section 3.
    """
    check.require(1 <= first < last, "first", first, f"an integer in [1, last={last})")
    check.choice("weights", weights, WEIGHTS)
    x = center(jnp.asarray(features))
    values = jnp.linalg.svd(x, compute_uv=False)
    noise = values[0] * max(x.shape) * jnp.finfo(x.dtype).eps
    index = jnp.arange(1, len(values) + 1)
    used = ((index >= first) & (index <= last) & (values > noise)).astype(x.dtype)
    if weights == "inverse":
        used = used / index
    # Eigenvalues are squared singular values over n − 1; the constant does not change the slope.
    height, log_index = 2.0 * jnp.log(jnp.where(values > 0, values, 1.0)), jnp.log(index.astype(x.dtype))
    count = jnp.sum(used)
    log_index = log_index - jnp.sum(used * log_index) / count
    return -jnp.sum(used * log_index * height) / jnp.sum(used * log_index * log_index)


def _spectrum(features: AnyArray, of: str) -> Array:
    """Compute singular values, or eigenvalues of the centred covariance up to a factor, in falling order."""
    check.choice("of", of, SPECTRA)
    x = at_least_float32(jnp.asarray(features))
    if of == "singular_values":
        return jnp.linalg.svd(x, compute_uv=False)
    return jnp.linalg.svd(center(x), compute_uv=False) ** 2


def _shares(values: Array) -> Array:
    total = jnp.sum(values)
    return jnp.where(total > 0, values / jnp.where(total > 0, total, 1.0), 0.0)


def _entropy(shares: Array) -> Array:
    return -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1.0)), 0.0))


def feature_std(features: Float[AnyArray, "n d"]) -> Float[Array, ""]:
    """Compute the mean over dimensions of the standard deviation of the L2-normalised features.

    Returns:
      About ``1/√d`` where features spread over the sphere, 0 where they collapse to a point.

    >>> float(feature_std(np.ones((8, 4), np.float32)))
    0.0

    Reference: Chen & He, SimSiam (2021), section 4.1.
    """
    return jnp.mean(compute_std(normalize(jnp.asarray(features))))


def alignment(
    first: Float[AnyArray, "n d"], second: Float[AnyArray, "n d"], *, power: ScalarLike = 2.0
) -> Float[Array, ""]:
    """Compute the mean distance between the two views of an image on the sphere, ``mean ‖x − y‖^α``.

    Args:
      first: features x of one view; normalised here.
      second: features y of the other; normalised here.
      power: exponent α > 0.

    Returns:
      0 where views agree, to ``2^α``.

    Raises:
      ValueError: an exponent that is not above 0.

    >>> float(alignment(np.eye(2, dtype=np.float32), -np.eye(2, dtype=np.float32)))
    4.0

    Reference: Wang & Isola, Alignment and Uniformity (2020), eq. 1.
    """
    check.positive("power", power)
    difference = normalize(jnp.asarray(first)) - normalize(jnp.asarray(second))
    squares = jnp.sum(difference**2, axis=-1)
    # The gradient of ‖x − y‖^α where views are equal: 0, also for powers below 2, whose formula has no finite one.
    equal = squares == 0
    return jnp.mean(jnp.where(equal, 0.0, jnp.where(equal, 1.0, squares) ** (power / 2)))


def uniformity(
    features: Float[AnyArray, "n d"], *, scale: ScalarLike = 2.0, block: int = 512
) -> Float[Array, ""]:
    """Compute the log of the mean Gaussian potential between pairs on the sphere, ``ln mean_{i<j} exp(−t‖x_i − x_j‖²)``.

    Args:
      features: features x; normalised here; two rows or more.
      scale: factor t > 0.
      block: rows at a time: memory is ``block × n``, the result does not depend on it.

    Returns:
      0 where all points agree; the lower, the more uniform.

    Raises:
      ValueError: fewer than two rows, or a factor that is not above 0.

    >>> round(float(uniformity(np.eye(4, dtype=np.float32))), 4)
    -4.0

    Reference: Wang & Isola, Alignment and Uniformity (2020), eq. 2; distinct pairs only, as in the authors'
      code.
    """
    n = len(features)
    check.require(n >= 2, "features", f"{n} rows", "two rows or more")
    check.positive("scale", scale)
    x = normalize(jnp.asarray(features))
    block = min(block, n)
    rows = jnp.pad(x, ((0, -n % block), (0, 0))).reshape(-1, block, x.shape[-1])
    starts = jnp.arange(len(rows)) * block

    def log_sum(chunk: tuple[Array, Array]) -> Array:
        part, start = chunk
        index = start + jnp.arange(block)
        distinct = (index[:, None] != jnp.arange(n)) & (index[:, None] < n)
        exponent = scale * jnp.minimum(2.0 * part @ x.T - 2.0, 0.0)
        return jax.nn.logsumexp(jnp.where(distinct, exponent, -jnp.inf))

    return jax.nn.logsumexp(jax.lax.map(log_sum, (rows, starts))) - jnp.log(float(n) * (n - 1))
