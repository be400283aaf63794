"""Self-distillation losses: a student predicts what a teacher says of another view (SimSiam, BYOL, DINO)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array
from ssl_jax.losses.prototypes import crop_cross_entropy


def negative_cosine(p: Float[Array, "n d"], z: Float[Array, "n d"]) -> Float[Array, ""]:
    """Compute the negative mean cosine similarity, ``−1/n Σ_i cos(p_i, z_i)``.

    Nothing is detached here: SimSiam passes ``jax.lax.stop_gradient(z)`` and averages the two directions.

    Args:
      p: ``[n, d]`` predictions, any float dtype, any norm.
      z: ``[n, d]`` projections of the other view, row by row.

    Returns:
      Scalar in [−1, 1], float32 (float64 for float64 inputs). A row of zeros counts as cosine 0.

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(negative_cosine(jnp.eye(2), 3 * jnp.eye(2)))
      -1.0

    Reference: Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021, eq. 1.
    """
    check.require(p.shape == z.shape, "z.shape", z.shape, f"that of p, {p.shape}")
    return -jnp.mean(numerics.cosine_similarity(p, z))


def softmax_similarity(p: Float[Array, "n d"], z: Float[Array, "n d"]) -> Float[Array, ""]:
    """Compute the cross entropy of softmaxes, ``−1/n Σ_i softmax(z_i)·log softmax(p_i)``: SimSiam's other similarity.

    The d entries stand for as many pseudo-categories. Nothing is detached here, as in :func:`negative_cosine`.

    Args:
      p: ``[n, d]`` predictions, any float dtype.
      z: ``[n, d]`` projections of the other view, row by row.

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs): at least the mean entropy of softmax(z), its value at p = z;
      ``log d`` where p is constant along d.

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(softmax_similarity(jnp.zeros((2, 8)), 3 * jnp.eye(2, 8))), 4)  # log(8)
      2.0794

    Reference: Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 4.5.
    """
    check.require(p.shape == z.shape, "z.shape", z.shape, f"that of p, {p.shape}")
    targets = jax.nn.softmax(numerics.at_least_float32(z), axis=-1)
    log_predictions = jax.nn.log_softmax(numerics.at_least_float32(p), axis=-1)
    return -jnp.mean(jnp.sum(targets * log_predictions, axis=-1))


def byol_loss(p: Float[Array, "n d"], z: Float[Array, "n d"]) -> Float[Array, ""]:
    """Compute BYOL's loss in one direction: mean squared distance of unit vectors, ``2 − 2/n Σ_i cos(p_i, z_i)``.

    Nothing is detached here: ``z`` comes from the target network, to which the method takes no gradient. The
    method **adds** the two directions, for a range of [0, 8].

    Args:
      p: ``[n, d]`` predictions of the online network, any float dtype, any norm.
      z: ``[n, d]`` projections of the other view by the target network.

    Returns:
      Scalar in [0, 4], float32 (float64 for float64 inputs).

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(byol_loss(jnp.eye(2), -jnp.eye(2)))
      4.0

    Reference: Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, eq. 2.
    """
    return 2.0 + 2.0 * negative_cosine(p, z)


def mean_shift(p: Float[Array, "n d"], neighbors: Float[Array, "n k d"]) -> Float[Array, ""]:
    """Compute MeanShift's loss: mean squared distance of unit vectors to k neighbours, ``2 − 2/(n k) Σ_ij cos(p_i, c_ij)``.

    With one neighbour it is :func:`byol_loss`. Nothing is detached here: the neighbours come from a bank.

    Args:
      p: ``[n, d]`` predictions of the online network, any float dtype, any norm.
      neighbors: c, ``[n, k, d]``, the neighbours of each target, any norm.

    Returns:
      Scalar in [0, 4], float32 (float64 for float64 inputs). No p brings it to 0 unless its k neighbours agree.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> float(mean_shift(jnp.eye(2), jnp.stack([jnp.eye(2), -jnp.eye(2)], axis=1)))
      2.0

    Reference: Koohpayegani et al., "Mean Shift for Self-Supervised Learning", ICCV 2021, section 3.
    """
    fits = neighbors.ndim == 3 and neighbors.shape[::2] == p.shape and neighbors.shape[1] > 0
    check.require(
        fits, "neighbors.shape", neighbors.shape, f"[n, k, d] with n, d = {p.shape} and k of 1 or more"
    )
    return 2.0 - 2.0 * jnp.mean(numerics.cosine_similarity(p[:, None], neighbors))


def dino_loss(
    student: Float[Array, "b v k"],
    teacher: Float[Array, "b g k"],
    center: Float[Array, " k"],
    *,
    student_temperature: ScalarLike = 0.1,
    teacher_temperature: ScalarLike = 0.04,
) -> Float[Array, ""]:
    """Compute the cross entropy from the centred, sharpened teacher to the student, over all pairs of different crops.

    With ``P_g = softmax((teacher_g − center) / teacher_temperature)``, detached, and
    ``Q_v = softmax(student_v / student_temperature)``::

        loss = mean over images and the g (v − 1) pairs g ≠ v of  −Σ_k P_g[k] log Q_v[k]

    Args:
      student: ``[b, v, k]`` prototype logits of all crops. Its first g crops are the teacher's g crops, same
        order.
      teacher: ``[b, g, k]`` prototype logits of the global crops.
      center: ``[k]`` running mean of the teacher's raw logits, as it was before this batch.
      student_temperature: above 0; may be traced.
      teacher_temperature: above 0, lower means sharper; may be traced (a schedule's value).

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs). ``log k`` when both are uniform; no gradient
      reaches ``teacher`` or ``center``.

    Raises:
      ValueError: shapes that do not fit, no pair of different crops, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(dino_loss(jnp.zeros((3, 6, 8)), jnp.zeros((3, 2, 8)), jnp.zeros(8))), 4)  # log(8)
      2.0794

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, eqs. 1,
    3 and 4.
    """
    expected = (student.shape[0], teacher.shape[1], student.shape[2])
    check.require(
        teacher.shape == expected, "teacher.shape", teacher.shape, f"{expected}, to fit the student's"
    )
    check.require(center.shape == student.shape[2:], "center.shape", center.shape, f"{student.shape[2:]}")
    targets = jnp.exp(teacher_log_probabilities(teacher, center, teacher_temperature))
    return crop_cross_entropy(student, targets, student_temperature=student_temperature)


def teacher_log_probabilities(
    teacher: Float[Array, "*batch k"], center: Float[Array, " k"], temperature: ScalarLike
) -> Float[Array, "*batch k"]:
    """Compute the centred and sharpened teacher distributions, ``log softmax((teacher − center) / temperature)``.

    Args:
      teacher: ``[..., k]`` prototype logits, any float dtype.
      center: ``[k]`` what is subtracted, against collapse to one prototype.
      temperature: above 0; low is sharp, against collapse to the uniform distribution.

    Returns:
      ``[..., k]`` logarithms of probabilities, float32 (float64 for float64 inputs).

    Raises:
      ValueError: a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> jnp.exp(teacher_log_probabilities(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]), 0.04)).tolist()
      [0.5, 0.5]

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, section
    3.1.
    """
    check.positive("temperature", temperature)
    centered = numerics.at_least_float32(teacher) - center
    return jax.nn.log_softmax(centered / temperature, axis=-1)


def teacher_entropy(log_probabilities: Float[Array, "*batch k"]) -> Float[Array, ""]:
    """Compute the mean entropy of the teacher's distributions, in nats; a health metric, no loss.

    0 means that every image got one prototype with certainty, ``log k`` that the teacher says nothing.

    Args:
      log_probabilities: ``[..., k]`` as :func:`teacher_log_probabilities` returns them.

    Returns:
      Scalar in [0, log k].

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(teacher_entropy(jnp.log(jnp.full((5, 4), 0.25)))), 4)
      1.3863

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, fig. 7.
    """
    return jnp.mean(numerics.entropy(log_probabilities))


def divergence_from_uniform(log_probabilities: Float[Array, "*batch k"]) -> Float[Array, ""]:
    """Compute how unevenly a batch uses the prototypes, ``KL(mean_i P_i ‖ uniform) = log k − H(mean_i P_i)``.

    A health metric, no loss: 0 when all prototypes are used alike, ``log k`` when one takes every image.

    Args:
      log_probabilities: ``[..., k]`` as :func:`teacher_log_probabilities` returns them.

    Returns:
      Scalar in [0, log k], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> confident_and_even = jnp.log(jnp.eye(4) + 1e-30)
      >>> round(float(divergence_from_uniform(confident_and_even)), 4)
      0.0

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, section
    5.3.
    """
    log_probabilities = numerics.at_least_float32(log_probabilities)
    flat = log_probabilities.reshape(-1, log_probabilities.shape[-1])
    log_mean = jax.nn.logsumexp(flat, axis=0) - jnp.log(flat.shape[0])
    return jnp.log(flat.shape[1]) - numerics.entropy(log_mean)


def usage(log_probabilities: Float[Array, "*batch k"]) -> Float[Array, ""]:
    """Compute the share of the prototypes, or of a queue's entries, that a batch makes use of.

    ``exp(H(mean_i P_i)) / k``: the perplexity of the mean distribution over k. A health metric, no loss.

    Args:
      log_probabilities: ``[..., k]`` logarithms of distributions over prototypes or queue entries.

    Returns:
      Scalar in [1/k, 1]: 1 when all are used alike, 1/k when one takes every image.

    Example:
      >>> import jax.numpy as jnp
      >>> float(usage(jnp.log(jnp.array([[0.5, 0.5, 0.0, 0.0]]) + 1e-30)))
      0.5

    Reference: codebook perplexity, as van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017,
    report it in their code.
    """
    return jnp.exp(-divergence_from_uniform(log_probabilities))


def softened_kl(
    student: Float[Array, "n k"],
    teacher: Float[Array, "n k"],
    *,
    student_temperature: ScalarLike = 1.0,
    teacher_temperature: ScalarLike = 1.0,
) -> Float[Array, ""]:
    """Compute the divergence of the student's softened distribution from the teacher's, scaled as Hinton et al. do.

    With ``P = softmax(teacher / τ_t)``, detached, and ``Q = softmax(student / τ_s)``::

        loss = τ_s² · 1/n Σ_i Σ_k P_ik log( P_ik / Q_ik )

    The factor keeps the gradient, ``τ_s (Q − P)``, from falling as 1/τ_s² when temperatures are high. The logits may
    be of classes or, where there are no labels, similarities with other images.

    Args:
      student: ``[n, k]`` logits, any float dtype.
      teacher: ``[n, k]`` logits of the same rows.
      student_temperature: τ_s > 0; may be traced.
      teacher_temperature: τ_t > 0; may be traced. Hinton et al. have one temperature for both.

    Returns:
      Scalar ≥ 0, float32 (float64 for float64 inputs); 0 where the distributions agree. No gradient reaches ``teacher``.

    Raises:
      ValueError: shapes that differ, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> sure = jnp.array([[50.0, 0.0, 0.0, 0.0]])
      >>> round(float(softened_kl(jnp.zeros((1, 4)), sure)), 4)  # log(4)
      1.3863

    References: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2. Over similarities: Fang
    et al., "SEED", ICLR 2021, eq. 5; Koohpayegani et al., "CompRess", NeurIPS 2020, section 3. They take the cross entropy or
    the divergence without the factor.
    """
    check.require(teacher.shape == student.shape, "teacher.shape", teacher.shape, f"{student.shape}")
    check.positive("student_temperature", student_temperature)
    check.positive("teacher_temperature", teacher_temperature)
    fixed = jax.lax.stop_gradient(numerics.at_least_float32(teacher)) / teacher_temperature
    log_p = jax.nn.log_softmax(fixed, axis=-1)
    log_q = jax.nn.log_softmax(numerics.at_least_float32(student) / student_temperature, axis=-1)
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    return jnp.mean(divergence) * student_temperature**2


def feature_mse(student: Float[Array, "n d"], teacher: Float[Array, "n d"]) -> Float[Array, ""]:
    """Compute the mean squared difference of features, ``1/(n d) Σ_i ‖s_i − t_i‖²``, with the teacher's t detached.

    Args:
      student: ``[n, d]`` predictions s, any float dtype.
      teacher: ``[n, d]`` features t of the same rows.

    Returns:
      Scalar ≥ 0, float32 (float64 for float64 inputs).

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(feature_mse(jnp.zeros((3, 4)), 2 * jnp.ones((3, 4))))
      4.0

    Reference: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, eq. 3 (which sums over d and halves).
    """
    check.require(teacher.shape == student.shape, "teacher.shape", teacher.shape, f"{student.shape}")
    fixed = jax.lax.stop_gradient(numerics.at_least_float32(teacher))
    return jnp.mean((numerics.at_least_float32(student) - fixed) ** 2)
