"""Bags of visual words: local features to words, words to a bag, and the prediction of a bag (BoWNet, OBoW)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array

POOLS = ("max", "sum")
KINDS = ("kl", "cross_entropy")
LEAST_SCALE = 1e-12
"""Least μ of :func:`soft_assign`."""


def crop_border(maps: Float[Array, "b h w c"], border: int) -> Float[Array, "b h2 w2 c"]:
    """Remove the outermost ``border`` locations on each side of maps, where features come from padding.

    Args:
      maps: ``[b, h, w, c]`` any dtype.
      border: 0 or more; h and w are larger than twice that.

    Returns:
      ``[b, h − 2·border, w − 2·border, c]``.

    Raises:
      ValueError: a negative border, or one that leaves nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> crop_border(jnp.zeros((2, 7, 5, 3)), 1).shape
      (2, 5, 3, 3)

    Reference: Gidaris et al., "OBoW", CVPR 2021, section 4 (implementation details); valeoai/obow.
    """
    side = min(maps.shape[1:3])
    allowed = f"an integer of 0 or more that leaves something of maps of {maps.shape[1:3]}"
    check.require(0 <= 2 * border < side, "border", border, allowed)
    return maps[:, border : maps.shape[1] - border, border : maps.shape[2] - border]


def local_average(maps: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Average all windows of 3 x 3 neighbouring locations, none of which leaves the map.

    Args:
      maps: ``[b, h, w, c]``, h and w of 3 or more, any float dtype.

    Returns:
      ``[b, h − 2, w − 2, c]`` in the dtype of ``maps``.

    Raises:
      ValueError: maps smaller than the window.

    Example:
      >>> import jax.numpy as jnp
      >>> local_average(jnp.arange(12.0).reshape(1, 3, 4, 1)).ravel().tolist()
      [5.0, 6.0]

    Reference: Gidaris et al., "OBoW", CVPR 2021, section 3 (what enters the vocabulary); valeoai/obow, which pads nothing.
    """
    fits = min(maps.shape[1:3]) >= 3
    check.require(fits, "maps.shape", maps.shape, "[b, h, w, c] with h and w of 3 or more")
    height, width = maps.shape[1] - 2, maps.shape[2] - 2
    wide = numerics.at_least_float32(maps)
    shifted = [wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return (sum(shifted[1:], shifted[0]) / 9).astype(maps.dtype)


def distances_to_words(
    features: Float[Array, "*batch c"], words: Float[Array, "k c"]
) -> Float[Array, "*batch k"]:
    """Compute the squared Euclidean distances of local features to visual words, ``d²_uk = ‖f_u − v_k‖²``.

    Args:
      features: ``[..., c]`` local features f, any float dtype, not normalised.
      words: ``[k, c]`` the vocabulary v.

    Returns:
      ``[..., k]`` 0 or more, float32 (float64 for float64 inputs). From one product, ``‖f‖² − 2 f·v + ‖v‖²``,
      around the words' mean, where that is good to 1 % for every pair; else from the differences themselves, slower and
      good to rounding: where a word equals a feature or is far from all others.

    Raises:
      ValueError: words of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> distances_to_words(jnp.array([[3.0, 4.0]]), jnp.eye(2)).tolist()
      [[20.0, 18.0]]

    Reference: Gidaris et al., "Learning Representations by Predicting Bags of Visual Words", CVPR 2020, section 3; "OBoW",
    CVPR 2021, section 3.
    """
    fits = words.ndim == 2 and words.shape[1] == features.shape[-1]
    check.require(fits, "words.shape", words.shape, f"[k, {features.shape[-1]}], as long as the features")
    features, words = numerics.at_least_float32(features), numerics.at_least_float32(words)
    # Moving the origin changes no distance; near the words the squared norms are small and fewer digits cancel.
    origin = jnp.mean(words, axis=0)
    features, words = features - origin, words - origin
    products = jnp.matmul(features, words.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(features**2, axis=-1, keepdims=True) + jnp.sum(words**2, axis=1)
    squares = norms - 2 * products
    noise = 8 * jnp.finfo(norms.dtype).eps * norms

    def from_differences() -> Array:
        flat = features.reshape(-1, features.shape[-1])
        return numerics.squared_distances(flat, words).reshape(squares.shape)

    return jax.lax.cond(jnp.all(noise <= 0.01 * squares), lambda: squares, from_differences)


def soft_assign(
    distances: Float[Array, "*batch k"], scale: ScalarLike, *, inverse_delta: ScalarLike = 15.0
) -> Float[Array, "*batch k"]:
    """Assign local features softly to words, ``q_uk = softmax_k(−d²_uk δ⁻¹ / μ)``.

    μ keeps the softness as features grow or shrink: OBoW takes a running mean of each location's least distance.

    Args:
      distances: ``[..., k]`` squared distances d².
      scale: μ > 0, in units of d²; may be traced. Below 10⁻¹² it counts as that: where all features are words the mean of the
        least distances is 0, and the assignment is hard, shared alike by words that are equally near.
      inverse_delta: δ⁻¹ > 0; may be traced. High is sharp: towards :func:`hard_assign`.

    Returns:
      ``[..., k]`` of sum 1 over words, float32 (float64 for float64 inputs).

    Raises:
      ValueError: a scale or inverse_delta that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> soft_assign(jnp.array([1.0, 1.0, 900.0]), 2.0).tolist()
      [0.5, 0.5, 0.0]

    Reference: Gidaris et al., "OBoW", CVPR 2021, section 3; the official config has δ⁻¹ 15 for ResNet-50 and 10 for ResNet-18.
    """
    check.positive("scale", scale)
    check.positive("inverse_delta", inverse_delta)
    distances = numerics.at_least_float32(distances)
    # Relative to the nearest word, so that a quotient that overflows is that of a word without a share.
    nearest = jax.lax.stop_gradient(jnp.min(distances, axis=-1, keepdims=True))
    softness = jnp.maximum(jnp.asarray(scale, distances.dtype), LEAST_SCALE)
    return jax.nn.softmax((nearest - distances) / softness * inverse_delta, axis=-1)


def hard_assign(distances: Float[Array, "*batch k"]) -> Float[Array, "*batch k"]:
    """Assign local features to their nearest word, ``q_uk = 1`` for ``k = argmin_j d²_uj``, else 0.

    Args:
      distances: ``[..., k]`` squared distances d².

    Returns:
      ``[..., k]`` one-hot, float32 (float64 for float64 inputs); of equally near words the first.

    Example:
      >>> import jax.numpy as jnp
      >>> hard_assign(jnp.array([[2.0, 1.0, 1.0]])).tolist()
      [[0.0, 1.0, 0.0]]

    Reference: Gidaris et al., "Learning Representations by Predicting Bags of Visual Words", CVPR 2020, section 3.
    """
    distances = numerics.at_least_float32(distances)
    return jax.nn.one_hot(jnp.argmin(distances, axis=-1), distances.shape[-1], dtype=distances.dtype)


def bag_of_words(codes: Float[Array, "b *locations k"], *, pool: str = "max") -> Float[Array, "b k"]:
    """Compute the bag of visual words of each image: assignments pooled over its locations, then divided by their sum.

    ``y_k = p_k / Σ_j p_j`` with ``p_k = max_u q_uk`` or ``Σ_u q_uk``. Of hard assignments ``"sum"`` counts the words and
    ``"max"`` says which are there.

    Args:
      codes: ``[b, ..., k]`` assignments q, 0 or more and of sum 1 over words, such as ``[b, h, w, k]``.
      pool: ``"max"`` or ``"sum"``.

    Returns:
      ``[b, k]`` of sum 1, float32 (float64 for float64 inputs); zeros for an image all of whose assignments are 0.

    Raises:
      ValueError: an unknown pool, or codes without locations.

    Example:
      >>> import jax.numpy as jnp
      >>> codes = jnp.eye(4)[jnp.array([[0, 0, 0, 3]])]
      >>> bag_of_words(codes).tolist(), bag_of_words(codes, pool="sum").tolist()
      ([[0.5, 0.0, 0.0, 0.5]], [[0.75, 0.0, 0.0, 0.25]])

    Reference: Gidaris et al., "OBoW", CVPR 2021, section 3 (max); "Learning Representations by Predicting Bags of Visual
    Words", CVPR 2020, section 3 (counts, presence).
    """
    check.choice("pool", pool, POOLS)
    check.require(
        codes.ndim >= 3, "codes.shape", codes.shape, "[b, ..., k] with one axis of locations or more"
    )
    axes = tuple(range(1, codes.ndim - 1))
    pooled = (jnp.max if pool == "max" else jnp.sum)(numerics.at_least_float32(codes), axis=axes)
    total = jnp.sum(pooled, axis=1, keepdims=True)
    return pooled / jnp.where(total > 0, total, 1.0)


def word_logits(
    features: Float[Array, "*batch d"], weights: Float[Array, "k d"], scale: ScalarLike
) -> Float[Array, "*batch k"]:
    """Compute the logits of words, ``scale · f·w_k / ‖w_k‖``: a linear layer of unit rows and one magnitude, without bias.

    Only the direction of a row counts, which is normalised here at every call: no word can gain by a longer row. Gradients
    reach all three. Features are not normalised.

    Args:
      features: ``[..., d]`` f, any float dtype.
      weights: ``[k, d]`` w: parameters (BoWNet), or made of the vocabulary by a network (OBoW).
      scale: the magnitude: BoWNet's γ, which is trained, or OBoW's κ, which is fixed; may be traced.

    Returns:
      ``[..., k]`` float32 (float64 for float64 inputs); a row of zeros gives 0.

    Raises:
      ValueError: weights of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> word_logits(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 0.0], [0.0, 0.5]]), 5.0).tolist()
      [[5.0, 10.0]]

    Reference: Gidaris et al., "Learning Representations by Predicting Bags of Visual Words", CVPR 2020, section 3; "OBoW", CVPR
    2021, section 3.
    """
    fits = weights.ndim == 2 and weights.shape[1] == features.shape[-1]
    check.require(fits, "weights.shape", weights.shape, f"[k, {features.shape[-1]}], as long as the features")
    features = numerics.at_least_float32(features)
    products = jnp.matmul(features, numerics.normalize(weights).T, precision=jax.lax.Precision.HIGHEST)
    return products * scale


def bow_loss(
    logits: Float[Array, "b v k"], bags: Float[Array, " b #v k"], *, kind: str = "kl"
) -> Float[Array, ""]:
    """Compute how well the words of an image are predicted from its crops.

    With y the bag, detached, and ``Ω = softmax(logits)``, a mean over images and crops of::

        cross_entropy   −Σ_k y_k log Ω_k
        kl              Σ_k y_k log(y_k / Ω_k), the same less the entropy of y, a constant: the same gradient

    Args:
      logits: ``[b, v, k]`` of v crops of each image, any float dtype.
      bags: ``[b, 1, k]``, or ``[b, v, k]`` where crops have bags of their own (CutMix); 0 or more and of sum 1.
      kind: ``"kl"`` or ``"cross_entropy"``.

    Returns:
      Scalar in nats, float32 (float64 for float64 inputs). ``log k``, less the entropy for ``"kl"``, where the prediction is
      uniform. No gradient reaches ``bags``.

    Raises:
      ValueError: shapes that do not fit, an unknown kind.

    Example:
      >>> import jax.numpy as jnp
      >>> bags = jnp.full((3, 1, 8), 1 / 8)
      >>> round(float(bow_loss(jnp.zeros((3, 2, 8)), bags, kind="cross_entropy")), 4)  # log(8)
      2.0794

    Reference: Gidaris et al., "Learning Representations by Predicting Bags of Visual Words", CVPR 2020, section 3 (cross
    entropy); "OBoW", CVPR 2021, section 3, of which valeoai/obow reports the divergence.
    """
    b, v, k = logits.shape
    check.require(
        bags.shape in ((b, 1, k), (b, v, k)), "bags.shape", bags.shape, f"{(b, 1, k)} or {(b, v, k)}"
    )
    check.choice("kind", kind, KINDS)
    log_predictions = jax.nn.log_softmax(numerics.at_least_float32(logits), axis=-1)
    bags = jax.lax.stop_gradient(numerics.at_least_float32(bags))
    terms = -bags * log_predictions
    if kind == "kl":
        # Word by word, so that the difference of two nearly equal sums is never taken.
        terms -= numerics.entropy_terms(bags)
    return jnp.mean(jnp.sum(terms, axis=-1))


def perplexities(bags: Float[Array, "n k"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute how many words a batch and an image use: exponentials of entropies; health metrics, no losses.

    ``batch = exp H(mean_i y_i)`` and ``image = mean_i exp H(y_i)`` with ``H(y) = −Σ_k y_k log y_k``. A vocabulary is healthy
    where the batch uses far more words than an image does.

    Args:
      bags: ``[n, k]`` y, 0 or more and of sum 1.

    Returns:
      ``(batch, image)``, scalars in [1, k]. ``batch`` is 1 when one word takes everything, ``image`` is k when every image has
      all words alike.

    Example:
      >>> import jax.numpy as jnp
      >>> batch, image = perplexities(jnp.eye(4))
      >>> float(batch.round(4)), float(image)
      (4.0, 1.0)

    Reference: valeoai/obow, which logs both.
    """
    bags = numerics.at_least_float32(bags)
    batch = jnp.exp(jnp.sum(numerics.entropy_terms(jnp.mean(bags, axis=0))))
    return batch, jnp.mean(jnp.exp(jnp.sum(numerics.entropy_terms(bags), axis=1)))
