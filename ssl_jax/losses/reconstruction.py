"""Reconstruction losses: predict what was hidden."""

import jax.numpy as jnp
from jaxtyping import Bool, Float, ScalarLike

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
    _check_masked(predictions, targets, mask)
    error = numerics.at_least_float32(predictions) - numerics.at_least_float32(targets)
    return masked_mean(jnp.mean(error * error, axis=-1), mask)


def masked_l1(
    predictions: Float[Array, "b l p"],
    targets: Float[Array, "b l p"],
    mask: Bool[Array, "b l"] | Float[Array, "b l"],
    *,
    epsilon: ScalarLike = 0.0,
) -> Float[Array, ""]:
    """Mean absolute error on the hidden patches only: SimMIM's loss.

    ``loss = Σ_il m_il 1/p Σ_p |predictions − targets| / (Σ_il m_il + ε)``

    Args:
      predictions: ``[b, l, p]`` predicted patches, any float dtype.
      targets: ``[b, l, p]`` true patches.
      mask: ``[b, l]`` True (or 1.0) where the patch was hidden; floats weigh the patches.
      epsilon: ε ≥ 0, added to the number of hidden patches. The authors' code adds 1e-5 to that of hidden pixels.

    Returns:
      Scalar, float32 (float64 for float64 inputs); 0 when nothing is hidden. The gradient at visible patches is 0.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = jnp.array([[True, False]])
      >>> float(masked_l1(jnp.zeros((1, 2, 3)), jnp.array([[[-2.0] * 3, [9.0] * 3]]), mask))
      2.0

    Reference: Xie et al., "SimMIM: a Simple Framework for Masked Image Modeling", CVPR 2022, equation 2; microsoft/SimMIM.
    """
    _check_masked(predictions, targets, mask)
    error = jnp.abs(numerics.at_least_float32(predictions) - numerics.at_least_float32(targets))
    return masked_mean(jnp.mean(error, axis=-1), mask, epsilon=epsilon)


def masked_smooth_l1(
    predictions: Float[Array, "b l p"],
    targets: Float[Array, "b l p"],
    mask: Bool[Array, "b l"] | Float[Array, "b l"],
    *,
    beta: ScalarLike = 1.0,
) -> Float[Array, ""]:
    """Mean smooth absolute error on the hidden patches only: I-JEPA's and data2vec's loss.

    Of a difference d: ``d² / (2β)`` where ``|d| < β``, else ``|d| − β/2``.

    Args:
      predictions: ``[b, l, p]``, any float dtype.
      targets: ``[b, l, p]``; the caller stops their gradient.
      mask: ``[b, l]`` True (or 1.0) where it counts; floats weigh the patches.
      beta: β > 0. May be traced.

    Returns:
      Scalar, float32 (float64 for float64 inputs); 0 when nothing counts.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = jnp.array([[True, True]])
      >>> float(masked_smooth_l1(jnp.zeros((1, 2, 1)), jnp.array([[[0.5], [3.0]]]), mask))  # (0.125 + 2.5) / 2
      1.3125

    References: Baevski et al., "data2vec", ICML 2022, section 3.4 (β 2 for images); facebookresearch/ijepa (β 1).
    """
    _check_masked(predictions, targets, mask)
    size = jnp.abs(numerics.at_least_float32(predictions) - numerics.at_least_float32(targets))
    error = jnp.where(size < beta, size**2 / (2 * beta), size - beta / 2)
    return masked_mean(jnp.mean(error, axis=-1), mask)


def masked_mean(
    values: Float[Array, "b l"],
    mask: Bool[Array, "b l"] | Float[Array, "b l"],
    *,
    epsilon: ScalarLike = 0.0,
) -> Float[Array, ""]:
    """Weighted mean over the whole batch, ``Σ m v / (Σ m + ε)``; 0 where no weight is.

    >>> import jax.numpy as jnp
    >>> float(masked_mean(jnp.array([[1.0, 5.0]]), jnp.array([[True, False]])))
    1.0
    """
    weights = mask.astype(values.dtype)
    total = jnp.sum(weights) + epsilon
    return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def _check_masked(predictions: Array, targets: Array, mask: Array) -> None:
    check.require(predictions.shape == targets.shape, "targets.shape", targets.shape, f"{predictions.shape}")
    check.require(mask.shape == predictions.shape[:2], "mask.shape", mask.shape, f"{predictions.shape[:2]}")
