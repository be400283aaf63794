"""Convolutional encoder and decoder of a discrete autoencoder, whose encoder gives a score for every word at every place."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.convnet import pool_to_grid
from ssl_jax.models.network import DTYPES, Network, from_linen

OUTPUTS = ("features", "tokens", "logits")


class ResidualBlock(nn.Module):
    """``x + conv1(relu(conv3(relu(conv3(x)))))``, all of the same width."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        width = x.shape[-1]
        y = nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name="conv_0")(x))
        y = nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name="conv_1")(y))
        return x + nn.Conv(width, (1, 1), dtype=self.dtype, name="conv_2")(y)


class DvaeEncoder(nn.Module):
    """See :func:`dvae`."""

    vocabulary_size: int
    width: int
    stride: int
    blocks: int
    grid: int
    dtype: Any

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool, output: str = "features") -> Any:
        del train
        check.choice("output", output, OUTPUTS)
        x = images.astype(self.dtype)
        for i in range(round(math.log2(self.stride))):
            down = nn.Conv(self.width, (4, 4), strides=2, padding=1, dtype=self.dtype, name=f"down_{i}")
            x = nn.relu(down(x))
        for i in range(self.blocks):
            x = ResidualBlock(self.dtype, name=f"block_{i}")(x)
        # Made whichever output is asked for: its parameters are the encoder's.
        logits = nn.Conv(self.vocabulary_size, (1, 1), dtype=self.dtype, name="logits")(x)
        if output == "logits":
            return at_least_float32(logits)
        if output == "tokens":
            return x
        x = pool_to_grid(at_least_float32(x), grid=self.grid)
        return x.reshape(x.shape[0], -1)


class TransposedConv(nn.Module):
    """Transposed convolution 4x4 of stride 2, as ``nn.ConvTranspose`` with ``padding="SAME"`` and its parameters.

    One matrix product of 2 x 2 neighbours with the kernels of the four phases: XLA's gradient of the transposed convolution
    takes ten times as long on a CPU.
    """

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 width"]:
        b, h, w, c = x.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (4, 4, c, self.width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        # Tap 2 u + phase of the kernel meets neighbour u of the places at this phase.
        taps = kernel.astype(self.dtype).reshape(2, 2, 2, 2, c, self.width).transpose(0, 2, 4, 1, 3, 5)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        near = [padded[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)]
        y = jnp.concatenate(near, axis=-1) @ taps.reshape(4 * c, 4 * self.width)
        y = y.reshape(b, h + 1, w + 1, 2, 2, self.width)
        rows = [jnp.stack([y[:, i : i + h, j : j + w, i, j] for j in (0, 1)], axis=3) for i in (0, 1)]
        return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, self.width) + bias.astype(self.dtype)


class DvaeDecoder(nn.Module):
    """See :func:`dvae_decoder`."""

    channels: int
    width: int
    stride: int
    blocks: int
    dtype: Any

    @nn.compact
    def __call__(self, codes: Float[Array, "b h w d"], *, train: bool) -> Float[Array, "b h2 w2 c"]:
        del train
        x = nn.Conv(self.width, (1, 1), dtype=self.dtype, name="embed")(codes.astype(self.dtype))
        for i in range(self.blocks):
            x = ResidualBlock(self.dtype, name=f"block_{i}")(x)
        for i in range(round(math.log2(self.stride))):
            x = nn.relu(TransposedConv(self.width, self.dtype, name=f"up_{i}")(x))
        return at_least_float32(nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="pixels")(x))


def dvae(
    *,
    vocabulary_size: int = 8192,
    width: int = 256,
    stride: int = 8,
    blocks: int = 2,
    grid: int = 2,
    dtype: str = "float32",
) -> Network:
    """Build the encoder of a discrete variational autoencoder: strided convolutions, residual blocks, scores of the words.

    ``[conv 4x4 / 2 → ReLU] × log₂ stride → residual blocks → conv 1x1 to the words``. Features are those before the last layer,
    pooled to ``grid`` x ``grid`` as in :func:`ssl_jax.models.convnet.convnet`.

    Args:
      vocabulary_size: K, scores at every place.
      width: channels of all other layers.
      stride: pixels between places, a power of 2; the sides of images are multiples.
      blocks: residual blocks.
      grid: side of the pooled grid.
      dtype: compute dtype, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.

    Returns:
      ``Network`` on images ``[b, h, w, c]``. Options of apply: ``output="logits"`` gives the scores ``[b, h/stride, w/stride,
      words]``, ``"tokens"`` the map before them.

    Raises:
      ValueError: an option outside its range.

    >>> import jax, jax.numpy as jnp
    >>> network = dvae(vocabulary_size=16, width=8, stride=4, blocks=1)
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 16, 16, 1)))
    >>> network.apply(params, state, jnp.ones((3, 16, 16, 1)), output="logits")[0].shape
    (3, 4, 4, 16)

    Reference: lucidrains/DALLE-pytorch ``dalle_pytorch.py``, which microsoft/unilm ``beit/modeling_discrete_vae.py`` follows.
    OpenAI's encoder, on which the released BEiT stands, is another one: 7x7 stem, four groups of blocks, max-pooling.
    """
    for name, value in (("vocabulary_size", vocabulary_size), ("width", width), ("grid", grid)):
        check.require(value >= 1, name, value, "an integer of 1 or more")
    check.require(blocks >= 0, "blocks", blocks, "an integer of 0 or more")
    check.require(stride >= 1 and stride & (stride - 1) == 0, "stride", stride, "a power of 2")
    check.choice("dtype", dtype, DTYPES)
    options = {
        "vocabulary_size": vocabulary_size,
        "width": width,
        "stride": stride,
        "blocks": blocks,
        "grid": grid,
    }
    module = DvaeEncoder(vocabulary_size, width, stride, blocks, grid, jnp.dtype(dtype))
    config = {"name": "dvae", **options, "dtype": dtype}
    return from_linen(module, features=grid * grid * width, config=config)


def dvae_decoder(*, channels: int, width: int, stride: int, blocks: int, dtype: str = "float32") -> Network:
    """Build the decoder of a discrete variational autoencoder: :func:`dvae` in reverse.

    ``conv 1x1 → residual blocks → [transposed conv 4x4 / 2 → ReLU] × log₂ stride → conv 1x1 to the pixels``, from code vectors
    ``[b, h, w, d]`` to images ``[b, h · stride, w · stride, channels]`` in float32.

    >>> import jax, jax.numpy as jnp
    >>> decoder = dvae_decoder(channels=3, width=8, stride=4, blocks=1)
    >>> params, state = decoder.init(jax.random.key(0), jnp.ones((1, 2, 2, 5)))
    >>> decoder.apply(params, state, jnp.ones((1, 2, 2, 5)))[0].shape
    (1, 8, 8, 3)
    """
    return from_linen(DvaeDecoder(channels, width, stride, blocks, jnp.dtype(dtype)), features=channels)


BUILDERS: dict[str, Callable[..., Network]] = {"dvae": dvae}
