"""From frozen features back to images: a decoder, and the velocity of a flow from noise to images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.generator import Generator, depth_to_space, map_sides
from ssl_jax.models.network import DTYPES, Network, from_linen
from ssl_jax.models.norm import GroupNorm

COARSEST = 8
"""Side of the coarsest maps of a velocity network, at most."""
TIME_FEATURES = 64


class FeatureDecoder(nn.Module):
    """See :func:`feature_decoder`."""

    size: int
    channels: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Float[Array, "b size size channels"]:
        if x.ndim == 4:
            x = resample(x, side_near(self.size, x.shape[1]))
        return Generator(self.size, self.channels, self.width, True, self.dtype, name="generator")(
            x, train=train
        )


def feature_decoder(*, size: int, channels: int, width: int = 32, dtype: str = "float32") -> Network:
    """Build a deterministic decoder from features to images: :func:`ssl_jax.models.generator.generator` with BatchNorm.

    A map whose side is none of the image's, halved and rounded up some times, is resampled to the nearest of those first.

    Args:
      size: side of the images.
      channels: channels of the images.
      width: channels of its maps at the side of the images; they double with each halving, up to 8 times as many.
      dtype: compute dtype; params are float32.

    Returns:
      ``Network`` from ``[b, d]`` or ``[b, rows, columns, d]`` to ``[b, size, size, channels]`` float32.

    Raises:
      ValueError: a size, number of channels or width below 1, or an unknown dtype.

    >>> import jax, jax.numpy as jnp
    >>> network = feature_decoder(size=16, channels=3, width=4)
    >>> patches = jnp.ones((2, 3, 3, 10))
    >>> network.apply(*network.init(jax.random.key(0), patches), patches)[0].shape
    (2, 16, 16, 3)
    """
    _require_sizes(size, channels, width, dtype)
    return from_linen(FeatureDecoder(size, channels, width, jnp.dtype(dtype)), features=channels)


class ResidualBlock(nn.Module):
    """Two convolutions behind GroupNorm and SiLU, the second scaled and shifted by an embedding; starts as the identity."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], embedding: Float[Array, "b d"]) -> Float[Array, "b h w k"]:
        def norm(name: str) -> GroupNorm:
            return GroupNorm(groups=8, dtype=self.dtype, name=name)

        y = nn.silu(norm("norm_0")(x, train=False))
        y = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv_0")(y)
        scale, shift = jnp.split(
            nn.Dense(2 * self.width, dtype=self.dtype, name="scale_and_shift")(nn.silu(embedding)), 2, axis=-1
        )
        y = norm("norm_1")(y, train=False) * (1 + scale[:, None, None]) + shift[:, None, None]
        zeros = nn.initializers.zeros
        y = nn.Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=zeros, name="conv_1")(nn.silu(y))
        if x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1), dtype=self.dtype, name="skip")(x)
        return x + y


class VelocityNet(nn.Module):
    """See :func:`velocity_net`."""

    channels: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, time: Array, condition: Array, train: bool) -> Float[Array, "b h w c"]:
        del train
        sides = map_sides(x.shape[1], COARSEST)
        widths = [self.width * 2 ** min(level, 2) for level in range(len(sides))]
        condition, x = condition.astype(self.dtype), x.astype(self.dtype)
        pooled = condition if condition.ndim == 2 else condition.mean(axis=(1, 2))
        embedding = nn.Dense(4 * self.width, dtype=self.dtype, name="time")(time_features(time))
        embedding += nn.Dense(4 * self.width, dtype=self.dtype, name="condition")(pooled)
        embedding = nn.Dense(4 * self.width, dtype=self.dtype, name="embedding")(nn.silu(embedding))

        def add_map(x: Array, name: str) -> Array:
            """Add the features of patches where they lie; a vector reaches every place through the embedding."""
            if condition.ndim == 2:
                return x
            mixed = nn.Conv(x.shape[-1], (1, 1), dtype=self.dtype, name=name)(condition)
            return x + resample(mixed, x.shape[1])

        def block(x: Array, level: int, name: str) -> Array:
            return ResidualBlock(widths[level], self.dtype, name=name)(x, embedding)

        x = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="first")(x)
        skips = []
        for level in range(len(sides)):
            x = block(add_map(x, f"map_{level}"), level, f"down_{level}")
            skips.append(x)
            if level < len(sides) - 1:
                x = nn.Conv(
                    widths[level + 1], (3, 3), (2, 2), padding=1, dtype=self.dtype, name=f"halve_{level}"
                )(x)
        x = block(x, len(sides) - 1, "middle")
        for level in reversed(range(len(sides))):
            if level < len(sides) - 1:
                x = nn.Conv(4 * widths[level], (3, 3), dtype=self.dtype, name=f"double_{level}")(x)
                x = depth_to_space(x)[:, : sides[level], : sides[level]]
            x = block(jnp.concatenate([x, skips[level]], axis=-1), level, f"up_{level}")
        x = nn.silu(GroupNorm(groups=8, dtype=self.dtype, name="norm")(x, train=False))
        zeros = nn.initializers.zeros
        last = nn.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=zeros, name="last")
        return at_least_float32(last(x))


