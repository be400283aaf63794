"""Decoders of masked image models: from the tokens of visible patches to predictions for all patches."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key, Params, State
from ssl_jax.models.network import DTYPES, Network, from_linen
from ssl_jax.models.positions import sincos_table
from ssl_jax.models.transformer import INITS, apply_blocks, gather_tokens, layer_norm, linear_init


class MaeDecoder(nn.Module):
    """See :func:`mae_decoder`."""

    outputs: int
    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    prefix: int
    scheme: str
    dtype: str
    remat: bool

    @nn.compact
    def __call__(self, tokens: Array, *, restore: Array, train: bool = False) -> Array:
        dtype, kernel_init = jnp.dtype(self.dtype), linear_init(self.scheme)
        x = nn.Dense(self.width, dtype=dtype, kernel_init=kernel_init, name="embed")(tokens)
        prefix, visible = x[:, : self.prefix], x[:, self.prefix :]
        mask = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width)).astype(dtype)
        hidden = (x.shape[0], restore.shape[1] - visible.shape[1], self.width)
        shuffled = jnp.concatenate([visible, jnp.broadcast_to(mask, hidden)], axis=1)
        table = jnp.asarray(sincos_table(*self.grid, self.width), dtype)
        x = jnp.concatenate([prefix, gather_tokens(shuffled, restore) + table], axis=1)
        x = apply_blocks(
            x,
            depth=self.depth,
            train=train,
            remat=self.remat,
            heads=self.heads,
            scheme=self.scheme,
            dtype=self.dtype,
        )
        x = layer_norm(dtype, "norm")(x[:, self.prefix :])
        predictions = nn.Dense(self.outputs, dtype=dtype, kernel_init=kernel_init, name="pred")(x)
        return at_least_float32(predictions)


def mae_decoder(
    *,
    patch: int,
    channels: int,
    grid: int | tuple[int, int],
    width: int = 512,
    depth: int = 8,
    heads: int = 16,
    prefix: int = 1,
    init: str = "xavier",
    dtype: str = "float32",
    remat: bool = False,
) -> Network:
    """Decoder of MAE: linear, mask tokens, un-shuffle, fixed positions, blocks, layer normalisation, linear.

    ``apply(params, state, tokens [b, prefix + k, d], *, restore [b, length], train=False)`` returns the
    float32 predictions ``[b, length, patch * patch * channels]``, patch pixels in the order (row, column,
    channel). ``restore[b, i]`` (integer) is the place of patch ``i`` in the sequence ``[the k visible
    patches, the hidden ones]``: places ``>= k`` get the shared mask token. Prefix tokens take part without a
    position and are dropped at the end. ``init(key, tokens)`` takes the tokens alone.

    Args:
      patch: side of a patch in pixels.
      channels: channels of the images.
      grid: rows and columns of patches; one integer for a square.
      width: features of a token, divisible by 4 and by ``heads``.
      depth: number of blocks.
      heads: attention heads.
      prefix: number of class and register tokens in front of the patches.
      init: ``'xavier'`` (MAE), ``'xavier_split'`` or ``'trunc_normal'``, see :func:`ssl_jax.models.vit.vit`.
      dtype: compute type ``'float32'`` or ``'bfloat16'``.
      remat: compute each block's inside again in the backward pass instead of storing it.

    Raises:
      ValueError: an option outside its range.

    >>> import jax, jax.numpy as jnp
    >>> decoder = mae_decoder(patch=4, channels=3, grid=2, width=8, depth=1, heads=2)
    >>> tokens, restore = jnp.zeros((5, 1 + 2, 16)), jnp.tile(jnp.array([0, 2, 3, 1]), (5, 1))
    >>> params, state = decoder.init(jax.random.key(0), tokens)
    >>> decoder.apply(params, state, tokens, restore=restore)[0].shape
    (5, 4, 48)

    Reference: He et al. 2021 (MAE), section 3 and appendix A.1. The final normalisation and linear layer skip
    the prefix tokens, which the authors' code drops after them: the same numbers.
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    check.require(width % heads == 0, "width", width, f"a multiple of heads={heads}")
    check.choice("init", init, INITS)
    check.choice("dtype", dtype, DTYPES)
    outputs = patch * patch * channels
    module = MaeDecoder(outputs, (rows, columns), width, depth, heads, prefix, init, dtype, remat)
    network = from_linen(module, features=outputs)

    def init_from_tokens(key: Key, tokens: Float[Array, "b n d"], **options: Any) -> tuple[Params, State]:
        restore: Int[Array, "b l"] = jnp.zeros((tokens.shape[0], rows * columns), jnp.int32)
        return network.init(key, tokens, **{"restore": restore, **options})

    return network._replace(init=init_from_tokens)
