"""Context of a grid of features: what a network knows of a place from the rows down to it."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.network import DTYPES, Network, from_linen


class RowContext(nn.Module):
    """See :func:`row_context`."""

    width: int
    depth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b r s d"], *, train: bool = False) -> Float[Array, "b r s d"]:
        del train
        x = x.astype(self.dtype)
        for i in range(self.depth):
            y = nn.relu(nn.Dense(self.width, dtype=self.dtype, name=f"in_{i}")(x))
            # A row of zeros above: of two rows the lower one is the place's own, and nothing below is seen.
            conv = nn.Conv(self.width, (2, 3), padding=((1, 0), (1, 1)), dtype=self.dtype, name=f"rows_{i}")
            y = nn.relu(conv(y))
            x = x + nn.Dense(x.shape[-1], dtype=self.dtype, name=f"out_{i}")(y)
        return at_least_float32(x)


def row_context(features: int, *, width: int = 256, depth: int = 5, dtype: str = "float32") -> Network:
    """Build a masked convolutional network over a grid of features ``[b, rows, columns, d]``, of the same shape.

    Each of its residual blocks is a linear layer, a convolution over this row and the one above, three columns wide, and a
    linear layer, with ReLU between them. So the output at a place depends on the features of the ``depth`` rows above it and of
    its own, in a cone, and on nothing below.

    Args:
      features: d.
      width: features inside of a block.
      depth: number of blocks; 0: the features themselves.
      dtype: compute type.

    Raises:
      ValueError: an option outside its range.

    >>> import jax, jax.numpy as jnp
    >>> network = row_context(4, width=8, depth=2)
    >>> grid = jax.random.normal(jax.random.key(1), (1, 3, 3, 4))
    >>> params, state = network.init(jax.random.key(0), grid)
    >>> below = network.apply(params, state, grid.at[:, 2].set(0.0))[0] - network.apply(params, state, grid)[0]
    >>> bool((below[:, :2] == 0).all()), bool((below[:, 2] != 0).any())
    (True, True)

    Reference: the masked convolutions of van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016, as
    the context of contrastive predictive coding.
    """
    check.require(depth >= 0, "depth", depth, "an integer of 0 or more")
    check.require(width >= 1, "width", width, "an integer of 1 or more")
    check.choice("dtype", dtype, DTYPES)
    return from_linen(RowContext(width, depth, jnp.dtype(dtype)), features=features)
