"""Corruption of what a denoising autoencoder sees."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.types import Array, Key

CORRUPTIONS = ("none", "masking", "gaussian", "salt_and_pepper")


def corrupt(
    key: Key, x: Float[Array, "*shape"], *, kind: str, level: ScalarLike
) -> tuple[Float[Array, "*shape"], Bool[Array, "*shape"]]:
    """Add noise to the numbers of one example; say which of them it changed.

    Args:
      key: used once.
      x: an image or the units of a layer, in [0, 1] for ``"salt_and_pepper"``.
      kind: ``"none"``; ``"masking"``: each number becomes 0 with probability ν; ``"gaussian"``: plus N(0, ν²);
        ``"salt_and_pepper"``: each number becomes 0 or 1, each with probability ν/2.
      level: ν, a probability, or a standard deviation of 0 or more. May be traced.

    Returns:
      ``(corrupted, touched)``: Gaussian noise touches every number. Nothing is clipped.

    Raises:
      ValueError: an unknown kind.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> noisy, touched = corrupt(jax.random.key(0), jnp.full(100, 0.5), kind="masking", level=0.25)
      >>> bool((noisy == jnp.where(touched, 0.0, 0.5)).all()), int(touched.sum()) in range(10, 40)
      (True, True)

    Reference: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010, section 3.5. Deviation: there a fixed number
    ν d of components is drawn, here each by itself.
    """
    check.choice("kind", kind, CORRUPTIONS)
    if kind == "none":
        return x, jnp.zeros(x.shape, bool)
    if kind == "gaussian":
        return x + level * jax.random.normal(key, x.shape, x.dtype), jnp.ones(x.shape, bool)
    u = jax.random.uniform(key, x.shape)
    touched = u < level
    # Of the numbers that are touched u/ν is uniform again.
    extreme = 0.0 if kind == "masking" else jnp.where(u < level / 2, 0.0, 1.0)
    return jnp.where(touched, extreme, x).astype(x.dtype), touched
