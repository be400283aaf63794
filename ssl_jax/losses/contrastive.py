"""Contrastive losses: pick the positive among all candidates (NT-Xent, InfoNCE, DCL, hard negatives)."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array


def nt_xent(
    z1: Float[Array, "n d"],
    z2: Float[Array, "n d"],
    *,
    temperature: ScalarLike = 0.1,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Compute the normalised temperature-scaled cross entropy: each view finds its partner among the other 2n − 1 views.

    With the 2n unit rows ``u`` of ``z1`` and ``z2``, ``p(i)`` the row of the other view of the same image and
    τ = ``temperature``::

        loss = 1/(2n) Σ_i [ log Σ_{j≠i} exp(u_i·u_j / τ) − u_i·u_p(i) / τ ]

    Args:
      z1: ``[n, d]`` projections of the first views, any float dtype, any norm (rows are L2-normalised here).
      z2: ``[n, d]`` projections of the second views, row i from the same image as row i of ``z1``.
      temperature: τ > 0; may be traced, and is differentiated through.
      block_size: ``None`` forms the ``[2n, 2n]`` logits. An integer of 1 or more streams over blocks of that
        many candidates, forward and backward: no array exceeds ``2n × max(block_size, d)``, the value is the
        same to rounding, and the backward pass computes the logits again. The blockwise form has no
        forward-mode derivative.

    Returns:
      Mean over the 2n anchors, float32 (float64 for float64 inputs), in nats. ``log(2n − 1)`` when all rows
      agree.

    Raises:
      ValueError: shapes that differ, a block size below 1, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(nt_xent(jnp.ones((4, 3)), jnp.ones((4, 3)))), 4)  # log(7)
      1.9459

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML
    2020, eq. 1.
    Deviation: the authors' code adds the means of the two views' anchors, which is twice the paper's mean
    taken here.
    """
    _check_pair("z2", z2, "z1", z1)
    _check_options(temperature, block_size)
    views, positives = _both_views(z1, z2)
    scale = jnp.asarray(1 / temperature, views.dtype)
    return jnp.mean(_log_ratio(views, views, positives, scale, exclude=1, block_size=block_size))


