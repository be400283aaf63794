"""From a code or a coarse map to an image by convolutions, and the layer that joins the places of a map."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.network import Network, from_linen
from ssl_jax.models.norm import BatchNorm

COARSEST = 4


def map_sides(size: int, coarsest: int = COARSEST) -> tuple[int, ...]:
    """Return the sides of maps from an image's down to at most ``coarsest``, each half the one before, rounded up.

    >>> map_sides(28)
    (28, 14, 7, 4)
    """
    sides = [size]
    while sides[-1] > coarsest:
        sides.append(-(-sides[-1] // 2))
    return tuple(sides)


class Generator(nn.Module):
    """See :func:`generator`."""

    size: int
    channels: int
    width: int
    norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Float[Array, "b size size channels"]:
        coarsest = COARSEST if x.ndim == 2 else x.shape[1]
        sides = map_sides(self.size, coarsest)
        check.require(
            x.ndim == 2 or sides[-1] == coarsest, "map", x.shape, f"half of {self.size}, of that, ..."
        )
        widths = [self.width * 2 ** min(level, 3) for level in range(len(sides))]

        def activated(x: Array, name: str) -> Array:
            return nn.relu(BatchNorm(dtype=self.dtype, name=name)(x, train=train) if self.norm else x)

        x = x.astype(self.dtype)
        if x.ndim == 2:
            side = sides[-1]
            x = nn.Dense(side * side * widths[-1], dtype=self.dtype, name="project")(x)
            x = activated(x.reshape(-1, side, side, widths[-1]), "project_norm")
        for level in reversed(range(len(sides) - 1)):
            x = nn.Conv(4 * widths[level], (3, 3), dtype=self.dtype, name=f"up_{level}")(x)
            # A map of odd side was rounded up.
            x = depth_to_space(x)[:, : sides[level], : sides[level]]
            x = activated(x, f"norm_{level}")
        return at_least_float32(nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="pixels")(x))


def depth_to_space(x: Float[Array, "b h w c4"]) -> Float[Array, "b h2 w2 c"]:
    """Rearrange four channels of one place to one channel of a window of 2 x 2 places, in the order (row, column).

    >>> import jax.numpy as jnp
    >>> depth_to_space(jnp.arange(4.0).reshape(1, 1, 1, 4))[0, ..., 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    batch, height, width, channels = x.shape
    windows = x.reshape(batch, height, width, 2, 2, channels // 4).swapaxes(2, 3)
    return windows.reshape(batch, 2 * height, 2 * width, channels // 4)


def generator(*, size: int, channels: int, width: int, norm: bool = True, dtype: str = "float32") -> Network:
    """Build a network from codes or coarse maps to images: the decoder of an autoencoder, the generator of a GAN.

    ``dense → [conv 3x3 to four times the channels → a window of 2 x 2 each → BatchNorm → ReLU] → conv 3x3``. Channels double
    with each halving of the side, from ``width`` up to ``8 · width``. Maps need no dense layer: their side is that of the
    image, halved and rounded up some times.

    Args:
      size: side of the images.
      channels: channels of the images.
      width: channels at the side of the images.
      norm: BatchNorm before each ReLU.
      dtype: compute dtype; params are float32.

    Returns:
      ``Network`` from ``[b, d]`` or ``[b, s, s, c]`` to ``[b, size, size, channels]`` float32, without a last activation.

    >>> import jax, jax.numpy as jnp
    >>> network = generator(size=28, channels=1, width=4)
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 10)))
    >>> network.apply(params, state, jnp.ones((2, 10)))[0].shape
    (2, 28, 28, 1)

    References: Radford et al., DCGAN (2016); Shi et al., Real-Time Single Image and Video Super-Resolution (2016), section
    3.2, for the windows: the transposed convolutions of DCGAN take twice the time on CPUs.
    """
    for name, value in (("size", size), ("channels", channels), ("width", width)):
        check.require(value >= 1, name, value, "an integer of 1 or more")
    return from_linen(Generator(size, channels, width, norm, jnp.dtype(dtype)), features=channels)


class ChannelwiseDense(nn.Module):
    """See :func:`channelwise_dense`."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        del train
        batch, height, width, channels = x.shape
        positions = height * width
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=0)
        kernel = self.param("kernel", init, (channels, positions, positions), jnp.float32)
        joined = jnp.einsum("bpc,cpq->bqc", x.reshape(batch, positions, channels), kernel.astype(x.dtype))
        joined = nn.relu(joined.reshape(batch, height, width, channels)).astype(self.dtype)
        return nn.Conv(channels, (1, 1), dtype=self.dtype, name="mix")(joined)


def channelwise_dense(*, channels: int, dtype: str = "float32") -> Network:
    """Build a dense layer over all places of each channel of a map, then ReLU and a 1x1 convolution across the channels.

    ``channels · places²`` weights, where a dense layer over all would have ``channels² · places²``.

    >>> import jax, jax.numpy as jnp
    >>> network = channelwise_dense(channels=8)
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 4, 4, 8)))
    >>> params["kernel"].shape
    (8, 16, 16)

    Reference: Pathak et al., Context Encoders (CVPR 2016), section 3.1.
    """
    return from_linen(ChannelwiseDense(jnp.dtype(dtype)), features=channels)
