"""Against chromatic aberration: lenses shift green against magenta, which tells a network where in the image a patch was."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, ScalarLike

from ssl_jax.core.types import Array, Key

MAGENTA_GREEN = np.array([-1.0, 2.0, -1.0])
"""The colour axis along which lenses shift the channels against each other, in red, green and blue."""


def drop_colors(key: Key, image: Float[Array, "h w c"], *, noise: ScalarLike = 0.01) -> Float[Array, "h w c"]:
    """Keep one channel at random, without its mean, and put noise in place of the others.

    With m and σ the mean and deviation of the channel k that stays, and ε ~ N(0, 1)::

        y_k = x_k − m        y_j = noise · σ · ε      for j ≠ k

    Args:
      key: used once.
      image: ``[h, w, c]``; one channel is left as it is.
      noise: deviation of the noise relative to σ, 0 or more. May be traced.

    Returns:
      ``[h, w, c]``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> image = jnp.arange(12.0).reshape(2, 2, 3)
      >>> dropped = drop_colors(jax.random.key(0), image, noise=0.0)
      >>> jnp.sum(jnp.any(dropped != 0, axis=(0, 1))).item()
      1

    Reference: Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015. Its
    code (cdoersch/deepcontext) has noise from U(−1/2, 1/2) of 255 gray levels in place of a share of σ.
    """
    channels = image.shape[-1]
    if channels == 1:
        return image
    keep_key, noise_key = jax.random.split(key)
    stays = jnp.arange(channels) == jax.random.randint(keep_key, (), 0, channels)
    centered = image - jnp.mean(image, axis=(0, 1))
    deviation = jnp.sqrt(jnp.sum(jnp.where(stays, jnp.mean(centered**2, axis=(0, 1)), 0.0)))
    return jnp.where(
        stays, centered, noise * deviation * jax.random.normal(noise_key, image.shape, image.dtype)
    )


def project_colors(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Take from colours their part between magenta and green: ``x (I − a aᵀ / aᵀa)`` with a = (−1, 2, −1).

    Gray stays as it is.

    Args:
      image: ``[h, w, c]`` red, green, blue in any affine scale; other than three channels are left as they are.

    Returns:
      ``[h, w, c]``.

    Example:
      >>> import jax.numpy as jnp
      >>> project_colors(jnp.array([[[0.0, 3.0, 0.0]]])).round(4).tolist()  # green becomes gray
      [[[1.0, 1.0, 1.0]]]

    References: Doersch et al. 2015; MehdiNoroozi/JigsawPuzzleSolver, whose matrix is this one.
    """
    if image.shape[-1] != 3:
        return image
    axis = jnp.asarray(MAGENTA_GREEN / np.linalg.norm(MAGENTA_GREEN), image.dtype)
    # A sum over so few channels is faster written out than as a matrix product.
    return image - jnp.sum(image * axis, axis=-1, keepdims=True) * axis
