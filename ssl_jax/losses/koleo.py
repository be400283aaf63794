"""Regularisers that spread the features of a batch over the sphere."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


def koleo(x: Float[Array, "n d"], *, epsilon: float = 1e-8) -> Float[Array, ""]:
    """Compute the Kozachenko-Leonenko estimate of the entropy, negated: pushes vectors from their nearest neighbour.

    With ``u_i = x_i / ‖x_i‖`` and ``j(i)`` the other vector with the largest ``u_i · u_j``::

        loss = −1/n Σ_i log( ‖u_i − u_j(i) + ε‖ + ε )

    ε is added to every coordinate. The choice j(i) is not differentiated; the gradient goes through both u_i and u_j(i).

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
    similarities = jnp.matmul(fixed, fixed.T, precision=jax.lax.Precision.HIGHEST)
    nearest = jnp.argmax(jnp.where(jnp.eye(x.shape[0], dtype=bool), -jnp.inf, similarities), axis=1)
    distances = jnp.sqrt(jnp.sum((u - u[nearest] + epsilon) ** 2, axis=-1))
    return -jnp.mean(jnp.log(distances + epsilon))
