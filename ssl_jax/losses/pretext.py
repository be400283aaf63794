"""Losses of pretext tasks that are no classification."""

import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


def counting(
    wholes: Float[Array, "b k"],
    tiles: Float[Array, "b t k"],
    others: Float[Array, "b k"],
    *,
    margin: ScalarLike = 10.0,
    elementwise: bool = False,
) -> Float[Array, ""]:
    """Compute the counting loss: counts of an image are the sums of those of its tiles, and not those of another image.

    With φ(D∘x) = ``wholes``, φ(T_j∘x) = ``tiles``, φ(D∘y) = ``others`` and M = ``margin``::

        s = Σ_j φ(T_j∘x)        L = mean_x [ ‖φ(D∘x) − s‖² + max(0, M − ‖φ(D∘y) − s‖²) ]

    Args:
      wholes: ``[b, k]`` counts of the images at half their size, any float dtype.
      tiles: ``[b, t, k]`` counts of their tiles.
      others: ``[b, k]`` counts of another image for each, at half its size.
      margin: M > 0. May be traced.
      elementwise: apply square and hinge to each of the k counts and take means over them: another loss, that of a public
        reimplementation.

    Returns:
      Scalar, float32 (float64 for float64 inputs): M where all counts are 0.

    Raises:
      ValueError: shapes that do not fit, or a margin that is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> two, three = jnp.full((1, 1), 2.0), jnp.full((1, 1), 3.0)
      >>> float(counting(two, jnp.ones((1, 2, 1)), three))  # 1 + 1 = 2; (3 − 2)² = 1 of 10
      9.0

    References: Noroozi et al., "Representation Learning by Learning to Count", ICCV 2017 (M 10). ``elementwise``:
    clvrai/Representation-Learning-by-Learning-to-Count; ahmdtaha/tf_learning_to_count calls it a bug and has the equation.
    """
    check.positive("margin", margin)
    batch, _, width = tiles.shape
    for name, counts in (("wholes", wholes), ("others", others)):
        check.require(counts.shape == (batch, width), f"{name}.shape", counts.shape, f"{(batch, width)}")
    sums = jnp.sum(numerics.at_least_float32(tiles), axis=1)
    own_error, other_error = ((numerics.at_least_float32(counts) - sums) ** 2 for counts in (wholes, others))
    if not elementwise:
        own_error, other_error = jnp.sum(own_error, axis=1), jnp.sum(other_error, axis=1)
    return jnp.mean(own_error + jnp.maximum(0.0, margin - other_error))
