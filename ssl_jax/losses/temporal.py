"""Losses of frames of clips: who is near in time, and who is not."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Key
from ssl_jax.losses.metric import distances


def time_masks(
    clips: Int[Array, " n"], times: Int[Array, " n"], *, near: ScalarLike, far: ScalarLike, across: bool
) -> tuple[Bool[Array, "n n"], Bool[Array, "n n"]]:
    """Tell which pairs of frames belong together and which do not; those in between count as neither.

    Args:
      clips: ``[n]`` clip of each frame.
      times: ``[n]`` its place in the clip.
      near: positives are other frames of the clip at \\|Δt\\| ≤ ``near``.
      far: negatives are frames of the clip at \\|Δt\\| > ``far``.
      across: all frames of other clips are negatives too.

    Returns:
      ``(positives, negatives)``.

    Example:
      >>> import jax.numpy as jnp
      >>> masks = time_masks(jnp.zeros(4, int), jnp.arange(4), near=1, far=2, across=False)
      >>> [mask[0].astype(int).tolist() for mask in masks]
      [[0, 1, 0, 0], [0, 0, 0, 1]]
    """
    same = clips[:, None] == clips[None, :]
    apart = jnp.abs(times[:, None] - times[None, :])
    positives = same & (apart <= near) & ~jnp.eye(clips.shape[0], dtype=bool)
    return positives, (same & (apart > far)) | (~same & across)


def semi_hard_triplet(
    x: Float[Array, "n d"],
    positives: Bool[Array, "n n"],
    negatives: Bool[Array, "n n"],
    *,
    margin: ScalarLike = 0.2,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the triplet loss with one negative a pair: the nearest one beyond the positive, or else the furthest.

    With D the squared distances of the unit rows, over all pairs (a, p) whose anchor has a negative::

        loss = mean of max(0, D_ap − D_an + margin)        n = argmin { D_an : D_an > D_ap },  or argmax D_an if there is none

    Args:
      x: ``[n, d]`` embeddings, any float dtype; rows are L2-normalised first.
      positives: ``[n, n]`` whether column j is a positive of anchor i.
      negatives: ``[n, n]`` whether column j is a negative of anchor i.
      margin: 0 or more, in units of D. May be traced.

    Returns:
      ``(loss, active)``: the loss is float32 (float64 for float64 inputs), ``margin`` when all rows agree, 0 without pairs;
      ``active`` is the share of the pairs that cost something.

    Raises:
      ValueError: a negative margin.

    Example:
      >>> import jax.numpy as jnp
      >>> from ssl_jax.losses.metric import pair_masks
      >>> loss, active = semi_hard_triplet(jnp.ones((4, 3)), *pair_masks(jnp.array([0, 0, 1, 1])), margin=0.2)
      >>> round(float(loss), 4), float(active)
      (0.2, 1.0)

    References: Schroff et al., "FaceNet", CVPR 2015, section 3.2; Sermanet et al., "Time-Contrastive Networks", ICRA 2018, as
    in ``tcn/estimators/svtcn_loss.py`` of tensorflow/models. :func:`ssl_jax.losses.metric.triplet` averages over all semi-hard
    negatives instead.
    """
    check.not_negative("margin", margin)
    pairwise = distances(normalize(x), squared=True)
    fixed = jax.lax.stop_gradient(pairwise)
    masked = jnp.where(negatives, fixed, jnp.inf)
    order = jnp.argsort(masked, axis=1)
    ordered = jnp.take_along_axis(masked, order, axis=1)
    count = jnp.sum(negatives, axis=1, keepdims=True)
    beyond = jax.vmap(lambda row, values: jnp.searchsorted(row, values, side="right"))(ordered, fixed)
    chosen = jnp.take_along_axis(order, jnp.minimum(beyond, jnp.maximum(count - 1, 0)), axis=1)
    costs = jax.nn.relu(pairwise - jnp.take_along_axis(pairwise, chosen, axis=1) + margin)
    pairs = positives & (count > 0)
    total = jnp.maximum(jnp.sum(pairs, dtype=costs.dtype), 1.0)
    return jnp.sum(costs, where=pairs) / total, jnp.sum(pairs & (costs > 0), dtype=costs.dtype) / total


