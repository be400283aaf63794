"""Regularisers that spread the features of a batch over the sphere."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array

LEAST_DISTANCE = 1e-4
"""Distance of unit vectors below which :func:`koleo` pushes them no harder; float32 resolves their direction to 0.1 %."""


def koleo(x: Float[Array, "n d"], *, epsilon: float = 1e-8) -> Float[Array, ""]:
    """Compute the Kozachenko-Leonenko estimate of the entropy, negated: pushes vectors from their nearest neighbour.

    With ``u_i = x_i / ‖x_i‖`` and ``j(i)`` the nearest other vector::

        loss = −1/n Σ_i log( ‖u_i − u_j(i) + ε‖ + ε )

    ε is added to every coordinate. The choice j(i) is not differentiated; the gradient goes through both u_i and u_j(i). It
    is the exact one where their distance is 10⁻⁴ or more, and that of the distance 10⁻⁴ below: ``10⁴ / n`` to either at most,
    and 0 where the two are equal, which have no direction to part in. (Exactly, duplicates would get ``1/(ε (√d + 1) n)``.)

    Args:
      x: ``[n, d]`` features, 2 rows or more, any float dtype, any norm.
      epsilon: ε.

    Returns:
      Scalar, float32 (float64 for float64 inputs), at least ``−log(2 + O(ε))``. Where all vectors are alike it is
      ``−log(ε (√d + 1))``, about 15 for d = 1024.

    Raises:
      ValueError: fewer than 2 rows.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(koleo(jnp.array([[1.0, 0.0], [-3.0, 0.0]]))), 4)  # -log(2): opposite points
      -0.6931

    Reference: Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019, eq. 3; Oquab et al., "DINOv2", 2023,
    section 4. Deviation: neighbours come from the whole batch, DINOv2's from the images on one device.
    """
    check.require(x.shape[0] >= 2, "x.shape", x.shape, "[n, d] with n of 2 or more")
    u = numerics.normalize(x)
    fixed = jax.lax.stop_gradient(u)
    apart = numerics.squared_distances(fixed, fixed)
    nearest = jnp.argmin(jnp.where(jnp.eye(x.shape[0], dtype=bool), jnp.inf, apart), axis=1)
    return -jnp.mean(_log_distance(u - u[nearest], epsilon))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_distance(difference: Float[Array, "n d"], epsilon: float) -> Float[Array, " n"]:
    return jnp.log(jnp.sqrt(jnp.sum((difference + epsilon) ** 2, axis=-1)) + epsilon)


@_log_distance.defjvp
def _log_distance_jvp(
    epsilon: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    (difference,), (tangent,) = primals, tangents
    shifted = jnp.where(jnp.any(difference != 0, axis=-1, keepdims=True), difference + epsilon, 0.0)
    distance = jnp.sqrt(jnp.maximum(jnp.sum(shifted**2, axis=-1), LEAST_DISTANCE**2))
    slope = jnp.sum(shifted * tangent, axis=-1) / (distance * (distance + epsilon))
    return _log_distance(difference, epsilon), slope
