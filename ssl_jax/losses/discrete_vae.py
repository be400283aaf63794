"""What a discrete autoencoder needs: words drawn with a gradient, and the distance of their distribution from uniform."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key


def gumbel_softmax(
    key: Key, logits: Float[Array, "*b k"], *, temperature: ScalarLike, hard: bool = False
) -> Float[Array, "*b k"]:
    """Draw a relaxed word: ``softmax((logits + g) / τ)``, ``g = −log(−log u)`` independent Gumbel numbers.

    As τ → 0 it becomes the one-hot vector of ``argmax(logits + g)``, which is a draw from ``softmax(logits)``.

    Args:
      key: used once.
      logits: ``[..., k]`` scores of the words, any float dtype.
      temperature: τ > 0. May be traced.
      hard: the one-hot vector of the largest entry, with the gradient of the relaxed one (straight-through).

    Returns:
      ``[..., k]`` float32 (float64 for float64 logits), rows of sum 1.

    Raises:
      ValueError: a temperature that is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
      >>> gumbel_softmax(jax.random.key(0), logits, temperature=1.0, hard=True).sum().item()
      1.0

    References: Jang et al. 2017 and Maddison et al. 2017, equation 1 each.
    """
    check.positive("temperature", temperature)
    scores = numerics.at_least_float32(logits)
    noisy = (scores + jax.random.gumbel(key, scores.shape, scores.dtype)) / temperature
    soft = jax.nn.softmax(noisy, axis=-1)
    if not hard:
        return soft
    one_hot = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), scores.shape[-1], dtype=soft.dtype)
    return one_hot + soft - jax.lax.stop_gradient(soft)


def kl_from_uniform(logits: Float[Array, "*b k"]) -> Float[Array, ""]:
    """Compute the mean divergence of ``q = softmax(logits)`` from the uniform distribution, ``log k − H(q)``.

    Args:
      logits: ``[..., k]`` with k ≥ 2, any float dtype.

    Returns:
      Scalar, float32 (float64 for float64 logits), between 0 (uniform) and log k (one word).

    Raises:
      ValueError: fewer than 2 words.

    Example:
      >>> import jax.numpy as jnp
      >>> float(kl_from_uniform(jnp.zeros((2, 5))))
      0.0

    Reference: Ramesh et al., "Zero-Shot Text-to-Image Generation", ICML 2021, appendix A.2. Deviation: DALLE-pytorch's
    ``kl_div(..., "batchmean")`` adds up over places and images; here it is a mean, so its weight means the same in every batch.
    """
    words = logits.shape[-1]
    check.require(words >= 2, "logits.shape", logits.shape, "[..., k] with k >= 2")
    log_q = jax.nn.log_softmax(numerics.at_least_float32(logits), axis=-1)
    entropy = numerics.entropy(log_q)
    return jnp.mean(jnp.log(jnp.asarray(words, entropy.dtype)) - entropy)