def info_nce(
    queries: Float[Array, "n d"],
    keys: Float[Array, "n d"],
    negatives: Float[Array, "k d"] | None = None,
    *,
    temperature: ScalarLike = 0.07,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Compute InfoNCE: each query finds its key among negatives, which are a given set or the other rows' keys.

    With the unit rows q of ``queries``, k of ``keys`` and c of ``negatives``, and τ = ``temperature``::

        loss = 1/n Σ_i [ log Z_i − q_i·k_i / τ ]
        Z_i  = exp(q_i·k_i / τ) + Σ_j exp(q_i·c_j / τ)     with negatives (MoCo: 1 + k candidates)
        Z_i  = Σ_j exp(q_i·k_j / τ)                        without (cross-view: n candidates)

    Nothing is detached here: a method whose keys are targets passes ``jax.lax.stop_gradient(keys)``.

    Args:
      queries: ``[n, d]`` any float dtype, any norm (rows are L2-normalised here).
      keys: ``[n, d]``, row i is the positive of query i.
      negatives: ``[k, d]`` candidates shared by all queries, such as a queue, or ``None``.
      temperature: τ > 0; may be traced, and is differentiated through.
      block_size: ``None`` forms all logits. An integer of 1 or more streams over blocks of that many
        candidates, forward and backward, as in :func:`nt_xent`.

    Returns:
      Mean over the queries, float32 (float64 for float64 inputs), in nats: ``log(1 + k)`` or ``log n`` when
      all rows agree.

    Raises:
      ValueError: shapes that differ, a block size below 1, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> rows = jnp.eye(3)
      >>> round(float(info_nce(rows, rows, -rows[:1], temperature=1.0)), 4)
      0.2512

    References: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, eq.
    4; He et al., "Momentum Contrast", CVPR 2020, eq. 1 (with negatives). Deviation: MoCo v3 multiplies its
    cross-view form by 2τ and adds both directions; that is left to the method.
    """
    _check_pair("keys", keys, "queries", queries)
    _check_options(temperature, block_size)
    q, k = numerics.normalize(queries), numerics.normalize(keys)
    positives = jnp.sum(q * k, axis=1)
    scale = jnp.asarray(1 / temperature, q.dtype)
    if negatives is None:
        return jnp.mean(_log_ratio(q, k, positives, scale, exclude=0, block_size=block_size))
    allowed = f"[k, {queries.shape[1]}] with k of 1 or more"
    fits = negatives.ndim == 2 and negatives.shape[1] == queries.shape[1] and negatives.shape[0] > 0
    check.require(fits, "negatives.shape", negatives.shape, allowed)
    candidates = numerics.normalize(negatives)
    log_ratio = _log_ratio(q, candidates, positives, scale, exclude=0, block_size=block_size)
    return jnp.mean(jax.nn.softplus(log_ratio))  # log(1 + Σ): the positive is a candidate too, at margin 0


def predictive_coding(
    predictions: Float[Array, "n d"],
    candidates: Float[Array, "m d"],
    positives: Int[Array, " n"],
    *,
    temperature: ScalarLike = 1.0,
    normalize: bool = False,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Compute InfoNCE with a positive that is named: each prediction finds its row among candidates that all of them share.

    With the rows p of ``predictions`` and z of ``candidates``, ``y(i)`` = ``positives[i]`` and τ = ``temperature``::

        loss = 1/n Σ_i [ log Σ_j exp(p_i·z_j / τ) − p_i·z_y(i) / τ ]

    With ``p_i = W c_i`` of a context c this is contrastive predictive coding, whose ``exp(zᵀ W c)`` is a density ratio up to a
    factor. Several predictions may have the same positive, and a candidate need be nobody's.

    Args:
      predictions: ``[n, d]`` any float dtype.
      candidates: ``[m, d]``, the positives among them.
      positives: ``[n]`` rows of ``candidates``, 0 to m − 1.
      temperature: τ > 0; may be traced, and is differentiated through.
      normalize: scale the rows of both to length 1, so that scores are cosines.
      block_size: as in :func:`nt_xent`.

    Returns:
      Mean over the predictions, float32 (float64 for float64 inputs), in nats; ``log m`` when all candidates agree.

    Raises:
      ValueError: shapes that do not fit, a block size below 1, a temperature that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = predictive_coding(jnp.eye(2, 3), jnp.eye(3), jnp.array([0, 1]))
      >>> round(float(loss), 4)  # log(e + 2) - 1
      0.5514

    References: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equations 3 and 4;
    Hénaff et al., "Data-Efficient Image Recognition with Contrastive Predictive Coding", ICML 2020, section 2.1.
    """
    allowed = f"[m, {predictions.shape[-1]}] with m of 1 or more"
    fits = candidates.ndim == 2 and candidates.shape[1] == predictions.shape[-1] and candidates.shape[0] > 0
    check.require(fits, "candidates.shape", candidates.shape, allowed)
    check.require(
        predictions.ndim == 2 and positives.shape == predictions.shape[:1] and positives.shape[0] > 0,
        "positives.shape",
        positives.shape,
        "[n] for predictions [n, d] with n >= 1",
    )
    _check_options(temperature, block_size)
    scaled = numerics.normalize if normalize else numerics.at_least_float32
    p, z = scaled(predictions), scaled(candidates)
    scores = jnp.sum(p * z[positives], axis=1)
    scale = jnp.asarray(1 / temperature, p.dtype)
    return jnp.mean(_log_ratio(p, z, scores, scale, exclude=0, block_size=block_size))


def dcl(
    z1: Float[Array, "n d"],
    z2: Float[Array, "n d"],
    *,
    temperature: ScalarLike = 0.1,
    sigma: ScalarLike | None = None,
    detach_weights: bool = True,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Compute the decoupled contrastive loss: NT-Xent without the positive among the candidates; weighted: DCLW.

    With the 2n unit rows ``u`` of ``z1`` and ``z2``, ``p(i)`` the row of the other view of the same image and
    τ = ``temperature``::

        loss = 1/(2n) Σ_i [ log Σ_{j≠i,p(i)} exp(u_i·u_j / τ) − w_i u_i·u_p(i) / τ ]
        w_i  = 1                                                       without sigma (DCL)
        w_i  = 2 − n · softmax over images (u_i·u_p(i) / σ)            with σ = sigma (DCLW)

    The pull on a positive pair does not fade when the pair is found easily, as it does in NT-Xent. DCLW pulls
    more at pairs that disagree; its weights have the mean 1.

    Args:
      z1: ``[n, d]`` projections of the first views, n ≥ 2, any float dtype, any norm (rows are L2-normalised here).
      z2: ``[n, d]`` projections of the second views, row i from the same image as row i of ``z1``.
      temperature: τ > 0; may be traced, and is differentiated through.
      sigma: σ > 0 of the weights, 0.5 in the paper; ``None``: all weights are 1. May be traced.
      detach_weights: no gradient through the weights.
      block_size: as in :func:`nt_xent`.

    Returns:
      Mean over the 2n anchors, float32 (float64 for float64 inputs), in nats; not bounded below by 0. ``log(2n − 2)``
      when all rows agree.

    Raises:
      ValueError: shapes that differ, fewer than 2 rows, a block size below 1, τ or σ that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(dcl(jnp.ones((4, 3)), jnp.ones((4, 3)))), 4)  # log(6)
      1.7918

    Reference: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, equations 6 and 7. Deviation: of two public
    codes lightly's detaches the weights and takes the mean of both directions, as here; the other lets the gradient
    through (``detach_weights=False``) and adds the directions, which is twice this value.
    """
    _check_pair("z2", z2, "z1", z1)
    check.require(z1.shape[0] >= 2, "z1.shape", z1.shape, "[n, d] with n >= 2: one image has no negatives")
    _check_options(temperature, block_size)
    views, positives = _both_views(z1, z2)
    scale = jnp.asarray(1 / temperature, views.dtype)
    log_ratio = _log_ratio(views, views, positives, scale, exclude=2, block_size=block_size)
    if sigma is None:
        return jnp.mean(log_ratio)
    check.positive("sigma", sigma)
    # Each image stands twice among the positives, so n · softmax over images is 2n · softmax over these.
    excess = 1 - positives.shape[0] * jax.nn.softmax(positives / jnp.asarray(sigma, positives.dtype))
    excess = jax.lax.stop_gradient(excess) if detach_weights else excess
    return jnp.mean(log_ratio - excess * scale * positives)


def hard_negative(
    z1: Float[Array, "n d"],
    z2: Float[Array, "n d"],
    *,
    temperature: ScalarLike = 0.5,
    beta: ScalarLike = 1.0,
    tau_plus: ScalarLike = 0.1,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Compute the contrastive loss that weighs negatives by their hardness and corrects for false ones (HCL).

    With the 2n unit rows ``u`` of ``z1`` and ``z2``, ``p(i)`` the row of the other view of the same image, sums over
    the M = 2n − 2 rows j of other images, τ = ``temperature``, β = ``beta`` and τ⁺ = ``tau_plus``::

        loss  = 1/(2n) Σ_i log( 1 + N_i / e_i )       e_i = exp(u_i·u_p(i) / τ)
        N_i   = max( (R_i − τ⁺ M e_i) / (1 − τ⁺),  M exp(−1/τ) )
        R_i   = Σ_j w_ij exp(u_i·u_j / τ)             w_ij = exp(β u_i·u_j / τ) / mean_j exp(β u_i·u_j / τ)

    β = 0 is the debiased loss of Chuang et al. (2020); β = 0 and τ⁺ = 0 is :func:`nt_xent`. Gradients flow through
    the weights w. Where the bound on N_i is active (the correction would make it too small), its gradient is 0.

    Args:
      z1: ``[n, d]`` projections of the first views, n ≥ 2, any float dtype, any norm (rows are L2-normalised here).
      z2: ``[n, d]`` projections of the second views, row i from the same image as row i of ``z1``.
      temperature: τ > 0; may be traced.
      beta: β ≥ 0, the concentration on hard negatives; may be traced (annealed).
      tau_plus: 0 ≤ τ⁺ < 1, the probability that a negative is of the anchor's class; may be traced.
      block_size: as in :func:`nt_xent`.

    Returns:
      Mean over the 2n anchors, float32 (float64 for float64 inputs), in nats. ``log(2n − 1)`` when all rows agree.

    Raises:
      ValueError: shapes that differ, fewer than 2 rows, or an option out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(hard_negative(jnp.ones((4, 3)), jnp.ones((4, 3)), beta=2.0)), 4)  # log(7)
      1.9459

    Reference: Robinson et al., "Contrastive Learning with Hard Negative Samples", ICLR 2021, equation 4 and
    section 3.2. Deviation: the paper weighs by ``exp(β u_i·u_j)``, the official code, which we follow, by
    ``exp(β u_i·u_j / τ)``. Sums are taken in log-space, so a large β or a small τ does not overflow.
    """
    _check_pair("z2", z2, "z1", z1)
    check.require(z1.shape[0] >= 2, "z1.shape", z1.shape, "[n, d] with n >= 2: one image has no negatives")
    _check_options(temperature, block_size)
    check.not_negative("beta", beta)
    check.below_one("tau_plus", tau_plus)
    views, positives = _both_views(z1, z2)
    scale, beta, tau_plus = (jnp.asarray(x, views.dtype) for x in (1 / temperature, beta, tau_plus))
    scales = (1 + beta) * scale, beta * scale
    weighted, weights = _log_ratios(views, views, positives, scales, exclude=2, block_size=block_size)
    # log(R / (M e)), whose exponential may overflow, so that τ⁺ is taken from it by log1p.
    hardness = weighted - weights
    share = tau_plus * jnp.exp(-jnp.maximum(hardness, -80.0))
    left = share < 1
    debiased = hardness + jnp.log1p(-jnp.where(left, share, 0.0)) - jnp.log1p(-tau_plus)
    bound = -scale * (1 + positives)
    relative = jnp.maximum(jnp.where(left, debiased, -jnp.inf), bound)
    return jnp.mean(jax.nn.softplus(jnp.log(views.shape[0] - 2.0) + relative))


def _both_views(z1: Float[Array, "n d"], z2: Float[Array, "n d"]) -> tuple[Array, Array]:
    """Unit rows of both views, those of an image next to each other, and each row's product with its partner."""
    u1, u2 = numerics.normalize(z1), numerics.normalize(z2)
    # Stacked beside the batch axis: concatenating along a sharded one would move rows between devices.
    views = jnp.stack([u1, u2], axis=1).reshape(-1, z1.shape[1])
    return views, jnp.repeat(jnp.sum(u1 * u2, axis=1), 2)


def _check_pair(name: str, array: Array, other_name: str, other: Array) -> None:
    check.require(
        other.ndim == 2 and other.shape[0] > 0, f"{other_name}.shape", other.shape, "[n, d] with n >= 1"
    )
    check.require(
        array.shape == other.shape, f"{name}.shape", array.shape, f"that of {other_name}, {other.shape}"
    )


def _check_options(temperature: ScalarLike, block_size: int | None) -> None:
    check.positive("temperature", temperature)
    check.require(
        block_size is None or block_size >= 1, "block_size", block_size, "None or an integer of 1 or more"
    )


def _products(x: Array, y: Array) -> Array:
    # A TPU multiplies float32 as bfloat16 by default, which at τ = 0.07 moves a logit by 0.05.
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _same_image(rows: int, columns: Int[Array, " m"], exclude: int) -> Bool[Array, "n m"]:
    """Pairs that do not count: each row with itself (``exclude`` = 1), or with both views of its image (2)."""
    return (jnp.arange(rows) // exclude)[:, None] == (columns // exclude)[None, :]


# Logits are taken relative to the positive's before they are scaled and summed. Subtracted afterwards, a
# loss of 0.01 would be the difference of two numbers near 1/τ, and the gradient to τ that of two near 1/τ².


def _log_ratio(
    queries: Float[Array, "n d"],
    candidates: Float[Array, "m d"],
    positives: Float[Array, " n"],
    scale: Float[Array, ""],
    *,
    exclude: int,
    block_size: int | None,
) -> Float[Array, " n"]:
    """``log Σ_j exp(scale · (queries_i · candidates_j − positives_i))`` over the j not excluded."""
    (found,) = _log_ratios(queries, candidates, positives, (scale,), exclude=exclude, block_size=block_size)
    return found


def _log_ratios(
    queries: Float[Array, "n d"],
    candidates: Float[Array, "m d"],
    positives: Float[Array, " n"],
    scales: tuple[Float[Array, ""], ...],
    *,
    exclude: int,
    block_size: int | None,
) -> list[Float[Array, " n"]]:
    """:func:`_log_ratio` at several scales, from one product: on a mesh the candidates are gathered once."""
    if block_size is not None:
        size = min(block_size, candidates.shape[0])
        return [_blockwise(queries, candidates, positives, scale, size, exclude) for scale in scales]
    margins = _products(queries, candidates.T) - positives[:, None]
    excluded = jnp.bool_(False)
    if exclude:
        excluded = _same_image(margins.shape[0], jnp.arange(margins.shape[1]), exclude)
    return [jax.nn.logsumexp(jnp.where(excluded, -jnp.inf, scale * margins), axis=1) for scale in scales]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _blockwise(
    queries: Float[Array, "n d"],
    candidates: Float[Array, "m d"],
    positives: Float[Array, " n"],
    scale: Float[Array, ""],
    block_size: int,
    exclude: int,
) -> Float[Array, " n"]:
    """The same as the dense form by a streaming log-sum-exp: a running maximum and a sum scaled by it."""

    def step(carry: tuple[Array, Array], block: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        maximum, total = carry
        margins, masked = _margins(queries, positives, *block, candidates.shape[0], exclude)
        logits = jnp.where(masked, -jnp.inf, scale * margins)
        larger = jnp.maximum(maximum, jnp.max(logits, axis=1))
        total = total * jnp.exp(maximum - larger) + jnp.sum(jnp.exp(logits - larger[:, None]), axis=1)
        return (larger, total), None

    # The lowest finite number, not −inf: a block in which all is masked would give −inf − (−inf).
    start = jnp.full_like(positives, jnp.finfo(positives.dtype).min), jnp.zeros_like(positives)
    (maximum, total), _ = jax.lax.scan(step, start, _blocks(candidates, block_size))
    return maximum + jnp.log(total)


def _blockwise_forward(
    queries: Array, candidates: Array, positives: Array, scale: Array, block_size: int, exclude: int
) -> tuple[Array, tuple[Array, ...]]:
    log_ratio = _blockwise(queries, candidates, positives, scale, block_size, exclude)
    return log_ratio, (queries, candidates, positives, scale, log_ratio)


def _blockwise_backward(
    block_size: int, exclude: int, residuals: tuple[Array, ...], cotangent: Array
) -> tuple[Array, Array, Array, Array]:
    """The gradient to the logits is the softmax, computed again block by block from the result itself."""
    queries, candidates, positives, scale, log_ratio = residuals
    size = candidates.shape[0]

    def step(carry: tuple[Array, Array], block: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        query_gradient, scale_gradient = carry
        margins, masked = _margins(queries, positives, *block, size, exclude)
        probabilities = jnp.where(masked, 0.0, jnp.exp(scale * margins - log_ratio[:, None]))
        weights = probabilities * cotangent[:, None]
        carry = query_gradient + _products(weights, block[0]), scale_gradient + jnp.sum(weights * margins)
        return carry, _products(weights.T, queries)

    start = jnp.zeros_like(queries), jnp.zeros_like(scale)
    carry, block_gradients = jax.lax.scan(step, start, _blocks(candidates, block_size))
    query_gradient, scale_gradient = carry
    candidate_gradient = block_gradients.reshape(-1, candidates.shape[1])[:size]
    return scale * query_gradient, scale * candidate_gradient, -scale * cotangent, scale_gradient


_blockwise.defvjp(_blockwise_forward, _blockwise_backward)


def _blocks(
    candidates: Float[Array, "m d"], block_size: int
) -> tuple[Float[Array, "blocks size d"], Int[Array, " blocks"]]:
    """Candidates in equal blocks, the last one padded, with the index of each block's first row."""
    size, features = candidates.shape
    count = -(-size // block_size)
    padded = jnp.pad(candidates, ((0, count * block_size - size), (0, 0)))
    return padded.reshape(count, block_size, features), jnp.arange(count) * block_size


def _margins(
    queries: Float[Array, "n d"],
    positives: Float[Array, " n"],
    block: Float[Array, "size d"],
    first: Int[Array, ""],
    candidates: int,
    exclude: int,
) -> tuple[Float[Array, "n size"], Bool[Array, "#n size"]]:
    """Similarities to a block relative to the positive's, and which do not count: padding and what is excluded."""
    columns = first + jnp.arange(block.shape[0])
    masked = (columns >= candidates)[None, :]
    if exclude:
        masked = masked | _same_image(queries.shape[0], columns, exclude)
    return _products(queries, block.T) - positives[:, None], masked
