"""Losses of two players: one tells two kinds of examples apart, the other makes them alike."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import numerics
from ssl_jax.core.types import Array


def discriminator_cross_entropy(real: Float[Array, " n"], fake: Float[Array, " m"]) -> Float[Array, ""]:
    """Compute the discriminator's loss: cross-entropy of "real" for the one kind and "fake" for the other.

    ``−mean log σ(real) − mean log (1 − σ(fake))``

    With the arguments exchanged it is the loss of players who want the labels flipped, which has a gradient also where the
    discriminator is sure, unlike its negative: a BiGAN's encoder and generator.

    Args:
      real: logits of the discriminator for the one kind, any float dtype.
      fake: for the other kind.

    Returns:
      Scalar, float32 (float64 for float64 inputs); ``2 log 2`` where all logits are 0.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(discriminator_cross_entropy(jnp.zeros(3), jnp.zeros(2))), 6)
      1.386294

    References: Goodfellow et al., Generative Adversarial Nets (2014), equation 1 and section 3; Donahue et al., Adversarial
    Feature Learning (2017), equation 3 and section 3.4.
    """
    return generator_cross_entropy(real) + generator_cross_entropy(-fake)


def generator_cross_entropy(logits: Float[Array, " n"]) -> Float[Array, ""]:
    """Compute the generator's loss: cross-entropy of "real" for what it made, ``−mean log σ(logits)``.

    Args:
      logits: scores of the discriminator, any float dtype.

    Returns:
      Scalar, float32 (float64 for float64 inputs).

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(generator_cross_entropy(jnp.zeros(3))), 6)
      0.693147

    Reference: Goodfellow et al. 2014, section 3, the form that does not saturate.
    """
    return jnp.mean(jax.nn.softplus(-numerics.at_least_float32(logits)))
