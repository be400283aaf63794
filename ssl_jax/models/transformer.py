"""Pre-norm transformer blocks, shared by the vision transformer and the decoders."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.core.types import Array
from ssl_jax.models.attention import attend, attention_weights
from ssl_jax.models.packing import Layout, pack, unpack
from ssl_jax.models.positions import relative_rows, resize_relative_table
from ssl_jax.models.remat import rematerialize
from ssl_jax.models.rope import rotate

INITS = ("xavier", "xavier_split", "trunc_normal", "beit")
DROP_PATHS = ("bernoulli", "subset")
MLPS = ("gelu", "gelu_tanh", "quick_gelu", "swiglu")
xavier = nn.initializers.xavier_uniform()


def linear_init(scheme: str, *, layer: int = 0) -> Callable[..., Array]:
    """Choose the initialiser of linear kernels: Xavier uniform (MAE, MoCo v3), N(0, 0.02²) (timm, DINO), cut at ±0.02 (BEiT).

    timm cuts its normal at ±2 *absolute*, that is at 100 standard deviations: not at all.

    Args:
      scheme: one of :data:`INITS`.
      layer: counted from 1, of a linear layer at the end of a residual branch; BEiT divides its weights by √(2 · layer).
    """
    if scheme == "trunc_normal":
        return nn.initializers.normal(0.02)
    if scheme == "beit":
        return nn.initializers.truncated_normal(0.02 / max(2 * layer, 1) ** 0.5, lower=-1.0, upper=1.0)
    return xavier


def qkv_init(scheme: str) -> Callable[..., Array]:
    """Choose the initialiser of the joint query-key-value kernel; ``xavier_split`` draws three square ones (MoCo v3)."""

    def split(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
        parts = [xavier(k, (shape[0], shape[1] // 3), dtype) for k in jax.random.split(key, 3)]
        return jnp.concatenate(parts, axis=1)

    return split if scheme == "xavier_split" else linear_init(scheme)


def dense(
    features: int, *, use_bias: bool = True, dtype: Any, kernel_init: Callable[..., Array], name: str
) -> nn.Dense:
    """Build a linear layer whose weight gradient is ``xᵀ g``, in this order; see :func:`product`."""
    return nn.Dense(features, use_bias, dtype, kernel_init=kernel_init, dot_general=_dot_general, name=name)


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """Multiply ``x @ kernel``, of ``[..., d]`` and ``[d, e]``, with the weight gradient taken as ``xᵀ g``.

    JAX takes it as ``(gᵀ x)ᵀ``. XLA on CPUs then fuses what made g, such as the gradient of a layer normalisation, into the
    transposed read, computes it again column by column, and a ViT-tiny step takes 1.5 times as long; x lies in memory.
    """
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    over = tuple(range(x.ndim - 1))
    to_kernel = jax.lax.dot_general(x, gradient, ((over, over), ((), ())))
    return gradient @ kernel.T, to_kernel


product.defvjp(_product_forward, _product_backward)


def _dot_general(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    """What ``nn.Dense`` calls: the last axis of x with the first of the kernel."""
    del dimensions, options
    return product(x, kernel)


def layer_norm(dtype: Any, name: str, epsilon: float = 1e-6) -> nn.LayerNorm:
    """Build a layer normalisation, its statistics in float32."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


Grid = tuple[int, int]


class Positions(NamedTuple):
    """What attention knows of the tokens' positions, besides the tokens.

    Attributes:
      bias: added to the scores, see :func:`ssl_jax.models.attention.attention_weights`.
      rotation: cosines and sines by which queries and keys are turned, each ``[b or 1, length, 1, width / heads]``, see
        :func:`ssl_jax.models.rope.rotate`.
      relative: rows of the block's own table of relative positions, ``[b or 1, length, length]``.
      present: bool ``[b or 1, length]``, tokens that are attended to; ``None``: all.
    """

    bias: Array | None = None
    rotation: tuple[Array, Array] | None = None
    relative: Array | None = None
    present: Array | None = None


NO_POSITIONS = Positions()


def relative_bias(table: Array, index: Array, grids: tuple[Grid, Grid]) -> Array:
    """Look up relative positions, ``[b or 1, heads, length, length]``, in a table ``[rows, heads]``.

    Args:
      table: for the first grid.
      index: of the second, see :func:`ssl_jax.models.positions.relative_index`.
      grids: rows and columns of patches, of the table and of the images.
    """
    source, target = grids
    return jnp.moveaxis(resize_relative_table(table, source=source, target=target)[index], -1, 1)


