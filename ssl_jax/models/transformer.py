"""Pre-norm transformer blocks, shared by the vision transformer and the decoders."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.core.types import Array
from ssl_jax.models.remat import rematerialize

INITS = ("xavier", "xavier_split", "trunc_normal", "beit")
DROP_PATHS = ("bernoulli", "subset")
MLPS = ("gelu", "gelu_tanh", "swiglu")
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


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Build a layer normalisation with ε = 1e-6, its statistics in float32."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)


def attention_weights(query: Array, key: Array, bias: Array | None = None) -> Array:
    """Compute ``softmax(q kᵀ / √d + bias)``, ``[b, heads, queries, keys]``, of ``[b, length, heads, d]``, at least in float32.

    The bias is ``[b or 1, heads or 1, queries or 1, keys]``, −∞ for keys that do not count.

    ``jax.nn.dot_product_attention`` takes its softmax in float32 always, which loses float64.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
    scores = scores * query.shape[-1] ** -0.5
    return jax.nn.softmax(scores if bias is None else scores + bias.astype(wide), axis=-1)


def attend(query: Array, key: Array, value: Array, bias: Array | None = None) -> Array:
    """Compute ``softmax(q kᵀ / √d + bias) v`` of ``[b, length, heads, d]``."""
    weights = attention_weights(query, key, bias)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


class Attention(nn.Module):
    """Multi-head self-attention of ``[b, length, width]``, queries, keys and values from one linear layer.

    With ``weights=True`` the result is who attends to whom, ``[b, heads, length, length]``, and nothing is mixed.
    """

    heads: int
    qkv_bias: bool
    scheme: str
    dtype: str
    layer: int = 0

    @nn.compact
    def __call__(self, x: Array, weights: bool = False, bias: Array | None = None) -> Array:
        width, init, dtype = x.shape[-1], self.scheme, jnp.dtype(self.dtype)
        qkv = dense(3 * width, use_bias=self.qkv_bias, dtype=dtype, kernel_init=qkv_init(init), name="qkv")(x)
        query, key, value = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.heads, width // self.heads), 2, 0)
        if weights:
            return attention_weights(query, key, bias)
        mixed = attend(query, key, value, bias).reshape(x.shape)
        return dense(width, dtype=dtype, kernel_init=linear_init(init, layer=self.layer), name="proj")(mixed)


def gelu(x: Array) -> Array:
    """Compute ``x Φ(x)`` by ``(1 + erf(x/√2)) / 2``: jax.nn.gelu's erfc, exact far below 0 too, is four times slower on CPUs.

    >>> round(float(gelu(jnp.float32(1.0))), 4)
    0.8413
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


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
            h = nn.gelu(h) if self.kind == "gelu_tanh" else gelu(h)
        last = linear_init(self.scheme, layer=self.layer)
        return dense(x.shape[-1], dtype=dtype, kernel_init=last, name="fc2")(h)


class LayerScale(nn.Module):
    """Product of a residual branch with a learned vector ``gamma``, at first ``initial`` (CaiT, eq. 4)."""

    initial: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gamma = self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],), jnp.float32)
        return x * gamma.astype(x.dtype)


class Block(nn.Module):
    """``x + DropPath(γ₁ · Attention(LN(x)))``, then ``x + DropPath(γ₂ · MLP(LN(x)))``; or the attention's weights."""

    heads: int
    mlp: str = "gelu"
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_scale: float | None = None
    drop_path: float = 0.0
    drop_path_kind: str = "bernoulli"
    scheme: str = "xavier"
    dtype: str = "float32"
    layer: int = 0

    @nn.compact
    def __call__(self, x: Array, train: bool, weights: bool = False, bias: Array | None = None) -> Array:
        width, dtype = x.shape[-1], jnp.dtype(self.dtype)
        hidden_dim = int(width * self.mlp_ratio)
        attention = Attention(self.heads, self.qkv_bias, self.scheme, self.dtype, self.layer, name="attn")
        norm1, norm2 = layer_norm(dtype, "norm1"), layer_norm(dtype, "norm2")
        if weights:
            return attention(norm1(x), weights=True, bias=bias)
        mlp = Mlp(hidden_dim, self.mlp, self.scheme, self.dtype, self.layer, name="mlp")
        scale1, scale2 = self.scale("ls1"), self.scale("ls2")
        x = self.residual(lambda y, b: scale1(attention(norm1(y), bias=b)), x, bias, train)
        return self.residual(lambda y, _: scale2(mlp(norm2(y))), x, bias, train)

    def scale(self, name: str) -> Callable[[Array], Array]:
        if self.layer_scale is None:
            return lambda y: y
        return LayerScale(self.layer_scale, name=name)

    def residual(
        self, branch: Callable[[Array, Array | None], Array], x: Array, bias: Array | None, train: bool
    ) -> Array:
        if not train or self.drop_path == 0.0:
            return x + branch(x, bias)
        if not self.has_rng("train"):
            raise ValueError("key=None: allowed is a key, as drop_path > 0 draws in training")
        key = self.make_rng("train")
        if self.drop_path_kind == "bernoulli":
            return x + drop_path(key, branch(x, bias), rate=self.drop_path)
        chosen = kept_examples(key, x.shape[0], rate=self.drop_path)
        chosen_bias = bias if bias is None or bias.shape[0] == 1 else bias[chosen]
        y = branch(x[chosen], chosen_bias) * jnp.asarray(x.shape[0] / len(chosen), x.dtype)
        return x.at[chosen].add(y)


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
    bias: Array | None = None,
    **options: Any,
) -> Any:
    """Apply ``blocks_0 … blocks_{depth−1}`` in the calling module; drop-path rates rise linearly from 0, or are all equal.

    ``bias`` is added to the attention's scores in all of them, see :func:`attention_weights`.

    With ``last_weights`` the result is the attention weights of the last block, ``[b, heads, length,
    length]``; with ``every`` it is the output of every block by its name.
    """
    block = rematerialize(Block, remat, remat_keeps, static=(2, 3))
    layers: dict[str, Array] = {}
    for index in range(depth):
        rate = drop_path if drop_path_uniform else drop_path * index / max(depth - 1, 1)
        weights = last_weights and index == depth - 1
        x = block(drop_path=rate, layer=index + 1, name=f"blocks_{index}", **options)(x, train, weights, bias)
        if every:
            layers[f"blocks_{index}"] = x
    return layers if every else x


def final_norm(x: Array, name: str) -> Array:
    """Build the layer normalisation whose output is at least float32, as tokens leave the network."""
    return layer_norm(jnp.promote_types(x.dtype, jnp.float32), name)(x)


def gather_tokens(tokens: Array, indices: Array) -> Array:
    """Gather tokens ``[b, length, width]`` at ``indices [b, k]``: ``out[b, j] = tokens[b, indices[b, j]]``.

    >>> import jax.numpy as jnp
    >>> gather_tokens(jnp.arange(3.0).reshape(1, 3, 1), jnp.array([[2, 0]]))[0, :, 0].tolist()
    [2.0, 0.0]
    """
    return jnp.take_along_axis(tokens, indices[..., None], axis=1)