def pair_info_nce(
    x: Float[Array, "n d"],
    positives: Bool[Array, "n n"],
    negatives: Bool[Array, "n n"],
    *,
    temperature: ScalarLike = 0.1,
) -> Float[Array, ""]:
    """Compute InfoNCE of each positive pair against the negatives of its anchor; other positives take no part.

    With the unit rows u and s_ij = u_i·u_j / τ, over all pairs (a, p) whose anchor has a negative::

        loss = mean of −log exp(s_ap) / (exp(s_ap) + Σ_n exp(s_an))

    Args:
      x: ``[n, d]`` embeddings, any float dtype, any norm.
      positives: ``[n, n]`` whether column j is a positive of anchor i.
      negatives: ``[n, n]`` whether column j is a negative of anchor i.
      temperature: τ > 0. May be traced.

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs): ``log(1 + K)`` for K negatives when all rows agree, 0 without pairs.

    Raises:
      ValueError: a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from ssl_jax.losses.metric import pair_masks
      >>> round(float(pair_info_nce(jnp.ones((4, 3)), *pair_masks(jnp.array([0, 0, 1, 1])))), 4)  # log(3)
      1.0986

    Reference: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equation 4.
    """
    check.positive("temperature", temperature)
    u = normalize(x)
    scores = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST) / temperature
    any_negative = jnp.any(negatives, axis=1, keepdims=True)
    # A row without negatives takes all, so that its logarithm and its gradient are finite; its pairs do not count.
    against = jax.nn.logsumexp(jnp.where(negatives | ~any_negative, scores, -jnp.inf), axis=1, keepdims=True)
    pairs = positives & any_negative
    total = jnp.sum(jax.nn.softplus(against - scores), where=pairs)
    return total / jnp.maximum(jnp.sum(pairs, dtype=scores.dtype), 1.0)


def ranking(
    key: Key,
    x: Float[Array, "n d"],
    partners: Int[Array, " n"],
    candidates: Bool[Array, "n n"],
    *,
    margin: ScalarLike = 1.0,
    negatives: int = 4,
    hard: int = 2,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the triplet loss on cosines with hard and random negatives.

    With ``D = 1 − cos``, p the partner of the anchor a, and N_a at most ``negatives`` of the candidates that violate the
    margin, ``D_ap − D_an + margin > 0``::

        loss = Σ_a Σ_{n in N_a} (D_ap − D_an + margin) / Σ_a min(negatives, #candidates of a)

    N_a: of the ``negatives`` candidates nearest to a, ``hard`` drawn at random; of all others as many as are missing.

    Args:
      key: PRNG key of the draws.
      x: ``[n, d]`` embeddings, any float dtype, any norm.
      partners: ``[n]`` row of each anchor's positive; -1: the row is no anchor.
      candidates: ``[n, n]`` whether column j may be a negative of anchor i.
      margin: 0 or more, in units of D. May be traced.
      negatives: number of negatives of an anchor, 1 or more.
      hard: number of them that are hard, 0 to ``negatives``.

    Returns:
      ``(loss, active)``: the loss is float32 (float64 for float64 inputs), ``margin`` when all rows agree; ``active``
      is the share of pairs of an anchor and a candidate that violate the margin.

    Raises:
      ValueError: counts or a margin out of their range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> other = ~jnp.repeat(jnp.repeat(jnp.eye(3, dtype=bool), 2, axis=0), 2, axis=1)
      >>> loss, _ = ranking(jax.random.key(0), jnp.ones((6, 2)), jnp.array([1, 0, 3, 2, 5, 4]), other, margin=0.5)
      >>> round(float(loss), 4)
      0.5

    Reference: Wang & Gupta, "Unsupervised Learning of Visual Representations using Videos", ICCV 2015;
    xiaolonw/caffe-video_triplet ``rank_hard_loss_layer.cpp``. Deviations: there the two patches of a track share the negatives
    of the first, here each row that has a partner is an anchor with negatives of its own; each row is
    L2-normalised; the divisor there does not know of anchors with few candidates.
    """
    check.not_negative("margin", margin)
    check.require(negatives >= 1, "negatives", negatives, "an integer of 1 or more")
    check.require(0 <= hard <= negatives, "hard", hard, f"an integer from 0 to the {negatives} negatives")
    u = normalize(x)
    pairwise = 1 - jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST)
    anchors = (partners >= 0)[:, None]
    costs = jnp.take_along_axis(pairwise, jnp.maximum(partners, 0)[:, None], axis=1) - pairwise + margin
    possible = candidates & anchors
    costly = possible & (jax.lax.stop_gradient(costs) > 0)
    hard_draw, random_draw = jax.random.uniform(key, (2, *pairwise.shape))
    pool = _first(jax.lax.stop_gradient(pairwise), costly, negatives)
    chosen = _first(hard_draw, pool, hard)
    chosen |= _first(random_draw, costly & ~chosen, negatives - hard)
    counts = jnp.sum(possible, axis=1, dtype=costs.dtype)
    total = jnp.maximum(jnp.sum(jnp.minimum(counts, negatives)), 1.0)
    share = jnp.sum(costly, dtype=costs.dtype) / jnp.maximum(jnp.sum(counts), 1.0)
    return jnp.sum(costs, where=chosen) / total, share


def _first(values: Array, among: Array, count: int) -> Array:
    """Which entries are among the ``count`` least of those marked in their row."""
    ranks = jnp.argsort(jnp.argsort(jnp.where(among, values, jnp.inf), axis=1), axis=1)
    return among & (ranks < count)