class MaskedBiasDense(nn.Module):
    """Joint linear layer of queries, keys and values in which the keys' bias is 0, whatever the parameter holds there.

    Reference: facebookresearch/dinov3 ``LinearKMaskedBias``. The keys' rows of the bias get no gradient.
    """

    kernel_init: Callable[..., Array]
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width, dtype = x.shape[-1], jnp.dtype(self.dtype)
        kernel = self.param("kernel", self.kernel_init, (width, 3 * width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (3 * width,), jnp.float32)
        bias = jnp.where(jnp.arange(3 * width) // width == 1, 0.0, bias)
        return product(x.astype(dtype), kernel.astype(dtype)) + bias.astype(dtype)


class Attention(nn.Module):
    """Multi-head self-attention of ``[b, length, width]``, queries, keys and values from one linear layer.

    Queries and keys are normalised for each head (``qk_norm``), then turned. With ``weights=True`` the result is who attends
    to whom, ``[b, heads, length, length]``, and nothing is mixed. With a ``layout`` the tokens are those of several crops, see
    :mod:`ssl_jax.models.packing`, which attend to their own crop; there are positions for each size. ``relative_grids`` are the
    grid of the table, then that of each size.
    """

    heads: int
    qkv_bias: bool
    scheme: str
    dtype: str
    layer: int = 0
    key_bias: bool = True
    qk_norm: bool = False
    norm_epsilon: float = 1e-6
    relative_grids: tuple[Grid, ...] | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        weights: bool = False,
        positions: Positions | tuple[Positions, ...] = NO_POSITIONS,
        layout: Layout | None = None,
    ) -> Array:
        width, init, dtype = x.shape[-1], self.scheme, jnp.dtype(self.dtype)
        layer: nn.Module
        if self.key_bias:
            layer = dense(
                3 * width, use_bias=self.qkv_bias, dtype=dtype, kernel_init=qkv_init(init), name="qkv"
            )
        else:
            layer = MaskedBiasDense(qkv_init(init), self.dtype, name="qkv")
        qkv = layer(x)
        query, key, value = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.heads, width // self.heads), 2, 0)
        if self.qk_norm:
            query = layer_norm(dtype, "q_norm", self.norm_epsilon)(query)
            key = layer_norm(dtype, "k_norm", self.norm_epsilon)(key)
        table = self.table()
        if layout is None:
            assert isinstance(positions, Positions)
            query, key, bias, present = self.apply_positions(query, key, positions, table, 0)
            if weights:
                return attention_weights(query, key, bias, present)
            mixed = attend(query, key, value, bias, present)
        else:
            divided = zip(*(unpack(part, layout) for part in (query, key, value)), positions, strict=True)
            parts = []
            for i, (q, k, v, own) in enumerate(divided):
                q, k, bias, present = self.apply_positions(q, k, own, table, i)
                parts.append(attend(q, k, v, bias, present))
            mixed = pack(parts, x.shape[0])
        last = linear_init(init, layer=self.layer)
        return dense(width, dtype=dtype, kernel_init=last, name="proj")(mixed.reshape(x.shape))

    def table(self) -> Array | None:
        if self.relative_grids is None:
            return None
        shape = (relative_rows(*self.relative_grids[0]), self.heads)
        return self.param("relative_bias", nn.initializers.zeros, shape, jnp.float32)

    def apply_positions(
        self, query: Array, key: Array, positions: Positions, table: Array | None, size: int
    ) -> tuple[Array, Array, Array | None, Array | None]:
        """Turn queries and keys of one size; what is added to their scores, and which keys count."""
        if positions.rotation is not None:
            query, key = rotate(query, *positions.rotation), rotate(key, *positions.rotation)
        bias = positions.bias
        if table is not None and positions.relative is not None:
            assert self.relative_grids is not None
            own = relative_bias(
                table, positions.relative, (self.relative_grids[0], self.relative_grids[1 + size])
            )
            bias = own if bias is None else own + bias
        return query, key, bias, positions.present


def gelu(x: Array) -> Array:
    """Compute ``x Φ(x)`` by ``(1 + erf(x/√2)) / 2``: jax.nn.gelu's erfc, exact far below 0 too, is four times slower on CPUs.

    >>> round(float(gelu(jnp.float32(1.0))), 4)
    0.8413
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


def quick_gelu(x: Array) -> Array:
    """Compute ``x σ(1.702 x)``, the approximation of GELU that CLIP uses.

    >>> round(float(quick_gelu(jnp.float32(1.0))), 4)
    0.8458

    Reference: Hendrycks & Gimpel 2016, section 2; openai/CLIP ``model.py``.
    """
    return x * nn.sigmoid(jnp.asarray(1.702, x.dtype) * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": nn.gelu,
    "quick_gelu": quick_gelu,
}


def hidden_units(width: int, ratio: float) -> int:
    """Count the hidden units of an MLP: ``width · ratio`` rounded down, but for what floating point loses.

    >>> hidden_units(384, 4.0), hidden_units(49, 11 / 49)
    (1536, 11)
    """
    return int(width * ratio + 1e-6)


class Mlp(nn.Module):
    """Two linear layers with GELU, or ``fc2(silu(a) · b)`` with ``[a | b] = fc1(x)`` (SwiGLU, packed)."""

    hidden_dim: int
    kind: str
    scheme: str
    dtype: str
    layer: int = 0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init, dtype = linear_init(self.scheme), jnp.dtype(self.dtype)
        h = dense(self.hidden_dim, dtype=dtype, kernel_init=init, name="fc1")(x)
        if self.kind == "swiglu":
            gate, value = jnp.split(h, 2, axis=-1)
            h = nn.silu(gate) * value
        else:
            h = ACTIVATIONS[self.kind](h)
        last = linear_init(self.scheme, layer=self.layer)
        return dense(x.shape[-1], dtype=dtype, kernel_init=last, name="fc2")(h)


class LayerScale(nn.Module):
    """Product of a residual branch with a learned vector ``gamma``, at first ``initial`` (CaiT, eq. 4)."""

    initial: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gamma = self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],), jnp.float32)
        return x * gamma.astype(x.dtype)


Branch = Callable[[Array, Any, Layout | None], Array]
"""Of a block: tokens, positions and layout to what is added."""


class Block(nn.Module):
    """``x + DropPath(γ₁ · Attention(LN(x)))``, then ``x + DropPath(γ₂ · MLP(LN(x)))``; or the attention's weights."""

    heads: int
    mlp: str = "gelu"
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    key_bias: bool = True
    qk_norm: bool = False
    norm_epsilon: float = 1e-6
    relative_grids: tuple[Grid, ...] | None = None
    layer_scale: float | None = None
    drop_path: float = 0.0
    drop_path_kind: str = "bernoulli"
    scheme: str = "xavier"
    dtype: str = "float32"
    layer: int = 0

    @nn.compact
    def __call__(
        self,
        x: Array,
        train: bool,
        weights: bool = False,
        positions: Positions | tuple[Positions, ...] = NO_POSITIONS,
        layout: Layout | None = None,
    ) -> Array:
        width, dtype = x.shape[-1], jnp.dtype(self.dtype)
        attention = Attention(
            self.heads,
            self.qkv_bias,
            self.scheme,
            self.dtype,
            self.layer,
            self.key_bias,
            self.qk_norm,
            self.norm_epsilon,
            self.relative_grids,
            name="attn",
        )
        norm1, norm2 = (layer_norm(dtype, name, self.norm_epsilon) for name in ("norm1", "norm2"))
        if weights:
            return attention(norm1(x), weights=True, positions=positions)
        mlp = Mlp(
            hidden_units(width, self.mlp_ratio), self.mlp, self.scheme, self.dtype, self.layer, name="mlp"
        )
        scale1, scale2 = self.scale("ls1"), self.scale("ls2")

        def mix(y: Array, positions: Any, layout: Layout | None) -> Array:
            return scale1(attention(norm1(y), positions=positions, layout=layout))

        def transform(y: Array, positions: Any, layout: Layout | None) -> Array:
            del positions, layout
            return scale2(mlp(norm2(y)))

        x = self.residual(mix, x, positions, train, layout)
        return self.residual(transform, x, positions, train, layout)

    def scale(self, name: str) -> Callable[[Array], Array]:
        if self.layer_scale is None:
            return lambda y: y
        return LayerScale(self.layer_scale, name=name)

    def residual(self, branch: Branch, x: Array, positions: Any, train: bool, layout: Layout | None) -> Array:
        if not train or self.drop_path == 0.0:
            return x + branch(x, positions, layout)
        streams = ["train"] if layout is None else [f"train_{i}" for i in range(len(layout))]
        if not self.has_rng(streams[0]):
            raise ValueError("key=None: allowed is a key, as drop_path > 0 draws in training")
        keys = [self.make_rng(stream) for stream in streams]
        parts = [x] if layout is None else unpack(x, layout)
        if self.drop_path_kind == "bernoulli":
            y = branch(x, positions, layout)
            branches = [y] if layout is None else unpack(y, layout)
            kept = [drop_path(key, y, rate=self.drop_path) for key, y in zip(keys, branches, strict=True)]
            return x + (kept[0] if layout is None else pack(kept, x.shape[0]))
        chosen = [
            kept_examples(key, len(part), rate=self.drop_path) for key, part in zip(keys, parts, strict=True)
        ]
        taken = [part[rows] for part, rows in zip(parts, chosen, strict=True)]
        if layout is None:
            branches = [branch(taken[0], chosen_positions(positions, chosen[0]), None)]
        else:
            own = tuple(chosen_positions(p, rows) for p, rows in zip(positions, chosen, strict=True))
            small = tuple((len(part), part.shape[1]) for part in taken)
            branches = unpack(branch(pack(taken, 1), own, small), small)
        added = [
            part.at[rows].add(y * jnp.asarray(part.shape[0] / len(rows), x.dtype))
            for part, rows, y in zip(parts, chosen, branches, strict=True)
        ]
        return added[0] if layout is None else pack(added, x.shape[0])


def chosen_positions(positions: Positions, rows: Array) -> Positions:
    """Take what attention knows of some examples of a batch; what is the same for all examples stays."""
    return jax.tree.map(lambda p: p if p.shape[0] == 1 else p[rows], positions)


def kept_examples(key: Array, count: int, *, rate: float) -> Array:
    """Draw which examples of a batch keep a branch, where their number is fixed: ``max(int(count (1 − rate)), 1)``.

    With the branch of these scaled by ``count`` over their number the expectation is that of the branch, and the others cost
    nothing.

    >>> import jax
    >>> kept_examples(jax.random.key(0), 8, rate=0.3).shape
    (5,)

    Reference: facebookresearch/dinov2 ``layers/block.py``.
    """
    return jax.random.permutation(key, count)[: max(int(count * (1 - rate)), 1)]


def drop_path(key: Array, branch: Array, *, rate: float) -> Array:
    """Apply stochastic depth: each example's branch is 0 with probability ``rate``, else divided by ``1 − rate``.

    Args:
      key: used once.
      branch: ``[batch, ...]``, floating point.
      rate: probability in ``[0, 1)``.

    Returns:
      ``[batch, ...]`` with the expectation of ``branch``.

    >>> import jax, jax.numpy as jnp
    >>> sorted(set(drop_path(jax.random.key(0), jnp.ones((64, 1)), rate=0.5)[:, 0].tolist()))
    [0.0, 2.0]

    Reference: Huang et al. 2016, with the inverted scaling of timm.
    """
    keep = jax.random.bernoulli(key, 1.0 - rate, (branch.shape[0],) + (1,) * (branch.ndim - 1))
    return jnp.where(keep, branch / jnp.asarray(1.0 - rate, branch.dtype), jnp.zeros_like(branch))


def apply_blocks(
    x: Array,
    *,
    depth: int,
    train: bool,
    remat: bool,
    remat_keeps: str,
    drop_path: float = 0.0,
    drop_path_uniform: bool = False,
    last_weights: bool = False,
    every: bool = False,
    positions: Callable[[], Positions | tuple[Positions, ...]] = Positions,
    layout: Layout | None = None,
    **options: Any,
) -> Any:
    """Apply ``blocks_0 … blocks_{depth−1}`` in the calling module; drop-path rates rise linearly from 0, or are all equal.

    ``positions`` is called for every block, and draws where they differ. With a ``layout`` the tokens are those of several
    crops, see :mod:`ssl_jax.models.packing`.

    With ``last_weights`` the result is the attention weights of the last block, ``[b, heads, length,
    length]``; with ``every`` it is the output of every block by its name.
    """
    block = rematerialize(Block, remat, remat_keeps, static=(2, 3, 5))
    layers: dict[str, Array] = {}
    for index in range(depth):
        rate = drop_path if drop_path_uniform else drop_path * index / max(depth - 1, 1)
        weights = last_weights and index == depth - 1
        module = block(drop_path=rate, layer=index + 1, name=f"blocks_{index}", **options)
        x = module(x, train, weights, positions(), layout)
        if every:
            layers[f"blocks_{index}"] = x
    return layers if every else x


def final_norm(x: Array, name: str, epsilon: float = 1e-6) -> Array:
    """Apply the layer normalisation whose output is at least float32, as tokens leave the network."""
    return layer_norm(jnp.promote_types(x.dtype, jnp.float32), name, epsilon)(x)


def gather_tokens(tokens: Array, indices: Array) -> Array:
    """Gather tokens ``[b, length, width]`` at ``indices [b, k]``: ``out[b, j] = tokens[b, indices[b, j]]``.

    >>> import jax.numpy as jnp
    >>> gather_tokens(jnp.arange(3.0).reshape(1, 3, 1), jnp.array([[2, 0]]))[0, :, 0].tolist()
    [2.0, 0.0]
    """
    return jnp.take_along_axis(tokens, indices[..., None], axis=1)
