"""Cross entropies from a teacher's distributions over prototypes to a student's logits: crops against crops, patches
against patches (DINO, iBOT, DINOv2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


def crop_cross_entropy(
    student: Float[Array, "b v k"], targets: Float[Array, "b g k"], *, student_temperature: ScalarLike = 0.1
) -> Float[Array, ""]:
    """Compute the mean cross entropy from the teacher's distribution of a crop to the student's of another one.

    With P = ``targets``, detached, and ``Q_v = softmax(student_v / student_temperature)``::

        loss = mean over images and the g (v − 1) pairs g ≠ v of  −Σ_k P_g[k] log Q_v[k]

    Args:
      student: ``[b, v, k]`` prototype logits of all crops. Its first g crops are the teacher's, same order.
      targets: ``[b, g, k]`` distributions over the prototypes, however they were made (centred, balanced).
      student_temperature: above 0; may be traced.

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs). No gradient reaches ``targets``.

    Raises:
      ValueError: shapes that do not fit, no pair of different crops, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(crop_cross_entropy(jnp.zeros((3, 6, 8)), jnp.full((3, 2, 8), 1 / 8))), 4)  # log(8)
      2.0794

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, eq. 3. DINOv2's
    weights, 1/(2 + 2n) a pair with n local crops, are this mean.
    """
    views, global_views = student.shape[1], targets.shape[1]
    expected = (student.shape[0], global_views, student.shape[2])
    check.require(targets.shape == expected, "targets.shape", targets.shape, f"{expected}, as the student's")
    allowed = "student >= 2, teacher <= student"
    check.require(1 <= global_views <= views > 1, "views", (views, global_views), allowed)
    check.positive("student_temperature", student_temperature)
    log_predictions = jax.nn.log_softmax(numerics.at_least_float32(student) / student_temperature, axis=-1)
    fixed, exact = jax.lax.stop_gradient(targets), jax.lax.Precision.HIGHEST
    cross_entropies = -jnp.einsum("bgk,bvk->bgv", fixed, log_predictions, precision=exact)
    different = ~jnp.eye(global_views, views, dtype=bool)
    return jnp.sum(jnp.mean(cross_entropies, axis=0), where=different) / (global_views * (views - 1))


def patch_cross_entropy(
    student: Float[Array, "*crops m k"],
    targets: Float[Array, "*crops m k"],
    masked: Bool[Array, "*crops m"],
    *,
    student_temperature: ScalarLike = 0.1,
) -> Float[Array, ""]:
    """Compute the cross entropy from the teacher's distribution of a patch to the student's, who saw it masked.

    With P = ``targets``, detached, and ``Q = softmax(student / student_temperature)``::

        loss = mean over crops c of  1/max(#masked_c, 1) · Σ_{masked patches i of c} −Σ_k P_ci[k] log Q_ci[k]

    A crop without masked patches contributes 0 and counts in the mean.

    Args:
      student: ``[..., m, k]`` prototype logits of all patches, or of some among which the masked ones are.
      targets: ``[..., m, k]`` the teacher's distributions of the same patches, seen unhidden.
      masked: ``[..., m]`` True = masked.
      student_temperature: above 0; may be traced.

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs). No gradient reaches ``targets``, nor the student's logits of patches
      that were not masked.

    Raises:
      ValueError: shapes that do not fit, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> masked = jnp.array([[True, True, False], [False, False, False]])
      >>> loss = patch_cross_entropy(jnp.zeros((2, 3, 8)), jnp.full((2, 3, 8), 1 / 8), masked)
      >>> round(float(loss), 4)  # log(8) / 2: nothing is masked in the second crop
      1.0397

    Reference: Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022, eq. 2; bytedance/ibot, where
    the mean is over each crop's masked patches first (the paper sums over them).
    """
    check.require(targets.shape == student.shape, "targets.shape", targets.shape, f"{student.shape}")
    check.require(masked.shape == student.shape[:-1], "masked.shape", masked.shape, f"{student.shape[:-1]}")
    check.positive("student_temperature", student_temperature)
    log_predictions = jax.nn.log_softmax(numerics.at_least_float32(student) / student_temperature, axis=-1)
    cross_entropies = -jnp.sum(jax.lax.stop_gradient(targets) * log_predictions, axis=-1)
    count = jnp.maximum(jnp.sum(masked, axis=-1), 1)
    return jnp.mean(jnp.sum(cross_entropies, axis=-1, where=masked) / count)
