"""The spectral contrastive loss: embeddings that factorise the graph of which views come from one image."""

import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array
from ssl_jax.losses.covariance import matmul_exactly, require_views, sum_off_diagonal_squares

Scalar = Float[Array, ""]


def spectral_contrastive(
    z1: Float[Array, "n d"], z2: Float[Array, "n d"], *, mu: ScalarLike | None = 1.0
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the spectral contrastive loss: products of two views of an image are large, squares of all others small.

    With the rows u of ``z1`` and v of ``z2``, each drawn back to the ball of radius √μ (:func:`project_to_ball`)::

        loss = 1/μ [ −2/n Σ_i u_i·v_i + 1/(n(n − 1)) Σ_{i≠j} (u_i·v_j)² ]

    Without the ball its expectation is, but for a constant, ``‖Ā − F Fᵀ‖²`` for the normalised adjacency Ā of the graph of all
    views, whose edges weigh how often two of them are views of one image: its minima are the eigenvectors of Ā.

    Args:
      z1: ``[n, d]`` projections of the first views, n ≥ 2, any float dtype. Not normalised: lengths say something.
      z2: ``[n, d]`` projections of the second views, row i from the same image as row i of ``z1``.
      mu: μ > 0, the squared radius; may be traced. ``None``: no ball and no division, the loss of the theory.

    Returns:
      ``(loss, terms)``: float32 (float64 for float64 inputs); the terms ``attraction`` and ``repulsion`` add up to the loss.
      ``(r² − 2r) / μ`` where all rows are one vector of squared length r, at best −1/μ (r = 1). The least value is −2: views
      agree, images are orthogonal, and all rows have the length √μ.

    Raises:
      ValueError: shapes that differ, fewer than 2 rows, μ that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> same, apart = jnp.ones((2, 4)), jnp.eye(2)
      >>> float(spectral_contrastive(same, same)[0]), float(spectral_contrastive(apart, apart)[0])
      (-1.0, -2.0)

    Reference: HaoChen et al., "Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss", NeurIPS
    2021, section 3; the ball and the division are those of jhaochenz96/spectral_contrastive_learning. Deviation: there a batch
    that is spread over devices has its loss taken part by part; here n is the whole batch.
    """
    require_views(z1, z2)
    u, v = numerics.at_least_float32(z1), numerics.at_least_float32(z2)
    if mu is not None:
        check.positive("mu", mu)
        u, v = project_to_ball(u, mu), project_to_ball(v, mu)
    n, scale = z1.shape[0], 1.0 if mu is None else mu
    terms = {
        "attraction": -2 * jnp.mean(jnp.sum(u * v, axis=1)) / scale,
        "repulsion": sum_off_diagonal_squares(matmul_exactly(u, v.T)) / (n * (n - 1) * scale),
    }
    return terms["attraction"] + terms["repulsion"], terms


def project_to_ball(z: Float[Array, "*b d"], mu: ScalarLike) -> Float[Array, "*b d"]:
    """Draw vectors back to the ball of radius √μ: ``z min(1, √μ / ‖z‖)``. Shorter ones stay as they are.

    Args:
      z: ``[..., d]``, any float dtype.
      mu: μ > 0, the squared radius; may be traced.

    Returns:
      The same shape, float32 (float64 for float64 inputs). What was drawn back has no gradient along itself.

    >>> import jax.numpy as jnp
    >>> project_to_ball(jnp.array([[3.0, 4.0], [0.75, 1.0]]), 6.25).tolist()
    [[1.5, 2.0], [0.75, 1.0]]
    """
    wide = numerics.at_least_float32(z)
    squares = jnp.sum(wide**2, axis=-1, keepdims=True)
    return wide * jnp.sqrt(mu / jnp.maximum(squares, mu))
