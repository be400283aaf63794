"""Losses of clustering methods: predict the cluster of an image from its crops (SwAV, DeepCluster-v2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, ScalarLike, Shaped

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array
from ssl_jax.losses.prototypes import crop_cross_entropy
from ssl_jax.ops.sinkhorn import sinkhorn


def balanced_codes(
    scores: Float[Array, "b g k"],
    queued: Float[Array, "l g k"] | None = None,
    *,
    use_queue: Shaped[Array, ""] | bool = True,
    epsilon: ScalarLike = 0.05,
    iterations: int = 3,
    hard: bool = False,
    log_domain: bool = True,
) -> Float[Array, "b g k"]:
    """Compute SwAV's codes: for each global crop, assignments of the batch that use the prototypes about equally.

    ``q = Sinkhorn(scores / ε)`` over the b images and the l earlier ones together, of which the rows of the batch are kept.

    Args:
      scores: ``[b, g, k]`` similarities of g global crops with k prototypes. Each crop is balanced by itself.
      queued: ``[l, g, k]`` the same of earlier images, which help a small batch to cover the prototypes; ``None``: none.
      use_queue: whether ``queued`` counts; may be traced.
      epsilon: ε > 0, low is sharp; may be traced.
      iterations: iterations of Sinkhorn, 1 or more.
      hard: the largest entry becomes 1, the others 0.
      log_domain: see :func:`ssl_jax.ops.sinkhorn.sinkhorn`.

    Returns:
      ``[b, g, k]``, float32 or wider, rows of sum 1. No gradient passes.

    Raises:
      ValueError: queued scores that do not fit, fewer than 1 iteration, an ε that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> codes = balanced_codes(jnp.array([[[1.0, 0.9]], [[1.0, 0.0]]]), iterations=50)
      >>> codes[:, 0].round(1).tolist()  # each alone would take the first
      [[0.0, 1.0], [1.0, 0.0]]

    Reference: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (SwAV), NeurIPS 2020,
    eqs. 3 to 5; facebookresearch/swav.
    """
    check.positive("epsilon", epsilon)
    scores = jax.lax.stop_gradient(numerics.at_least_float32(scores))
    count, every = scores.shape[0], scores
    weights = jnp.ones(count, scores.dtype)
    if queued is not None:
        expected = scores.shape[1:]
        check.require(
            queued.shape[1:] == expected, "queued.shape", queued.shape, f"[l, g, k] with g, k = {expected}"
        )
        every = jnp.concatenate([scores, jax.lax.stop_gradient(queued)])
        counts = jnp.broadcast_to(jnp.asarray(use_queue, scores.dtype), queued.shape[:1])
        weights = jnp.concatenate([weights, counts])

    def balance(crop: Array) -> Array:
        return sinkhorn(
            crop, temperature=epsilon, iterations=iterations, weights=weights, log_domain=log_domain
        )

    codes = jax.vmap(balance, 1, 1)(every)[:count]
    return jax.nn.one_hot(jnp.argmax(codes, axis=-1), codes.shape[-1], dtype=codes.dtype) if hard else codes


def swapped_prediction(
    scores: Float[Array, "b v k"], codes: Float[Array, "b g k"], *, temperature: ScalarLike = 0.1
) -> Float[Array, ""]:
    """Compute SwAV's loss: the code of each global crop is predicted from every other crop.

    With q = ``codes``, detached, and ``p_v = softmax(scores_v / temperature)``::

        loss = 1/g Σ_a 1/(v − 1) Σ_{v ≠ a}  mean over images of  −Σ_k q_a[k] log p_v[k]

    It is :func:`ssl_jax.losses.prototypes.crop_cross_entropy` under SwAV's names.

    Args:
      scores: ``[b, v, k]`` cosines of all crops with the prototypes; the first g crops are the global ones.
      codes: ``[b, g, k]`` of the global crops, see :func:`balanced_codes`.
      temperature: τ > 0; may be traced.

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs); ``log k`` when every p is uniform.

    Raises:
      ValueError: shapes that do not fit, no pair of different crops, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(swapped_prediction(jnp.zeros((3, 6, 8)), jnp.full((3, 2, 8), 1 / 8))), 4)  # log(8)
      2.0794

    Reference: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (SwAV), NeurIPS 2020,
    eqs. 1, 2 and 6; facebookresearch/swav.
    """
    expected = (scores.shape[0], codes.shape[1], scores.shape[2])
    check.require(codes.shape == expected, "codes.shape", codes.shape, f"{expected}, as the scores'")
    check.positive("temperature", temperature)
    return crop_cross_entropy(scores, codes, student_temperature=temperature)


def cluster_cross_entropy(
    scores: Float[Array, "h b v k"], labels: Int[Array, "h b"], *, temperature: ScalarLike = 0.1
) -> Float[Array, ""]:
    """Compute DeepCluster-v2's loss: all crops of an image are classified as its cluster, under several clusterings.

    ::

        loss = 1/h Σ_j  mean over images with y_j ≥ 0 and over crops of  −log softmax(scores_j / temperature)[y_j]

    A clustering under which no image of the batch has a label contributes 0.

    Args:
      scores: ``[h, b, v, k]`` cosines of the v crops with the k centroids of each clustering.
      labels: y, ``[h, b]``, 0 to k − 1; negative: the image has none and is ignored.
      temperature: τ > 0; may be traced.

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs); ``log k`` where all scores are alike.

    Raises:
      ValueError: shapes that do not fit, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> labels = jnp.array([[0, 7, -1]])
      >>> round(float(cluster_cross_entropy(jnp.zeros((1, 3, 4, 8)), labels)), 4)  # log(8)
      2.0794

    Reference: Caron et al. (SwAV), NeurIPS 2020, appendix on DeepCluster-v2; facebookresearch/swav, ``main_deepclusterv2.py``.
    Deviation: there a batch without any label gives NaN.
    """
    expected = scores.shape[:2]
    check.require(labels.shape == expected, "labels.shape", labels.shape, f"{expected}, as the scores'")
    check.positive("temperature", temperature)
    log_p = jax.nn.log_softmax(numerics.at_least_float32(scores) / temperature, axis=-1)
    clusters = jnp.maximum(labels, 0)[:, :, None, None]
    costs = -jnp.take_along_axis(log_p, clusters, axis=-1)[..., 0]
    known = labels >= 0
    images = jnp.sum(jnp.mean(costs, axis=2), axis=1, where=known)
    return jnp.mean(images / jnp.maximum(jnp.sum(known, axis=1), 1))
