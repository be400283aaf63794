"""Residual networks, version 1.5, for images of ImageNet's size and for small ones."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.network import DTYPES, Network, from_linen
from ssl_jax.models.norm import NORMS, map_norm, standardized_conv
from ssl_jax.models.remat import rematerialize, require_remat
from ssl_jax.models.sobel import sobel as sobel_of

STAGES = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BOTTLENECKS = ("resnet50", "resnet101", "resnet152")
STEMS = ("imagenet", "small")
PADDINGS = ("symmetric", "same", "same_pool")
OUTPUTS = ("features", "tokens", "layers")


def conv(
    width: int, kernel: int, *, norm: str, stride: int = 1, padding: str = "symmetric", dtype: Any, name: str
) -> nn.Conv:
    """Build a convolution without bias, padded as in torch: ``kernel // 2`` on every side; ``"same"`` is lopsided.

    Its weights are standardised where the normalisation ``norm`` that follows is by groups.
    """
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return nn.Conv(
        width,
        (kernel, kernel),
        strides=stride,
        padding="SAME" if padding == "same" else kernel // 2,
        use_bias=False,
        kernel_init=init,
        dtype=dtype,
        name=name,
        conv_general_dilated=standardized_conv if norm == "group" else None,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34)."""

    width: int
    stride: int
    last_scale_init: Any
    norm: str
    dtype: Any
    padding: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        layer = partial(conv, norm=self.norm, padding=self.padding, dtype=self.dtype)
        norm = partial(map_norm, self.norm, dtype=self.dtype)
        y = layer(self.width, 3, stride=self.stride, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train=train))
        y = layer(self.width, 3, name="conv2")(y)
        y = norm(scale_init=self.last_scale_init, name="bn2")(y, train=train)
        return nn.relu(y + shortcut(x, y, stride=self.stride, norm=self.norm, train=train, dtype=self.dtype))


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50 and deeper); version 1.5 has the stride on the 3x3."""

    width: int
    stride: int
    last_scale_init: Any
    norm: str
    dtype: Any
    padding: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        layer = partial(conv, norm=self.norm, padding=self.padding, dtype=self.dtype)
        norm = partial(map_norm, self.norm, dtype=self.dtype)
        y = layer(self.width, 1, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train=train))
        y = layer(self.width, 3, stride=self.stride, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y, train=train))
        y = layer(4 * self.width, 1, name="conv3")(y)
        y = norm(scale_init=self.last_scale_init, name="bn3")(y, train=train)
        return nn.relu(y + shortcut(x, y, stride=self.stride, norm=self.norm, train=train, dtype=self.dtype))


def shortcut(x: Array, y: Array, *, stride: int, norm: str, train: bool, dtype: Any) -> Array:
    """Bring the input of a block to the shape of its branch: as it is, or through a strided 1x1 convolution."""
    if x.shape == y.shape:
        return x
    x = conv(y.shape[-1], 1, stride=stride, norm=norm, dtype=dtype, name="downsample_0")(x)
    return map_norm(norm, dtype=dtype, name="downsample_1")(x, train=train)


class ResNet(nn.Module):
    """Stem, four stages of blocks, global mean. Names are torchvision's, ``layer1.0`` as ``layer1_0``."""

    stages: tuple[int, ...]
    bottleneck: bool
    stem: str
    width: int
    last_scale_init: Any
    norm: str
    padding: str
    dtype: Any
    remat: bool
    remat_keeps: str
    sobel: bool

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool, output: str = "features") -> Any:
        check.choice("output", output, OUTPUTS)
        block: Any = BottleneckBlock if self.bottleneck else BasicBlock
        block = rematerialize(block, self.remat, self.remat_keeps, static=(2,))
        small = self.stem == "small"
        x = (sobel_of(images) if self.sobel else images).astype(self.dtype)
        options = {"norm": self.norm, "padding": self.padding, "dtype": self.dtype, "name": "conv1"}
        x = conv(self.width, 3 if small else 7, stride=1 if small else 2, **options)(x)
        x = nn.relu(map_norm(self.norm, dtype=self.dtype, name="bn1")(x, train=train))
        if not small:
            symmetric = self.padding == "symmetric"
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)) if symmetric else "SAME")
        layers = {}
        for i, count in enumerate(self.stages):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                sizes = (self.width * 2**i, stride, self.last_scale_init, self.norm, self.dtype, self.padding)
                x = block(*sizes, name=f"layer{i + 1}_{j}")(x, train)
            layers[f"layer{i + 1}"] = x
        if output == "layers":
            return layers
        return x if output == "tokens" else jnp.mean(at_least_float32(x), axis=(1, 2))


