"""ConvNeXt and ConvNeXt V2: convolutional networks in the mould of transformers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32, safe_sqrt
from ssl_jax.core.types import Array
from ssl_jax.models.depthwise import depthwise_conv
from ssl_jax.models.network import DTYPES, Network, from_linen
from ssl_jax.models.remat import rematerialize, require_remat
from ssl_jax.models.transformer import dense, drop_path, gelu, linear_init

SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "convnext_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
"""Blocks and channels of the stages, by name."""
KERNEL = 7
OUTPUTS = ("features", "tokens", "layers")
kernel_init = linear_init("trunc_normal")


def layer_norm(dtype: Any, name: str, epsilon: float) -> nn.LayerNorm:
    """Build a normalisation over channels, its statistics in float32."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def patch_conv(width: int, patch: int, dtype: Any, name: str) -> nn.Conv:
    """Build the convolution of patches side by side; what is left at the right and the bottom is cut off, as in torch."""
    sides = (patch, patch)
    return nn.Conv(
        width, sides, strides=sides, padding="VALID", kernel_init=kernel_init, dtype=dtype, name=name
    )


class DepthwiseConv(nn.Module):
    """Convolution of each channel with a 7x7 filter of its own, and a bias."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        kernel = self.param("kernel", kernel_init, (KERNEL, KERNEL, 1, channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        return depthwise_conv(x.astype(self.dtype), kernel) + bias.astype(self.dtype)


class ResponseNorm(nn.Module):
    """Global response normalisation of ConvNeXt V2: channels compete by the size of their maps.

    ``y = γ · x · n + β + x`` with ``n_c = ‖x_c‖ / (mean over channels of ‖x_c‖ + 1e-6)``, where ``‖x_c‖`` is the L2 norm of
    channel c over all positions. γ and β start at 0.

    Reference: Woo et al., ConvNeXt V2, CVPR 2023, equations 1 to 3 and algorithm 1.

    >>> variables = {"params": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    >>> y = ResponseNorm().apply(variables, jnp.array([[[[3.0, 1.0]]]]))
    >>> [round(float(value), 2) for value in y.ravel()]
    [7.5, 1.5]
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        wide = at_least_float32(x)
        norms = safe_sqrt(jnp.sum(wide * wide, axis=(1, 2), keepdims=True))
        relative = norms / (jnp.mean(norms, axis=-1, keepdims=True) + 1e-6)
        return (wide + scale * wide * relative + bias).astype(x.dtype)


class Mlp(nn.Module):
    """Two linear layers at each position, four times as wide between, with GELU and in V2 the response normalisation."""

    grn: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        linear = partial(dense, dtype=self.dtype, kernel_init=kernel_init)
        h = gelu(linear(4 * x.shape[-1], name="fc1")(x))
        if self.grn:
            h = ResponseNorm(name="grn")(h)
        return linear(x.shape[-1], name="fc2")(h)


class Block(nn.Module):
    """``x + DropPath(γ · MLP(LN(conv7x7(x))))``."""

    grn: bool
    layer_scale: float | None
    drop_path: float
    norm_epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        y = DepthwiseConv(self.dtype, name="conv_dw")(x)
        y = layer_norm(self.dtype, "norm", self.norm_epsilon)(y)
        y = Mlp(self.grn, self.dtype, name="mlp")(y)
        if self.layer_scale is not None:
            start = nn.initializers.constant(self.layer_scale)
            y = y * self.param("gamma", start, (x.shape[-1],), jnp.float32).astype(y.dtype)
        if train and self.drop_path:
            if not self.has_rng("train"):
                raise ValueError("key=None: allowed is a key, as drop_path > 0 draws in training")
            y = drop_path(self.make_rng("train"), y, rate=self.drop_path)
        return x + y


class ConvNeXt(nn.Module):
    """Stem, stages of blocks, mean, normalisation. Names are timm's, ``stages.0.blocks.1`` as ``stages_0_blocks_1``."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem_patch: int
    grn: bool
    layer_scale: float | None
    drop_path: float
    norm_tokens: bool
    norm_epsilon: float
    last_norm_epsilon: float | None
    dtype: Any
    remat: bool
    remat_keeps: str

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool, output: str = "features") -> Any:
        check.choice("output", output, OUTPUTS)
        least = self.stem_patch * 2 ** (len(self.depths) - 1)
        sides = images.shape[1:3]
        check.require(
            min(sides) >= least, "images", sides, f"{least} pixels a side or more: each stage halves the map"
        )
        block: Any = rematerialize(Block, self.remat, self.remat_keeps, static=(2,))
        norm = partial(layer_norm, epsilon=self.norm_epsilon)
        x = patch_conv(self.widths[0], self.stem_patch, self.dtype, "stem_0")(images.astype(self.dtype))
        x = norm(self.dtype, "stem_1")(x)
        layers, before, blocks = {}, 0, sum(self.depths)
        for i, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            if i > 0:
                x = norm(self.dtype, f"stages_{i}_downsample_0")(x)
                x = patch_conv(width, 2, self.dtype, f"stages_{i}_downsample_1")(x)
            for j in range(depth):
                rate = self.drop_path * (before + j) / max(blocks - 1, 1)
                options = (self.grn, self.layer_scale, rate, self.norm_epsilon, self.dtype)
                x = block(*options, name=f"stages_{i}_blocks_{j}")(x, train)
            before += depth
            layers[f"stages_{i}"] = x
        epsilon = self.norm_epsilon if self.last_norm_epsilon is None else self.last_norm_epsilon
        last = layer_norm(jnp.promote_types(self.dtype, jnp.float32), "norm", epsilon)
        features = last(jnp.mean(at_least_float32(x), axis=(1, 2)))
        if output == "tokens":
            return last(x) if self.norm_tokens else x
        return layers if output == "layers" else features


def convnext(
    name: str,
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    stem_patch: int = 4,
    grn: bool = False,
    layer_scale: float | None = 1e-6,
    drop_path: float = 0.0,
    norm_tokens: bool = False,
    norm_epsilon: float = 1e-6,
    last_norm_epsilon: float | None = None,
    dtype: str = "float32",
    remat: bool = False,
    remat_keeps: str = "nothing",
) -> Network:
    """Build a ConvNeXt: patches, stages of blocks with a 7x7 depthwise convolution, global mean, layer normalisation.

    Each block is ``x ← x + γ · W₂ GELU(W₁ LN(conv7x7(x)))``, with the hidden layer four times as wide. Between stages stand a
    layer normalisation and a 2x2 convolution of stride 2; ``features = LN(mean of the last map)``. There is no batch
    statistic. Convolutions and linear layers start as N(0, 0.02²), biases at 0.

    Args:
      name: a key of :data:`SIZES`.
      depths: blocks of each stage.
      widths: channels of each stage, as many.
      stem_patch: side in pixels of the patches of the stem; 4 in the paper, 2 or 1 for small images.
      grn: :class:`ResponseNorm` between the linear layers of a block: ConvNeXt V2, which has no ``layer_scale``.
      layer_scale: start of γ; ``None``: no γ.
      drop_path: stochastic depth of the last block, in ``[0, 1)``, rising linearly from 0 at the first; per example.
      norm_tokens: the last map passes the final layer normalisation too, at each position, as in DINOv3.
      norm_epsilon: ε of the layer normalisations.
      last_norm_epsilon: ε of the last one, which transformers has apart; ``None``: that of the others.
      dtype: compute dtype, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.
      remat: recompute the blocks in the backward pass instead of keeping their activations.
      remat_keeps: with ``remat``, what of a block is kept all the same, see :func:`ssl_jax.models.remat.rematerialize`;
        depthwise convolutions are computed again.

    Returns:
      ``Network`` on images ``[batch, h, w, c]``; features are float32 ``[batch, widths[-1]]``. Option of apply:
      ``output="tokens"`` gives the last map ``[batch, h', w', widths[-1]]``, in the compute dtype or, with ``norm_tokens``,
      float32; ``output="layers"`` the map of every stage, ``{"stages_0": ..., ...}``, not normalised.

    Raises:
      ValueError: depths and widths of different lengths, or an option outside its range.

    Reference: Liu et al., A ConvNet for the 2020s, CVPR 2022, section 2 and table 9; Woo et al., ConvNeXt V2, CVPR 2023;
    Siméoni et al., DINOv3, 2025, for ``norm_tokens``.

    >>> import jax
    >>> network = convnext("convnext_tiny", depths=(1, 1), widths=(4, 8), stem_patch=2)
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> network.apply(params, state, jnp.ones((2, 8, 12, 3)))[0].shape
    (2, 8)
    >>> network.apply(params, state, jnp.ones((2, 8, 12, 3)), output="tokens")[0].shape
    (2, 2, 3, 8)
    """
    same = len(depths) == len(widths) >= 1
    check.require(same, "depths", tuple(depths), f"one for each of widths={tuple(widths)}")
    check.require(stem_patch >= 1, "stem_patch", stem_patch, "an integer of 1 or more")
    check.require(0 <= drop_path < 1, "drop_path", drop_path, "0 <= drop_path < 1")
    check.require(norm_epsilon > 0, "norm_epsilon", norm_epsilon, "a number above 0")
    last_known = last_norm_epsilon is None or last_norm_epsilon > 0
    check.require(last_known, "last_norm_epsilon", last_norm_epsilon, "a number above 0, or None")
    check.choice("dtype", dtype, DTYPES)
    require_remat(remat, remat_keeps)
    config = {
        "name": name,
        "depths": list(depths),
        "widths": list(widths),
        "stem_patch": stem_patch,
        "grn": grn,
        "layer_scale": layer_scale,
        "drop_path": drop_path,
        "norm_tokens": norm_tokens,
        "norm_epsilon": norm_epsilon,
        "last_norm_epsilon": last_norm_epsilon,
        "dtype": dtype,
        "remat": remat,
        "remat_keeps": remat_keeps,
    }
    module = ConvNeXt(
        tuple(depths),
        tuple(widths),
        stem_patch,
        grn,
        layer_scale,
        drop_path,
        norm_tokens,
        norm_epsilon,
        last_norm_epsilon,
        jnp.dtype(dtype),
        remat,
        remat_keeps,
    )
    return from_linen(module, features=widths[-1], config=config)


BUILDERS: dict[str, Callable[..., Network]] = {
    name: partial(convnext, name, depths=depths, widths=widths) for name, (depths, widths) in SIZES.items()
}
