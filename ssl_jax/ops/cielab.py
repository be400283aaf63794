"""CIELAB colours, and what colorization makes of them: bins of the ab plane, soft codes, weights of rare colours."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32, top_k
from ssl_jax.core.types import Array

# Linear sRGB to XYZ (ITU-R BT.709 primaries), and the white point D65 of the 2 degree observer.
XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
KNEE = 6 / 29
"""Below its cube, lightness is linear in Y."""

GRID = 10
# For a = -90, -80, ..., 100: the least and the greatest b of the bins, in units of the grid.
B_RANGES = (
    *((5, 9), (2, 9), (0, 9), (-2, 9), (-3, 10), (-4, 10), (-5, 10), (-5, 10), (-6, 10), (-7, 10)),
    *((-8, 9), (-8, 9), (-9, 9), (-10, 9), (-10, 8), (-11, 8), (-11, 8), (-11, 7), (-11, 7), (-9, 0)),
)


def rgb_to_lab(rgb: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Convert sRGB to CIELAB.

    With linear light ``u = (c + .055)/1.055)^2.4`` (``c / 12.92`` up to .04045), ``(X, Y, Z) = M u`` over the white point, and
    ``f(t) = ∛t`` (``t / (3 · (6/29)²) + 4/29`` up to ``(6/29)³``)::

        L = 116 f(Y) − 16      a = 500 (f(X) − f(Y))      b = 200 (f(Y) − f(Z))

    Args:
      rgb: ``[..., 3]`` in [0, 1], any float dtype.

    Returns:
      ``[..., 3]`` float32 or wider: L in [0, 100], a in [-87, 99], b in [-108, 95].

    Example:
      >>> import jax.numpy as jnp
      >>> [round(x, 1) for x in rgb_to_lab(jnp.array([1.0, 0.0, 0.0])).tolist()]
      [53.2, 80.1, 67.2]

    Reference: CIE 15 (2004) and IEC 61966-2-1 with the white point D65; as ``skimage.color.rgb2lab``, but for the exact 6/29
    where that has rounded numbers.
    """
    c = at_least_float32(rgb)
    linear = jnp.where(c > 0.04045, (jnp.maximum(c, 0.04045) + 0.055) ** 2.4 / 1.055**2.4, c / 12.92)
    t = _times(XYZ / WHITE[:, None], linear)
    # The root's argument is kept off 0, where its slope is infinite.
    f = jnp.where(t > KNEE**3, jnp.cbrt(jnp.maximum(t, KNEE**3)), t / (3 * KNEE**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_to_rgb(lab: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Convert CIELAB to sRGB, the inverse of :func:`rgb_to_lab`; colours out of gamut are clipped.

    Args:
      lab: ``[..., 3]``, any float dtype.

    Returns:
      ``[..., 3]`` float32 or wider in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> [round(x, 4) for x in lab_to_rgb(rgb_to_lab(jnp.array([0.25, 0.5, 1.0]))).tolist()]
      [0.25, 0.5, 1.0]
    """
    lab = at_least_float32(lab)
    y = (lab[..., 0] + 16) / 116
    f = jnp.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    t = jnp.where(f > KNEE, f**3, 3 * KNEE**2 * (f - 4 / 29))
    linear = jnp.clip(_times(np.linalg.inv(XYZ) * WHITE, t), 0.0, 1.0)
    root = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.clip(jnp.where(linear > 0.0031308, root, 12.92 * linear), 0.0, 1.0)


def _times(matrix: np.ndarray, x: Array) -> Array:
    """``M x`` on the last axis; matrix products of float32 are too coarse for colours on accelerators."""
    return jnp.einsum("ij,...j->...i", jnp.asarray(matrix, x.dtype), x, precision=jax.lax.Precision.HIGHEST)


def ab_bins() -> Float[np.ndarray, "313 2"]:
    """Return the centres (a, b) of the 313 bins of the ab plane, on a grid of 10, sorted by a, then b.

    They are the published bins of Zhang et al., who call them the values in gamut. The paper gives no rule and none that we
    tried gives 313: 261 are the nearest of an sRGB colour, 306 a corner of a square of the grid with an sRGB colour in it.
    The 313 contain both, so that no colour is further than 7.1 from a bin; no bin is further than 15 from a colour; and they
    are all grid points of their convex hull. So they are given here by their range of b for each a.

    >>> bins = ab_bins()
    >>> len(bins), bins[0].tolist(), bins[-1].tolist()
    (313, [-90.0, 50.0], [100.0, 0.0])
    """
    rows = enumerate(B_RANGES, start=-9)
    points = [(a, b) for a, (low, high) in rows for b in range(low, high + 1)]
    return GRID * np.array(points, np.float32)


def soft_bins(
    ab: Float[Array, "*b 2"], *, neighbors: int = 10, sigma: ScalarLike = 5.0
) -> Float[Array, "*b 313"]:
    """Return the soft codes of colours: weights ``exp(−d² / 2σ²)`` of the nearest bins, normalised.

    Args:
      ab: ``[..., 2]`` colours.
      neighbors: number of bins, 1 (one-hot) to 313.
      sigma: σ > 0. May be traced.

    Returns:
      ``[..., 313]`` rows that sum to 1, with ``neighbors`` entries above 0 at most (a far one may round to 0). Of bins at the
      same distance the earlier is taken.

    Raises:
      ValueError: a number of neighbours out of its range, a σ that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> code = soft_bins(jnp.array([11.0, -22.0]))
      >>> ab_bins()[int(code.argmax())].tolist(), int((code > 0).sum())
      ([10.0, -20.0], 10)

    Reference: Zhang et al., "Colorful Image Colorization", ECCV 2016, section 2.1.
    """
    bins = jnp.asarray(ab_bins())
    check.require(
        1 <= neighbors <= len(bins), "neighbors", neighbors, f"an integer from 1 to {len(bins)} bins"
    )
    check.positive("sigma", sigma)
    flat = at_least_float32(ab).reshape(-1, 2)
    squared = jnp.sum((flat[:, None] - bins) ** 2, axis=-1)
    nearest, places = top_k(-squared, neighbors)
    # Relative to the nearest one: a colour far from all bins would have weights of 0.
    weights = jax.nn.softmax(nearest / (2 * sigma**2), axis=1)
    rows = jnp.arange(len(flat))[:, None]
    codes = jnp.zeros(squared.shape, weights.dtype).at[rows, places].set(weights)
    return codes.reshape(*ab.shape[:-1], len(bins))


def rebalancing_weights(
    prior: Float[Array, " q"], *, gamma: ScalarLike = 0.5, alpha: ScalarLike = 1.0
) -> Float[Array, " q"]:
    """Compute weights by which rare colours count more: ``w ∝ ((1 − γ) p + γ/Q)^−α`` with ``Σ p w = 1``.

    Args:
      prior: ``[q]`` p, shares of the bins, that sum to 1.
      gamma: γ in [0, 1], how much of the uniform distribution over the Q bins with p > 0 is mixed in. May be traced.
      alpha: α ≥ 0; 0: every bin weighs 1. May be traced.

    Returns:
      ``[q]``; bins that do not occur have the weight 0.

    Example:
      >>> import jax.numpy as jnp
      >>> rebalancing_weights(jnp.array([0.75, 0.25, 0.0]), gamma=0.0).tolist()
      [0.6666666865348816, 2.0, 0.0]

    Reference: Zhang et al., "Colorful Image Colorization", ECCV 2016, equation 4; Q without bins that do not occur, as in
    the authors' code.
    """
    check.share("gamma", gamma)
    check.not_negative("alpha", alpha)
    p = at_least_float32(prior)
    occurs = p > 0
    uniform = occurs / jnp.maximum(jnp.sum(occurs), 1)
    mixed = jnp.where(occurs, (1 - gamma) * p + gamma * uniform, 1.0)
    factors = jnp.where(occurs, mixed ** (-jnp.asarray(alpha)), 0.0)
    total = jnp.sum(p * factors)
    return factors / jnp.where(total > 0, total, 1.0)


def annealed_mean(logits: Float[Array, "*b 313"], *, temperature: ScalarLike = 0.38) -> Float[Array, "*b 2"]:
    """Return the colour that scores of the bins stand for: the mean bin under ``softmax(logits / T)``.

    Args:
      logits: ``[..., 313]`` scores.
      temperature: T > 0; towards 0 the best bin, 1 the mean. May be traced.

    Returns:
      ``[..., 2]``, a and b.

    Example:
      >>> import jax.numpy as jnp
      >>> annealed_mean(jnp.zeros(313).at[0].set(100.0)).tolist()
      [-90.0, 50.0]

    Reference: Zhang et al., "Colorful Image Colorization", ECCV 2016, equation 5.
    """
    check.positive("temperature", temperature)
    shares = jax.nn.softmax(at_least_float32(logits) / temperature, axis=-1)
    return jnp.matmul(shares, jnp.asarray(ab_bins()), precision=jax.lax.Precision.HIGHEST)
