"""Telling data from noise: noise-contrastive estimation, negative sampling, and the choice of one among many.

All take scores of the positive ``[n]`` and of k negatives each ``[n, k]``: logarithms of unnormalised probabilities,
such as ``cos / τ``.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key

UNITS = {"nats": 1.0, "bits": 0.6931471805599453}


def nce(
    positives: Float[Array, " n"],
    negatives: Float[Array, "n k"],
    *,
    log_normalizer: ScalarLike,
    noise: ScalarLike,
) -> Float[Array, ""]:
    """Compute the loss of noise-contrastive estimation: is a candidate the data's, or one of k drawn from a known noise?

    With the model ``s = exp(score) / Z``, log Z = ``log_normalizer`` and P = ``noise``, the probability of a candidate
    under the noise::

        loss = −1/n Σ_i [ log s⁺_i / (s⁺_i + k P)  +  Σ_j log k P / (s⁻_ij + k P) ]

    It is computed from ``score − log Z − log(k P)`` by softplus, so that no exponential overflows.

    Args:
      positives: ``[n]`` scores of the right candidates, any float dtype.
      negatives: ``[n, k]`` scores of candidates drawn from the noise, with replacement.
      log_normalizer: log Z, a constant; NPID estimates Z once, as m times the mean of exp(score) over its m images.
      noise: P in (0, 1]; 1/m for m images drawn uniformly. May be traced.

    Returns:
      Mean over the n queries, float32 (float64 for float64 inputs), in nats. Where the model agrees with the noise,
      ``s = P`` everywhere, it is ``log(1 + k) + k log(1 + 1/k)``: nearly ``log k + 1``.

    Raises:
      ValueError: shapes that do not fit, or a noise outside (0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> loss = nce(jnp.zeros(2), jnp.zeros((2, 4)), log_normalizer=jnp.log(100.0), noise=0.01)
      >>> round(float(loss), 4)  # log(5) + 4 log(5/4)
      2.502

    Reference: Gutmann & Hyvärinen, "Noise-Contrastive Estimation", AISTATS 2010; Wu et al., "Unsupervised Feature
    Learning via Non-Parametric Instance Discrimination", CVPR 2018, eqs. 5 to 8. Deviation: the code in vissl adds a small ε
    to each denominator, which the logarithmic form does not need.
    """
    _check_scores(positives, negatives)
    check.require_number("noise", noise, lambda share: 0 < share <= 1, "a probability in (0, 1]")
    offset = log_normalizer + jnp.log(negatives.shape[1] * noise)
    positives, negatives = (numerics.at_least_float32(x) - offset for x in (positives, negatives))
    return negative_sampling(positives, negatives)


def negative_sampling(positives: Float[Array, " n"], negatives: Float[Array, "n k"]) -> Float[Array, ""]:
    """Compute the loss of negative sampling: logistic regression of the positive against k negatives, without a noise model.

    ``loss = −1/n Σ_i [ log σ(score⁺_i) + Σ_j log σ(−score⁻_ij) ]`` with σ the logistic function; in word2vec a score is
    the product of two embeddings. :func:`nce` is the same after ``log Z + log(k P)`` is taken from every score.

    Args:
      positives: ``[n]`` scores of the right candidates, any float dtype.
      negatives: ``[n, k]`` scores of the drawn ones, see :func:`frequency_sampler`.

    Returns:
      Mean over the n queries, float32 (float64 for float64 inputs), in nats; ``(1 + k) log 2`` for scores of 0.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(negative_sampling(jnp.zeros(2), jnp.zeros((2, 3)))), 4)  # 4 log(2)
      2.7726

    Reference: Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", NeurIPS
    2013, eq. 4, which is maximised.
    """
    _check_scores(positives, negatives)
    right, wrong = (numerics.at_least_float32(x) for x in (positives, negatives))
    return jnp.mean(jax.nn.softplus(-right) + jnp.sum(jax.nn.softplus(wrong), axis=1))


def cross_entropy(positives: Float[Array, " n"], negatives: Float[Array, "n k"]) -> Float[Array, ""]:
    """Compute InfoNCE from scores: which of 1 + k candidates is the positive? Each query has negatives of its own.

    ``loss = 1/n Σ_i log( 1 + Σ_j exp(score⁻_ij − score⁺_i) )``. :func:`ssl_jax.losses.contrastive.info_nce` is the same for
    embeddings and negatives that all queries share.

    Args:
      positives: ``[n]`` scores of the right candidates, any float dtype.
      negatives: ``[n, k]`` scores of the others.

    Returns:
      Mean over the n queries, float32 (float64 for float64 inputs), in nats; ``log(1 + k)`` for equal scores.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(cross_entropy(jnp.ones(2), jnp.ones((2, 3)))), 4)  # log(4)
      1.3863

    Reference: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, eq. 4.
    """
    _check_scores(positives, negatives)
    margins = numerics.at_least_float32(negatives) - numerics.at_least_float32(positives)[:, None]
    return jnp.mean(jax.nn.softplus(jax.nn.logsumexp(margins, axis=1)))


def information_bound(
    loss: Float[Array, ""] | float, candidates: int, *, unit: str = "nats"
) -> Float[Array, ""]:
    """Compute a lower bound of the mutual information of query and key, ``log N − loss``.

    It cannot exceed log N: a loss near 0 says that more candidates are needed, not that the bound is tight.

    Args:
      loss: value of InfoNCE in nats, the mean over queries.
      candidates: N, the positive among them.
      unit: unit of the result, ``"nats"`` or ``"bits"``.

    Returns:
      Scalar; at most log N, and 0 or below where the loss is no better than guessing.

    Raises:
      ValueError: fewer than 1 candidate, or another unit.

    Example:
      >>> import math
      >>> float(information_bound(math.log(2), 8, unit="bits"))
      2.0

    Reference: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, section 2.3.
    """
    check.require(candidates >= 1, "candidates", candidates, "an integer of 1 or more")
    loss = numerics.at_least_float32(jnp.asarray(loss))
    return (jnp.log(1.0 * candidates) - loss) / UNITS[check.choice("unit", unit, UNITS)]


def frequency_probabilities(
    counts: Int[Array, " m"] | Float[Array, " m"], *, power: ScalarLike = 0.75
) -> Float[Array, " m"]:
    """Compute probabilities in proportion to a power of counts, ``P_i = counts_i^power / Σ_j counts_j^power``.

    Args:
      counts: ``[m]`` how often each item occurs, 0 or more, not all 0. An item of count 0 is never drawn.
      power: 0 or more; 1 for the frequencies themselves, 0 for a uniform choice among the items that occur; the paper's
        0.75 lifts rare ones. May be traced.

    Returns:
      ``[m]`` float32.

    Raises:
      ValueError: a power below 0.

    Example:
      >>> import jax.numpy as jnp
      >>> frequency_probabilities(jnp.array([16, 81, 0]), power=0.25).tolist()
      [0.4000000059604645, 0.6000000238418579, 0.0]

    Reference: Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", NeurIPS
    2013, section 2.2.
    """
    check.not_negative("power", power)
    occurs = counts > 0
    weights = jnp.where(occurs, jnp.where(occurs, counts, 1).astype(jnp.float32) ** power, 0.0)
    return weights / jnp.sum(weights)


def frequency_sampler(
    key: Key,
    counts: Int[Array, " m"] | Float[Array, " m"],
    shape: tuple[int, ...],
    *,
    power: ScalarLike = 0.75,
) -> Int[Array, "..."]:
    """Draw items with :func:`frequency_probabilities`, with replacement: the negatives of word2vec.

    Args:
      key: PRNG key.
      counts: ``[m]`` how often each item occurs.
      shape: shape of the result, such as ``(n, k)``: k negatives for each of n queries.
      power: power of the counts. May be traced.

    Returns:
      int32 positions in ``counts``. The cumulative sum is in float32: a probability below 1e-7 is not resolved.

    Raises:
      ValueError: no counts, or a power below 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> frequency_sampler(jax.random.key(0), jnp.array([0, 5, 0]), (2, 2)).tolist()
      [[1, 1], [1, 1]]

    Reference: Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", NeurIPS
    2013, section 2.2.
    """
    check.require(counts.ndim == 1 and counts.shape[0] > 0, "counts.shape", counts.shape, "[m] with m >= 1")
    probabilities = frequency_probabilities(counts, power=power)
    return jax.random.choice(key, counts.shape[0], shape, p=probabilities).astype(jnp.int32)


def _check_scores(positives: Array, negatives: Array) -> None:
    count = positives.shape[0] if positives.ndim == 1 else 0
    check.require(count > 0, "positives.shape", positives.shape, "[n] with n >= 1")
    fits = negatives.ndim == 2 and negatives.shape[0] == count and negatives.shape[1] > 0
    check.require(fits, "negatives.shape", negatives.shape, f"[{count}, k] with k >= 1")
