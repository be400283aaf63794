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
from ssl_jax.models.remat import require_remat
from ssl_jax.models.transformer import INITS, Positions, apply_blocks, gather_tokens, layer_norm, linear_init


class MaskedDecoder(nn.Module):
    """See :func:`masked_decoder`."""

    outputs: int
    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    prefix: int
    keep_prefix: bool
    scheme: str
    dtype: str
    remat: bool
    remat_keeps: str

    @nn.compact
    def __call__(self, tokens: Array, *, restore: Array, train: bool = False) -> Array:
        dtype, kernel_init = jnp.dtype(self.dtype), linear_init(self.scheme)
        x = nn.Dense(self.width, dtype=dtype, kernel_init=kernel_init, name="embed")(tokens)
        prefix, visible = x[:, : self.prefix], x[:, self.prefix :]
        mask = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width), jnp.float32).astype(
            dtype
        )
        hidden = (x.shape[0], restore.shape[1] - visible.shape[1], self.width)
        shuffled = jnp.concatenate([visible, jnp.broadcast_to(mask, hidden)], axis=1)
        table = jnp.asarray(sincos_table(*self.grid, self.width), dtype)
        x = jnp.concatenate([prefix, gather_tokens(shuffled, restore) + table], axis=1)
        x = apply_blocks(
            x,
            depth=self.depth,
            train=train,
            remat=self.remat,
            remat_keeps=self.remat_keeps,
            heads=self.heads,
            scheme=self.scheme,
            dtype=self.dtype,
        )
        x = layer_norm(dtype, "norm")(x if self.keep_prefix else x[:, self.prefix :])
        predictions = nn.Dense(self.outputs, dtype=dtype, kernel_init=kernel_init, name="pred")(x)
        return at_least_float32(predictions)


def masked_decoder(
    *,
    outputs: int,
    grid: int | tuple[int, int],
    width: int = 512,
    depth: int = 8,
    heads: int = 16,
    prefix: int = 1,
    keep_prefix: bool = False,
    init: str = "xavier",
    dtype: str = "float32",
    remat: bool = False,
    remat_keeps: str = "nothing",
) -> Network:
    """Build MAE's decoder for any target: linear, mask tokens, un-shuffle, fixed positions, blocks, normalisation, linear.

    ``apply(params, state, tokens [b, prefix + k, d], *, restore [b, length], train=False)`` returns the
    float32 predictions ``[b, length, outputs]``. ``restore[b, i]`` (integer) is the place of patch ``i`` in the sequence
    ``[the k visible patches, the hidden ones]``: places ``>= k`` get the shared mask token. Prefix tokens take part without a
    position. ``init(key, tokens)`` takes the tokens alone.

    Args:
      outputs: width of a prediction.
      grid: rows and columns of patches; one integer for a square.
      width: features of a token, divisible by 4 and by ``heads``.
      depth: number of blocks.
      heads: attention heads.
      prefix: number of class and register tokens in front of the patches.
      keep_prefix: predict something for these too: ``[b, prefix + length, outputs]``; they are dropped otherwise.
      init: ``'xavier'`` (MAE), ``'xavier_split'`` or ``'trunc_normal'``, see :func:`ssl_jax.models.vit.vit`.
      dtype: compute type ``'float32'`` or ``'bfloat16'``.
      remat: compute each block's inside again in the backward pass instead of storing it.
      remat_keeps: with ``remat``, what of a block is stored all the same, see :func:`ssl_jax.models.remat.recomputed`.

    Raises:
      ValueError: an option outside its range.

    >>> import jax, jax.numpy as jnp
    >>> decoder = masked_decoder(outputs=24, grid=2, width=8, depth=1, heads=2, keep_prefix=True)
    >>> tokens, restore = jnp.zeros((5, 1 + 2, 16)), jnp.tile(jnp.array([0, 2, 3, 1]), (5, 1))
    >>> params, state = decoder.init(jax.random.key(0), tokens)
    >>> decoder.apply(params, state, tokens, restore=restore)[0].shape
    (5, 5, 24)

    References: He et al. 2021 (MAE), section 3 and appendix A.1; Liu et al. 2022 (dBOT), section 3 (``keep_prefix``).
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    check.require(width % heads == 0, "width", width, f"a multiple of heads={heads}")
    check.choice("init", init, INITS)
    check.choice("dtype", dtype, DTYPES)
    require_remat(remat, remat_keeps)
    module = MaskedDecoder(
        outputs, (rows, columns), width, depth, heads, prefix, keep_prefix, init, dtype, remat, remat_keeps
    )
    network = from_linen(module, features=outputs)

    def init_from_tokens(key: Key, tokens: Float[Array, "b n d"], **options: Any) -> tuple[Params, State]:
        restore: Int[Array, "b l"] = jnp.zeros((tokens.shape[0], rows * columns), jnp.int32)
        return network.init(key, tokens, **{"restore": restore, **options})

    return network._replace(init=init_from_tokens)


def mae_decoder(*, patch: int, channels: int, **options: Any) -> Network:
    """Build the decoder of MAE: :func:`masked_decoder` with the pixels of a patch as outputs.

    Predictions are ``[b, length, patch * patch * channels]``, patch pixels in the order (row, column, channel).

    Args:
      patch: side of a patch in pixels.
      channels: channels of the images.
      **options: as in :func:`masked_decoder`, ``grid`` among them.

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
    return masked_decoder(outputs=patch * patch * channels, **options)


