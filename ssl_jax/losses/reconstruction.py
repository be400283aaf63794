"""Reconstruction losses: predict what was hidden."""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


def masked_mse(
    predictions: Float[Array, "b l p"],
    targets: Float[Array, "b l p"],
    mask: Bool[Array, "b l"] | Float[Array, "b l"],
) -> Float[Array, ""]:
    """Mean squared error on the hidden patches only.

    With the error of one patch ``e_il = 1/p Σ_p (predictions − targets)²`` and m = ``mask``::

        loss = Σ_il m_il e_il / Σ_il m_il

    Args:
      predictions: ``[b, l, p]`` predicted patches, any float dtype.
      targets: ``[b, l, p]`` true patches, such as ``targets.normalize_patches(targets.patchify(images,
        patch=16))``.
      mask: ``[b, l]`` True (or 1.0) where the patch was hidden; floats weigh the patches.

    Returns:
      Scalar, float32 (float64 for float64 inputs); 0 when nothing is hidden. The gradient at visible patches
      is 0.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = jnp.array([[True, False]])
      >>> float(masked_mse(jnp.zeros((1, 2, 3)), jnp.array([[[2.0] * 3, [9.0] * 3]]), mask))
      4.0

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3. As in the
    authors' code the mean is over all hidden patches of the batch.
    """
    check.require(predictions.shape == targets.shape, "targets.shape", targets.shape, f"{predictions.shape}")
    check.require(mask.shape == predictions.shape[:2], "mask.shape", mask.shape, f"{predictions.shape[:2]}")
    error = numerics.at_least_float32(predictions) - numerics.at_least_float32(targets)
    patch_error = jnp.mean(error * error, axis=-1)
    weights = mask.astype(patch_error.dtype)
    total = jnp.sum(weights)
    return jnp.sum(weights * patch_error) / jnp.where(total > 0, total, 1.0)