def velocity_net(*, channels: int, width: int = 32, dtype: str = "float32") -> Network:
    """Build the velocity of a flow from noise to images, given features: a small U-Net of residual blocks.

    ``v(x, t | h)``: at each of the sides of x, halved down to at most 8 pixels, one residual block on the way down and one on
    the way up, joined by concatenation; ``width``, then 2 and 4 times as many channels. Time (sines and cosines) and features
    become one embedding, which scales and shifts every block. Features of patches are also added to the maps where they lie.
    Starts at 0.

    Args:
      channels: channels of the images.
      width: channels at the side of the images.
      dtype: compute dtype; params are float32.

    Returns:
      ``Network``: ``apply(params, state, x [b, s, s, c], *, time [b], condition [b, d] or [b, rows, columns, d], train=False)``
      returns ``[b, s, s, c]`` float32; ``init`` takes ``time`` and ``condition`` too.

    Raises:
      ValueError: a number of channels or width below 1, or an unknown dtype.

    >>> import jax, jax.numpy as jnp
    >>> network = velocity_net(channels=3, width=8)
    >>> x, given = jnp.ones((2, 12, 12, 3)), {"time": jnp.zeros(2), "condition": jnp.ones((2, 5))}
    >>> params, state = network.init(jax.random.key(0), x, **given)
    >>> network.apply(params, state, x, **given)[0].shape
    (2, 12, 12, 3)

    References: Ho et al., Denoising Diffusion Probabilistic Models (2020), appendix B; Dhariwal & Nichol, Diffusion Models Beat
    GANs (2021), section 3, for scale and shift behind the normalisation; Bordes et al., High Fidelity Visualization of What
    Your Self-Supervised Representation Knows About (2022), for features as the condition. Deviation: no attention, one block
    on each way.
    """
    _require_sizes(1, channels, width, dtype)
    return from_linen(VelocityNet(channels, width, jnp.dtype(dtype)), features=channels)


def time_features(time: Float[Array, " b"]) -> Float[Array, "b k"]:
    """Compute sines and cosines of t in [0, 1] at 32 frequencies from 1 to 1,000, evenly spaced by their logarithm.

    >>> import jax.numpy as jnp
    >>> time_features(jnp.zeros(1))[0, jnp.array([0, 32])].tolist()
    [0.0, 1.0]
    """
    angles = time[:, None] * jnp.asarray(np.geomspace(1.0, 1000.0, TIME_FEATURES // 2), time.dtype)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def side_near(size: int, side: int) -> int:
    """Return that of an image's sides, halved and rounded up some times, which is nearest to the side of a map.

    >>> side_near(32, 4), side_near(224, 16), side_near(30, 6)
    (4, 14, 8)
    """
    sides = map_sides(size, 1)
    return min(sides, key=lambda allowed: (abs(allowed - side), -allowed))


def resample(maps: Float[Array, "b h w c"], side: int) -> Float[Array, "b side side c"]:
    """Resample maps to a square side, bilinearly.

    >>> import jax.numpy as jnp
    >>> resample(jnp.ones((1, 3, 2, 5)), 4).shape
    (1, 4, 4, 5)
    """
    if maps.shape[1:3] == (side, side):
        return maps
    return jax.image.resize(maps, (maps.shape[0], side, side, maps.shape[-1]), "linear")


def _require_sizes(size: int, channels: int, width: int, dtype: str) -> None:
    for name, value in (("size", size), ("channels", channels), ("width", width)):
        check.require(value >= 1, name, value, "an integer of 1 or more")
    check.choice("dtype", dtype, DTYPES)
