"""Metric learning: distances within a batch, the contrastive loss with a margin, triplets, SupCon.

Who belongs with whom is given as masks of pairs, so the same losses serve views of one image and images of one class.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array

REDUCTIONS = ("mean", "nonzero")
Rule = Callable[[Array, ScalarLike], Bool[Array, "..."]]
# Which triplets count, by d(a, n) − d(a, p) and the margin.
RULES: dict[str, Rule] = {
    "all": lambda gap, margin: jnp.ones_like(gap, bool),
    "semi_hard": lambda gap, margin: (gap > 0) & (gap <= margin),
    "hard": lambda gap, margin: gap <= 0,
}
MINING = (*RULES, "batch_hard")


def distances(x: Float[Array, "n d"], *, p: int = 2, squared: bool = False) -> Float[Array, "n n"]:
    """Compute the distances between all rows, ``D_ij = (Σ_k |x_ik − x_jk|^p)^(1/p)``, with a finite gradient at 0.

    It comes from the differences themselves: good to rounding for near duplicates and beside a row that is far from
    all others; equal rows are at distance 0 exactly. Rows go in blocks, backward too: no array of n·n·d numbers is held.

    Args:
      x: ``[n, d]`` any float dtype; taken as it is, not normalised.
      p: the norm, an integer of 1 or more: 1 city blocks, 2 Euclid.
      squared: return ``D²``.

    Returns:
      ``[n, n]`` symmetric, 0 on the diagonal, float32 (float64 for float64 inputs). Where a distance is 0, so is
      its gradient (the plain formula has NaN).

    Raises:
      ValueError: no rows, or p below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> distances(jnp.array([[0.0, 0.0], [3.0, 4.0]]), p=1).tolist()
      [[0.0, 7.0], [7.0, 0.0]]
    """
    check.require(x.ndim == 2 and x.shape[0] > 0, "x.shape", x.shape, "[n, d] with n >= 1")
    check.require(p >= 1, "p", p, "an integer of 1 or more")
    powers = numerics.sums_of_powers(x, x, p)
    if squared and p == 2:
        return powers
    equal = powers == 0
    roots = jnp.where(equal, 0.0, jnp.where(equal, 1.0, powers) ** (1 / p))
    return roots**2 if squared else roots


def pair_masks(ids: Int[Array, " n"]) -> tuple[Bool[Array, "n n"], Bool[Array, "n n"]]:
    """Tell which pairs of rows belong together and which do not.

    Args:
      ids: ``[n]`` class of each row: labels, or the number of the image that a view shows.

    Returns:
      ``(positives, negatives)``: other rows of the same id, and rows of other ids. No row is its own positive.

    Example:
      >>> import jax.numpy as jnp
      >>> positives, negatives = pair_masks(jnp.array([5, 7, 5]))
      >>> positives.astype(int).tolist(), negatives.astype(int).tolist()
      ([[0, 0, 1], [0, 0, 0], [1, 0, 0]], [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    """
    same = ids[:, None] == ids[None, :]
    return same & ~jnp.eye(ids.shape[0], dtype=bool), ~same


def label_ids(labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """Turn labels into ids: an image without a label (below 0) is a class of its own.

    >>> import jax.numpy as jnp
    >>> label_ids(jnp.array([3, -1, 3, -1])).tolist()
    [3, -2, 3, -4]
    """
    return jnp.where(labels >= 0, labels, -1 - jnp.arange(labels.shape[0], dtype=labels.dtype))


def contrastive_margin(
    x: Float[Array, "n d"],
    positives: Bool[Array, "n n"],
    negatives: Bool[Array, "n n"],
    *,
    margin: ScalarLike = 1.0,
    positive_margin: ScalarLike = 0.0,
    power: int = 2,
    reduction: str = "mean",
    normalize: bool = True,
    p: int = 2,
    squared: bool = False,
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
    """Compute the contrastive loss: positives attract, negatives repel until they are a margin apart.

    With D the :func:`distances` of the rows, h⁺ = max(0, D − ``positive_margin``), h⁻ = max(0, ``margin`` − D) and
    q = ``power``::

        loss = mean over positives of (h⁺)^q / q  +  mean over negatives of (h⁻)^q / q

    q = 2 is the paper's form with its halves, q = 1 the linear one of newer libraries. The two groups are averaged
    each by itself: of 2n views there are n pairs that attract and about 2n² that repel.

    Args:
      x: ``[n, d]`` embeddings, any float dtype.
      positives: ``[n, n]`` pairs that attract, such as :func:`pair_masks` gives. A pair may stand there once or in
        both orders.
      negatives: ``[n, n]`` pairs that repel.
      margin: above 0, in units of D; unit vectors are at most 2 apart (4 where ``squared``). May be traced.
      positive_margin: 0 or more; positives nearer than this cost nothing. May be traced.
      power: q, 1 or 2.
      reduction: ``"mean"`` over all pairs of a group, or ``"nonzero"``: over those that cost something.
      normalize: rows are L2-normalised first. Without it the loss depends on the scale of the embeddings.
      p: order of the distance.
      squared: D is the squared distance. On unit vectors ``D = 2 − 2 cos``, so the margin is one on the cosine.

    Returns:
      ``(loss, (active positives, active negatives))``: the loss is float32 (float64 for float64 inputs), the others
      are the shares of pairs that cost something, in [0, 1]. A group without pairs costs 0. When all rows agree the
      loss is ``margin^q / q``.

    Raises:
      ValueError: masks that do not fit, a margin out of range, another power or reduction.

    Example:
      >>> import jax.numpy as jnp
      >>> masks = pair_masks(jnp.array([0, 0, 1, 1]))
      >>> loss, (_, repelling) = contrastive_margin(jnp.ones((4, 3)), *masks, margin=1.0, power=1)
      >>> float(loss), float(repelling)
      (1.0, 1.0)

    Reference: Hadsell, Chopra & LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006,
    section 2.1.
    Deviation: the paper's rows are not normalised (``normalize=False``) and it sums over pairs. Averaging over the
    costly pairs with power 1 is the default of pytorch-metric-learning.
    """
    _check_masks(x, positives, negatives)
    check.positive("margin", margin)
    check.not_negative("positive_margin", positive_margin)
    check.choice("power", power, (1, 2))
    check.choice("reduction", reduction, REDUCTIONS)
    pairwise = _distances(x, normalize, p, squared)
    near, far = jax.nn.relu(pairwise - positive_margin), jax.nn.relu(margin - pairwise)
    attraction, active_positives = _mean(near**power / power, positives, reduction)
    repulsion, active_negatives = _mean(far**power / power, negatives, reduction)
    return attraction + repulsion, (active_positives, active_negatives)


def _mean(terms: Array, mask: Array, reduction: str) -> tuple[Array, Array]:
    """Mean of the masked terms, or of those of them that are not 0, and the share that is not 0."""
    total = jnp.sum(terms, where=mask)
    count, nonzero = jnp.sum(mask, dtype=terms.dtype), jnp.sum(mask & (terms > 0), dtype=terms.dtype)
    share = nonzero / jnp.maximum(count, 1.0)
    return total / jnp.maximum(count if reduction == "mean" else nonzero, 1.0), share


def triplet(
    x: Float[Array, "n d"],
    positives: Bool[Array, "n n"],
    negatives: Bool[Array, "n n"],
    *,
    margin: ScalarLike = 0.2,
    soft: bool = False,
    mining: str = "all",
    reduction: str = "mean",
    normalize: bool = True,
    p: int = 2,
    squared: bool = False,
    swap: bool = False,
    max_positives: int | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the triplet loss: an anchor is nearer to its positive than to any negative, by a margin.

    With D the :func:`distances` of the rows, over triplets of an anchor a, a positive p and a negative n::

        loss = mean of max(0, D_ap − D_an + margin)          or, soft, of log(1 + exp(D_ap − D_an + margin))

    ``mining`` says which triplets count:

    * ``"all"``: every triplet;
    * ``"semi_hard"``: those with ``0 < D_an − D_ap ≤ margin``: in the right order, but too close;
    * ``"hard"``: those with ``D_an ≤ D_ap``: in the wrong order;
    * ``"batch_hard"``: one for each anchor, of its furthest positive and its nearest negative.

    Mining moves no gradient: it chooses, and the gradient passes through the distances chosen. An anchor without a
    positive or without a negative takes no part. All but ``"batch_hard"`` go through the positives of all anchors one by
    one, forward and backward: memory n², time ``n² · max_positives``.

    Args:
      x: ``[n, d]`` embeddings, any float dtype.
      positives: ``[n, n]`` whether column j is a positive of anchor i, such as :func:`pair_masks` gives.
      negatives: ``[n, n]`` whether column j is a negative of anchor i.
      margin: 0 or more, in units of D. May be traced.
      soft: softplus in place of the hinge, which never stops pulling; the paper's has margin 0.
      mining: as above.
      reduction: ``"mean"`` over the mined triplets, or ``"nonzero"``: over those of them that cost something.
      normalize: rows are L2-normalised first.
      p: order of the distance.
      squared: D is the squared distance. Its gradient fades as the distance does, that of the plain one does not.
      swap: the loss takes ``min(D_an, D_pn)`` for ``D_an``; mining still looks at ``D_an``.
      max_positives: positives of an anchor that are looked at, the first so many; ``None``: all, in time n³. 1 loses nothing
        where the only positive is the other view. ``"batch_hard"`` looks at all.

    Returns:
      ``(loss, active)``: the loss is float32 (float64 for float64 inputs), 0 where nothing is mined. ``active`` is the
      share of all triplets (of all anchors for ``"batch_hard"``) that are mined and violate the margin. When all rows
      agree the loss is ``margin``, soft ``log(1 + exp(margin))``; ``"semi_hard"`` then finds nothing: 0.

    Raises:
      ValueError: masks that do not fit, a negative margin, another mining or reduction, no positives to look at.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss, active = triplet(x, *pair_masks(jnp.array([0, 0, 1])), margin=1.0)
      >>> float(loss), float(active)
      (0.0, 0.0)

    Reference: Schroff et al., "FaceNet", CVPR 2015, eq. 2 and section 3.2 (squared distances of unit vectors, margin
    0.2, semi-hard); Hermans et al., "In Defense of the Triplet Loss", 2017, eqs. 5 and 6 (``"batch_hard"``, soft,
    and averaging over costly triplets); Balntas et al., BMVC 2016 (``swap``).
    Deviation: FaceNet takes one semi-hard negative for each pair, here all of them count, as in
    pytorch-metric-learning's miner.
    """
    _check_masks(x, positives, negatives)
    check.not_negative("margin", margin)
    check.choice("mining", mining, MINING)
    check.require(
        max_positives is None or max_positives >= 1, "max_positives", max_positives, "None or 1 or more"
    )
    check.choice("reduction", reduction, REDUCTIONS)
    pairwise = _distances(x, normalize, p, squared)
    if mining == "batch_hard":
        mined, excess = _batch_hard(pairwise, positives, negatives, swap)
        sums = _sums(excess + margin, mined, soft)
        candidates = sums[1]
    else:
        count = x.shape[0] if max_positives is None else min(max_positives, x.shape[0])
        sums = _over_positives(pairwise, positives, negatives, margin, RULES[mining], soft, swap, count)
        counts = [jnp.sum(mask, axis=1, dtype=pairwise.dtype) for mask in (positives, negatives)]
        candidates = jnp.sum(jnp.minimum(counts[0], count) * counts[1])
    total, mined_count, nonzero, active = sums
    divisor = mined_count if reduction == "mean" else nonzero
    return total / jnp.maximum(divisor, 1.0), active / jnp.maximum(candidates, 1.0)


def _sums(excess: Array, mined: Array, soft: bool) -> tuple[Array, ...]:
    """Of D_ap − D_an + margin: the loss, how many are mined, cost something and violate the margin."""
    terms = jax.nn.softplus(excess) if soft else jax.nn.relu(excess)
    # Counted in floats: n³ outgrows int32 at n = 1291.
    counts = [jnp.sum(mined & more, dtype=terms.dtype) for more in (True, terms > 0, excess > 0)]
    return jnp.sum(terms, where=mined), counts[0], counts[1], counts[2]


def _over_positives(
    pairwise: Float[Array, "n n"],
    positives: Bool[Array, "n n"],
    negatives: Bool[Array, "n n"],
    margin: ScalarLike,
    rule: Rule,
    soft: bool,
    swap: bool,
    count: int,
) -> tuple[Array, ...]:
    # The first `count` positives of each anchor: of equal entries top_k takes the earlier.
    given, columns = numerics.top_k(positives.astype(pairwise.dtype), count)

    @jax.checkpoint
    def one(nth: tuple[Array, Array]) -> tuple[Array, ...]:
        is_given, column = nth
        to_positive = jnp.take_along_axis(pairwise, column[:, None], axis=1)
        mined = (is_given > 0)[:, None] & negatives & rule(pairwise - to_positive, margin)
        nearest = jnp.minimum(pairwise, pairwise[column]) if swap else pairwise
        return _sums(to_positive - nearest + margin, mined, soft)

    return tuple(jnp.sum(part) for part in jax.lax.map(one, (given.T, columns.T)))


def _batch_hard(
    pairwise: Float[Array, "n n"], positives: Bool[Array, "n n"], negatives: Bool[Array, "n n"], swap: bool
) -> tuple[Bool[Array, " n"], Float[Array, " n"]]:
    """Anchors that have both, and D_ap − D_an of their hardest pair."""
    fixed = jax.lax.stop_gradient(pairwise)
    positive = jnp.argmax(jnp.where(positives, fixed, -jnp.inf), axis=1)
    negative = jnp.argmin(jnp.where(negatives, fixed, jnp.inf), axis=1)
    to_positive = jnp.take_along_axis(pairwise, positive[:, None], axis=1)[:, 0]
    to_negative = jnp.take_along_axis(pairwise, negative[:, None], axis=1)[:, 0]
    if swap:
        to_negative = jnp.minimum(to_negative, pairwise[positive, negative])
    return jnp.any(positives, axis=1) & jnp.any(negatives, axis=1), to_positive - to_negative


def sup_con(
    x: Float[Array, "n d"], positives: Bool[Array, "n n"], *, temperature: ScalarLike = 0.1
) -> Float[Array, ""]:
    """Compute the supervised contrastive loss: NT-Xent with any number of positives for each anchor.

    With the unit rows u of ``x``, P(i) the positives of i, A the anchors that have one, τ = ``temperature``::

        loss = 1/|A| Σ_{i in A} 1/|P(i)| Σ_{j in P(i)} [ log Σ_{k≠i} exp(u_i·u_k / τ) − u_i·u_j / τ ]

    Args:
      x: ``[n, d]`` embeddings, any float dtype, any norm; n is 2 or more.
      positives: ``[n, n]`` whether column j is a positive of anchor i; the diagonal is not read.
      temperature: τ > 0; may be traced.

    Returns:
      Mean over the anchors that have a positive, float32 (float64 for float64 inputs), in nats: ``log(n − 1)`` when
      all rows agree, 0 where no anchor has a positive. With one positive, the other view, it is NT-Xent.

    Raises:
      ValueError: a mask that does not fit, fewer than two rows, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> positives, _ = pair_masks(jnp.array([0, 0, 1, 1]))
      >>> round(float(sup_con(jnp.ones((4, 3)), positives)), 4)  # log(3)
      1.0986

    Reference: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2 (L_out).
    Deviation: the authors' code multiplies by τ / 0.07, which only scales the learning rate.
    """
    _check_masks(x, positives, positives)
    check.require(x.shape[0] >= 2, "x.shape", x.shape, "[n, d] with n >= 2")
    check.positive("temperature", temperature)
    u = numerics.normalize(x)
    logits = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST) / temperature
    oneself = jnp.eye(x.shape[0], dtype=bool)
    positives = positives & ~oneself
    partition = jax.nn.logsumexp(jnp.where(oneself, -jnp.inf, logits), axis=1)
    count = jnp.sum(positives, axis=1, dtype=logits.dtype)
    mean = jnp.sum(logits, axis=1, where=positives) / jnp.maximum(count, 1.0)
    anchors = count > 0
    return jnp.sum(partition - mean, where=anchors) / jnp.maximum(jnp.sum(anchors, dtype=logits.dtype), 1.0)


def _distances(x: Array, normalize: bool, p: int, squared: bool) -> Array:
    return distances(numerics.normalize(x) if normalize else x, p=p, squared=squared)


def _check_masks(x: Array, positives: Array, negatives: Array) -> None:
    check.require(x.ndim == 2 and x.shape[0] > 0, "x.shape", x.shape, "[n, d] with n >= 1")
    square = (x.shape[0],) * 2
    for name, mask in (("positives", positives), ("negatives", negatives)):
        check.require(mask.shape == square, f"{name}.shape", mask.shape, f"{square}, a row for each of x")
