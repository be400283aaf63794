"""A fixed first layer that lets edges through and no colour, as in DeepCluster."""

import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core.types import Array
from ssl_jax.ops.hog import slopes


def sobel(images: Float[Array, "b h w c"]) -> Float[Array, "b h w 2"]:
    """Compute the horizontal and vertical slope of the mean over the channels.

    ``out_0 = [1 2 1]ᵀ [1 0 −1] ∗ g`` and ``out_1 = [1 0 −1]ᵀ [1 2 1] ∗ g`` with g the gray image, ∗ the correlation, and zeros
    beyond the border. Eight times the slope a pixel.

    >>> import jax.numpy as jnp
    >>> rising = jnp.broadcast_to(jnp.arange(5.0), (1, 5, 5))[..., None]
    >>> sobel(rising)[0, 2, 2].tolist()
    [-8.0, 0.0]

    Reference: facebookresearch/deepcluster, ``models/alexnet.py``: means over RGB, then the two filters with padding 1.
    """
    gray = jnp.pad(jnp.mean(images, axis=-1), ((0, 0), (1, 1), (1, 1)))
    return jnp.stack(slopes(gray), axis=-1)