class JepaPredictor(nn.Module):
    """See :func:`jepa_predictor`."""

    outputs: int
    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    scheme: str
    dtype: str
    remat: bool
    remat_keeps: str

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        *,
        context: Array,
        present: Array,
        targets: Array,
        counted: Array,
        train: bool = False,
    ) -> Array:
        dtype, kernel_init = jnp.dtype(self.dtype), linear_init(self.scheme)
        batch, blocks, count = targets.shape
        table = jnp.asarray(sincos_table(*self.grid, self.width), dtype)
        x = nn.Dense(self.width, dtype=dtype, kernel_init=kernel_init, name="embed")(tokens) + table[context]
        mask = self.param(
            "mask_token", nn.initializers.normal(0.02), (1, 1, 1, self.width), jnp.float32
        ).astype(dtype)
        queries = mask + table[targets]
        # Each block is predicted by itself, from the same context.
        seen = jnp.broadcast_to(x[:, None], (batch, blocks, *x.shape[1:]))
        x = jnp.concatenate([seen, queries], axis=2).reshape(batch * blocks, -1, self.width)
        attended = jnp.broadcast_to(present[:, None], (batch, blocks, present.shape[1]))
        attended = jnp.concatenate([attended, counted], axis=2).reshape(batch * blocks, -1)
        x = apply_blocks(
            x,
            depth=self.depth,
            train=train,
            remat=self.remat,
            remat_keeps=self.remat_keeps,
            positions=lambda: Positions(present=attended),
            heads=self.heads,
            scheme=self.scheme,
            dtype=self.dtype,
        )
        x = layer_norm(dtype, "norm")(x[:, -count:])
        predictions = nn.Dense(self.outputs, dtype=dtype, kernel_init=kernel_init, name="pred")(x)
        return at_least_float32(predictions).reshape(batch, blocks, count, self.outputs)


def jepa_predictor(
    *,
    outputs: int,
    grid: int | tuple[int, int],
    width: int = 384,
    depth: int = 6,
    heads: int = 12,
    init: str = "trunc_normal",
    dtype: str = "float32",
    remat: bool = False,
    remat_keeps: str = "nothing",
) -> Network:
    """Build the predictor of I-JEPA: what the teacher makes of blocks of patches, from the student's tokens of others.

    ``apply(params, state, tokens [b, c, d], *, context [b, c], present [b, c], targets [b, t, n], counted [b, t, n],
    train=False)`` returns float32 predictions ``[b, t, n, outputs]``. ``context`` (integers) says which patches the tokens are
    of, and ``present`` (bool) which of them count; ``targets`` which patches to predict, ``counted`` which of these count. For
    each block by itself: a linear map of the tokens and a shared mask token, both with fixed positions, then blocks, layer
    normalisation, linear. What does not count is attended to by nobody, and its own prediction means nothing.

    Args:
      outputs: width of a prediction: that of the teacher's tokens.
      grid: rows and columns of patches; one integer for a square.
      width: features of a token, divisible by 4 and by ``heads``.
      depth: number of blocks.
      heads: attention heads.
      init: as in :func:`ssl_jax.models.vit.vit`.
      dtype: compute type ``'float32'`` or ``'bfloat16'``.
      remat: compute each block's inside again in the backward pass instead of storing it.
      remat_keeps: with ``remat``, what of a block is stored all the same, see :func:`ssl_jax.models.remat.recomputed`.

    Raises:
      ValueError: an option outside its range.

    >>> import jax, jax.numpy as jnp
    >>> predictor = jepa_predictor(outputs=16, grid=2, width=8, depth=1, heads=2)
    >>> indices = {"context": jnp.zeros((3, 2), jnp.int32), "targets": jnp.zeros((3, 4, 1), jnp.int32)}
    >>> attended = {"present": jnp.ones((3, 2), bool), "counted": jnp.ones((3, 4, 1), bool)}
    >>> params, state = predictor.init(jax.random.key(0), jnp.zeros((3, 2, 16)), **indices, **attended)
    >>> predictor.apply(params, state, jnp.zeros((3, 2, 16)), **indices, **attended)[0].shape
    (3, 4, 1, 16)

    Reference: Assran et al. 2023 (I-JEPA), section 3; facebookresearch/ijepa ``src/models/vision_transformer.py``.
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    check.require(width % heads == 0, "width", width, f"a multiple of heads={heads}")
    check.choice("init", init, INITS)
    check.choice("dtype", dtype, DTYPES)
    require_remat(remat, remat_keeps)
    module = JepaPredictor(outputs, (rows, columns), width, depth, heads, init, dtype, remat, remat_keeps)
    return from_linen(module, features=outputs)