def resnet(
    name: str,
    *,
    stem: str = "imagenet",
    width: float = 1.0,
    zero_init_residual: bool = False,
    norm: str = "batch",
    padding: str = "symmetric",
    dtype: str = "float32",
    remat: bool = False,
    remat_keeps: str = "nothing",
    sobel: bool = False,
) -> Network:
    """Build a residual network: stem, four stages of residual blocks, global mean.

    ``x ← relu(f(x) + shortcut(x))`` in each block. Version 1.5: the 3x3 convolution of a bottleneck carries
    the stride (in the paper the first 1x1 does). Convolutions start as N(0, 2/fan_out).

    Args:
      name: ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"resnet101"`` or ``"resnet152"``.
      stem: ``"imagenet"`` (7x7 stride 2, then 3x3 max-pool stride 2) or ``"small"`` (3x3 stride 1, no
        pooling: for 32 px).
      width: factor on the number of channels of every layer, as in SimCLR ("2x"); 64 · width is rounded.
      zero_init_residual: start γ of each block's last normalisation at 0, so that blocks start as the identity
        (SimCLR, SimSiam, MoCo v3, Barlow Twins, VICReg do; MoCo v1 and v2 and SwAV do not).
      norm: ``"batch"``, or ``"group"``: GroupNorm in 16 groups and standardised weights in its place, which know no batch
        (under the same names; such weights are not torchvision's).
      padding: of what halves the sides: ``"symmetric"``, as in torch: one pixel on every side, three in the stem;
        ``"same"``, as in Haiku (DeepMind's BYOL): of an even side one pixel more after it than before; ``"same_pool"``: so for
        the max-pool alone (Google's SimCLR).
      dtype: compute dtype, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.
      remat: recompute the blocks in the backward pass instead of keeping their activations.
      remat_keeps: with ``remat``, what of a block is kept all the same, see :func:`ssl_jax.models.remat.recomputed`.
      sobel: the first layer sees :func:`ssl_jax.models.sobel.sobel` of the images, edges without colour.

    Returns:
      ``Network`` on images ``[batch, h, w, c]``; features are float32 ``[batch, 512 · width]`` (ResNet-50 and
      deeper: ``2048 · width``). Option of apply: ``output="tokens"`` gives the last map ``[batch, h', w', features]``
      in the compute dtype; ``output="layers"`` the map of every stage, ``{"layer1": ..., ...,
      "layer4": ...}``.

    Raises:
      ValueError: an unknown name, stem, norm, padding, dtype or ``remat_keeps``, or a width that leaves no channel.

    Reference: He et al., CVPR 2016, table 1; shortcut option B. Norm by groups: Richemond et al., BYOL works even without batch
    statistics (2020).

    >>> import jax, jax.numpy as jnp
    >>> network = resnet("resnet18", stem="small", width=0.0625)
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> network.apply(params, state, jnp.ones((2, 8, 8, 3)))[0].shape
    (2, 32)
    """
    check.choice("name", name, STAGES)
    check.choice("stem", stem, STEMS)
    check.choice("norm", norm, NORMS)
    check.choice("padding", padding, PADDINGS)
    check.choice("dtype", dtype, DTYPES)
    require_remat(remat, remat_keeps)
    base = round(64 * width)
    check.require(base >= 1, "width", width, "a factor of 1/64 or more")
    bottleneck = name in BOTTLENECKS
    config = {
        "name": name,
        "stem": stem,
        "width": width,
        "zero_init_residual": zero_init_residual,
        "norm": norm,
        "padding": padding,
        "dtype": dtype,
        "remat": remat,
        "remat_keeps": remat_keeps,
        "sobel": sobel,
    }
    last = nn.initializers.zeros if zero_init_residual else nn.initializers.ones
    module = ResNet(
        STAGES[name], bottleneck, stem, base, last, norm, padding, jnp.dtype(dtype), remat, remat_keeps, sobel
    )
    return from_linen(module, features=base * 8 * (4 if bottleneck else 1), config=config)


BUILDERS: dict[str, Callable[..., Network]] = {name: partial(resnet, name) for name in STAGES}
