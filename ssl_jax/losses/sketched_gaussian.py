"""Embeddings that are spread like an isotropic Gaussian, tested along random directions: LeJEPA."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key

Scalar = Float[Array, ""]


def random_directions(key: Key, width: int, count: int) -> Float[Array, "{width} {count}"]:
    """Draw unit vectors uniformly from the sphere, as columns.

    >>> import jax, jax.numpy as jnp
    >>> jnp.linalg.norm(random_directions(jax.random.key(0), 8, 3), axis=0).round(5).tolist()
    [1.0, 1.0, 1.0]
    """
    check.require(count >= 1, "count", count, "an integer of 1 or more")
    return numerics.normalize(jax.random.normal(key, (count, width))).T


def sigreg(
    z: Float[Array, "*v n d"], directions: Float[Array, "d k"], *, knots: int = 17, limit: ScalarLike = 3.0
) -> Scalar:
    """Compute the sketched isotropic Gaussian regularisation: how far projections of embeddings are from N(0, 1).

    Along each direction a, with the projections ``x_i = z_i · a`` and their characteristic function, the statistic of Epps and
    Pulley::

        T_a = n ∫_{−l}^{l} | 1/n Σ_i exp(i t x_i) − exp(−t²/2) |² exp(−t²/2) dt

    by the trapezoidal rule on ``knots`` points of [0, l], doubled. The result is the mean over directions and leading axes.

    Args:
      z: ``[..., n, d]`` embeddings, any float dtype; leading axes (views) are tested each by itself.
      directions: ``[d, k]`` unit columns, such as :func:`random_directions`, drawn anew in every step.
      knots: points of the integral, an odd number of 3 or more.
      limit: l > 0.

    Returns:
      Scalar, float32 (float64 for float64 inputs), at least 0. For constant embeddings 0 it is ``n ∫ (1 − exp(−t²/2))²
      exp(−t²/2) dt``, about 0.6 n with the defaults; for a sample of N(0, I) it does not grow with n.

    Raises:
      ValueError: shapes that do not fit, an even number of knots, a limit that is not above 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> z = jax.random.normal(jax.random.key(0), (64, 8))
      >>> directions = random_directions(jax.random.key(1), 8, 32)
      >>> bool(sigreg(z, directions) < sigreg(3 * z, directions))
      True

    Reference: Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", 2025;
    rbalestr-lab/lejepa ``MINIMAL.md`` and ``univariate/epps_pulley.py``.
    """
    check.require(
        directions.shape[0] == z.shape[-1], "directions.shape", directions.shape, f"[{z.shape[-1]}, k]"
    )
    check.require(knots >= 3 and knots % 2 == 1, "knots", knots, "an odd integer of 3 or more")
    check.positive("limit", limit)
    wide = numerics.at_least_float32(z)
    projected = jnp.matmul(wide, directions.astype(wide.dtype), precision=jax.lax.Precision.HIGHEST)
    t = jnp.linspace(0, limit, knots, dtype=wide.dtype)
    normal = jnp.exp(-(t**2) / 2)
    step = limit / (knots - 1)
    weights = normal * jnp.full(knots, 2 * step, wide.dtype).at[jnp.array([0, -1])].set(step)

    def squares(knot: Array) -> Array:
        angle = projected * knot
        real, imaginary = jnp.mean(jnp.cos(angle), axis=-2), jnp.mean(jnp.sin(angle), axis=-2)
        return (real - jnp.exp(-(knot**2) / 2)) ** 2 + imaginary**2

    # One knot after the other: all at once would take ``knots`` times the memory of the projections.
    statistic = jnp.tensordot(weights, jax.lax.map(jax.checkpoint(squares), t), axes=1)
    return jnp.mean(statistic) * z.shape[-2]


def lejepa(
    z: Float[Array, "v n d"],
    directions: Float[Array, "d k"],
    *,
    targets: int,
    weight: ScalarLike = 0.05,
    knots: int = 17,
    limit: ScalarLike = 3.0,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the loss of LeJEPA: views predict the mean of the global ones, and embeddings are spread like a Gaussian.

    ``loss = λ SIGReg(z) + (1 − λ) mean_{v,i,d} (z_v − 1/g Σ_{u ≤ g} z_u)²``, with gradients to both sides.

    Args:
      z: ``[v, n, d]`` embeddings of the views, global ones first; not normalised.
      directions: ``[d, k]`` of :func:`sigreg`.
      targets: g, how many of the first views are global, 1 to v.
      weight: λ, 0 to 1. May be traced.
      knots: knots of :func:`sigreg`.
      limit: limit of :func:`sigreg`.

    Returns:
      ``(loss, terms)``; terms are ``sigreg`` and ``invariance`` without their weights.

    Raises:
      ValueError: ``targets`` or ``weight`` out of range, or as :func:`sigreg`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> directions = random_directions(jax.random.key(0), 4, 8)
      >>> loss, terms = lejepa(jnp.ones((2, 16, 4)), directions, targets=2)
      >>> float(terms["invariance"])
      0.0

    Reference: Balestriero and LeCun 2025, section 5; rbalestr-lab/lejepa. Views of one kind are all global in its minimal
    example.
    """
    check.require(1 <= targets <= z.shape[0], "targets", targets, f"an integer from 1 to {z.shape[0]} views")
    check.share("weight", weight)
    wide = numerics.at_least_float32(z)
    terms = {
        "sigreg": sigreg(wide, directions, knots=knots, limit=limit),
        "invariance": jnp.mean((wide - jnp.mean(wide[:targets], axis=0)) ** 2),
    }
    return terms["sigreg"] * weight + terms["invariance"] * (1 - weight), terms
