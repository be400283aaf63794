"""Reconstruction losses: predict what was masked."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


def masked_mse(
    predictions: Float[Array, "b l p"],
    targets: Float[Array, "b l p"],
    mask: Bool[Array, "b l"] | Float[Array, "b l"],
) -> Float[Array, ""]:
    """Compute the mean squared error on the masked patches only.

    With the error of one patch ``e_il = 1/p Σ_p (predictions − targets)²`` and m = ``mask``::

        loss = Σ_il m_il e_il / Σ_il m_il

    Args:
      predictions: ``[b, l, p]`` predicted patches, any float dtype.
      targets: ``[b, l, p]`` true patches, such as ``targets.normalize_patches(targets.patchify(images,
        patch=16))``.
      mask: ``[b, l]`` True (or 1.0) where the patch was masked; floats weigh the patches.

    Returns:
      Scalar, float32 (float64 for float64 inputs); 0 when nothing is masked. The gradient at visible patches
      is 0.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = jnp.array([[True, False]])
      >>> float(masked_mse(jnp.zeros((1, 2, 3)), jnp.array([[[2.0] * 3, [9.0] * 3]]), mask))
      4.0

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3. As in the
    authors' code the mean is over all masked patches of the batch.
    """
    _check_masked(predictions, targets, mask)
    error = numerics.at_least_float32(predictions) - numerics.at_least_float32(targets)
    return masked_mean(jnp.mean(error * error, axis=-1), mask)


def weighted_mse(
    predictions: Float[Array, "*b"], targets: Float[Array, "*b"], weights: Float[Array, "*b"]
) -> Float[Array, ""]:
    """Compute the mean over all numbers of weighted squared errors, ``1/n Σ_i w_i (predictions_i − targets_i)²``.

    Args:
      predictions: any shape and float dtype.
      targets: true numbers, of the same shape.
      weights: weights of the same shape, 0 or more. They are not normalised: twice the weights are twice the loss.

    Returns:
      Scalar, float32 (float64 for float64 inputs).

    Example:
      >>> import jax.numpy as jnp
      >>> float(weighted_mse(jnp.array([1.0, 0.0]), jnp.array([3.0, 1.0]), jnp.array([1.0, 10.0])))  # (4 + 10) / 2
      7.0

    References: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010, section 3.3 (emphasis); Pathak et al., "Context
    Encoders", CVPR 2016, section 3.2 and pathak22/context-encoder ``train.lua`` (the overlap).
    """
    error = numerics.at_least_float32(predictions) - numerics.at_least_float32(targets)
    return jnp.mean(weights * error * error)


def weighted_cross_entropy(
    logits: Float[Array, "*b"], targets: Float[Array, "*b"], weights: Float[Array, "*b"]
) -> Float[Array, ""]:
    """Compute the mean over all numbers of weighted cross-entropies of independent bits with given probabilities.

    ``1/n Σ_i −w_i (x_i log σ(l_i) + (1 − x_i) log (1 − σ(l_i)))``, computed as ``w_i (log(1 + e^l_i) − x_i l_i)``

    Args:
      logits: l, any shape and float dtype; the reconstruction is σ(l).
      targets: x of the same shape, in [0, 1].
      weights: w of the same shape, 0 or more; not normalised.

    Returns:
      Scalar, float32 (float64 for float64 inputs); at least the mean entropy of the targets, where all weights are 1.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(weighted_cross_entropy(jnp.zeros(2), jnp.array([0.0, 0.3]), jnp.ones(2))), 6)  # log 2
      0.693147

    Reference: Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders", ICML 2008, equation 2.
    """
    logits, targets = (numerics.at_least_float32(x) for x in (logits, targets))
    return jnp.mean(weights * (jax.nn.softplus(logits) - targets * logits))


def masked_l1(
    predictions: Float[Array, "b l p"],
    targets: Float[Array, "b l p"],
    mask: Bool[Array, "b l"] | Float[Array, "b l"],
    *,
    epsilon: ScalarLike = 0.0,
) -> Float[Array, ""]:
    """Compute the mean absolute error on the masked patches only: SimMIM's loss.

    ``loss = Σ_il m_il 1/p Σ_p |predictions − targets| / (Σ_il m_il + ε)``

    Args:
      predictions: ``[b, l, p]`` predicted patches, any float dtype.
      targets: ``[b, l, p]`` true patches.
      mask: ``[b, l]`` True (or 1.0) where the patch was masked; floats weigh the patches.
      epsilon: ε ≥ 0, added to the number of masked patches. The authors' code adds 1e-5 to that of masked pixels.

    Returns:
      Scalar, float32 (float64 for float64 inputs); 0 when nothing is masked. The gradient at visible patches is 0.

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
    """Compute the mean smooth absolute error on the masked patches only: I-JEPA's and data2vec's loss.

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
    difference = numerics.at_least_float32(predictions) - numerics.at_least_float32(targets)
    return masked_mean(jnp.mean(smooth_l1(difference, beta=beta), axis=-1), mask)


def smooth_l1(difference: Float[Array, "*b"], *, beta: ScalarLike = 1.0) -> Float[Array, "*b"]:
    """Compute of each difference d ``d² / (2β)`` where ``|d| < β``, else ``|d| − β/2``.

    >>> import jax.numpy as jnp
    >>> smooth_l1(jnp.array([0.5, -3.0])).tolist()
    [0.125, 2.5]
    """
    check.positive("beta", beta)
    size = jnp.abs(numerics.at_least_float32(difference))
    return jnp.where(size < beta, size**2 / (2 * beta), size - beta / 2)


def masked_mean(
    values: Float[Array, "b l"],
    mask: Bool[Array, "b l"] | Float[Array, "b l"],
    *,
    epsilon: ScalarLike = 0.0,
) -> Float[Array, ""]:
    """Compute the weighted mean over the whole batch, ``Σ m v / (Σ m + ε)``; 0 where no weight is.

    >>> import jax.numpy as jnp
    >>> float(masked_mean(jnp.array([[1.0, 5.0]]), jnp.array([[True, False]])))
    1.0
    """
    check.not_negative("epsilon", epsilon)
    values = numerics.at_least_float32(values)
    weights = mask.astype(values.dtype)
    total = jnp.sum(weights) + epsilon
    return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def _check_masked(predictions: Array, targets: Array, mask: Array) -> None:
    check.require(predictions.shape == targets.shape, "targets.shape", targets.shape, f"{predictions.shape}")
    check.require(mask.shape == predictions.shape[:2], "mask.shape", mask.shape, f"{predictions.shape[:2]}")
