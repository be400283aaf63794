"""Batch normalisation with torch's statistics, and what does without a batch: groups and standardised weights."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32, center, center_with_mean, safe_sqrt
from ssl_jax.core.types import Array

AFFINE = ("full", "scale", "none")
NORMS = ("batch", "group")


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last.

    ``y = γ (x − μ) / sqrt(σ² + ε) + β``. In training μ and σ² (biased) are those of the batch, computed in
    float32 or wider, and the running ones move by ``running ← d·running + (1 − d)·batch`` with the *unbiased*
    variance, as in torch (flax's own BatchNorm stores the biased one). The batch is the global one: on a mesh
    the statistics are synchronised, and the same on 1 device and on 8.

    Attributes:
      affine: ``"full"`` γ and β, ``"scale"`` γ only, ``"none"`` neither (torch's ``affine=False``).
      decay: d, share of the running statistics that is kept; torch's ``momentum`` is 1 − d.
      epsilon: ε.
      scale_init: initialiser of γ.
      dtype: dtype of the result; ``None``: that of the input.

    Reference: Ioffe & Szegedy, ICML 2015, algorithm 1 and 2.

    >>> import jax, jax.numpy as jnp
    >>> norm = BatchNorm()
    >>> x = jnp.array([[1.0], [3.0]])
    >>> variables = norm.init(jax.random.key(0), x, train=False)
    >>> y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    >>> [round(float(v), 3) for v in y[:, 0]], round(float(updated["batch_stats"]["var"][0]), 3)
    ([-1.0, 1.0], 1.1)
    """

    affine: str = "full"
    decay: float = 0.9
    epsilon: float = 1e-5
    scale_init: Any = nn.initializers.ones
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "... c"], *, train: bool) -> Float[Array, "... c"]:
        """Normalise; in training also update the running statistics (collection ``batch_stats``).

        Raises:
          ValueError: training on a single value a channel, which has no variance.
        """
        check.choice("affine", self.affine, AFFINE)
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        wide = at_least_float32(x)
        if train:
            axes = tuple(range(x.ndim - 1))
            if x.ndim == 2:
                # A loss may scale a head's outputs to length 1: where a channel is constant they are exactly 0.
                centered, mean = center_with_mean(wide, axes)
                mean = mean.reshape(channels)
            else:
                mean = jnp.mean(wide, axes)
                centered = wide - mean
            var = jnp.mean(centered**2, axes)
            if not self.is_initializing():
                running_mean.value = self._moved(running_mean.value, mean)
                running_var.value = self._moved(running_var.value, var * _unbiased(x))
        else:
            var = running_var.value
            centered = wide - running_mean.value
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.affine != "none":
            factor = factor * self.param("scale", self.scale_init, channels, jnp.float32)
        y = centered * factor
        if self.affine == "full":
            y = y + self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        return y.astype(self.dtype or x.dtype)

    def _moved(self, running: Array, batch: Array) -> Array:
        batch = jax.lax.stop_gradient(batch).astype(running.dtype)
        return self.decay * running + (1.0 - self.decay) * batch


class GroupNorm(nn.Module):
    """Group normalisation: statistics of each image by itself, over its positions and groups of channels.

    ``y = γ (x − μ) / sqrt(σ² + ε) + β`` with μ and σ² (biased) over the spatial axes and the channels of one group, computed in
    float32 or wider. Nothing is kept between steps, and training and evaluation are the same.

    Attributes:
      groups: number of groups; where it does not divide the channels, its greatest common divisor with them.
      spatial_axes: axes before the channels that share statistics: 2 for maps ``[b, h, w, c]``, 0 for vectors ``[..., c]``.
      epsilon: ε.
      scale_init: initialiser of γ.
      dtype: dtype of the result; ``None``: that of the input.

    Reference: Wu & He, Group Normalization, ECCV 2018, equation 7; Richemond et al., BYOL works even without batch statistics
    (2020).

    >>> import jax, jax.numpy as jnp
    >>> norm = GroupNorm(groups=2, spatial_axes=0)
    >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
    >>> y = norm.apply(norm.init(jax.random.key(0), x, train=False), x, train=False)
    >>> y.round(2).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """

    groups: int = 16
    spatial_axes: int = 2
    epsilon: float = 1e-5
    scale_init: Any = nn.initializers.ones
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "... c"], *, train: bool) -> Float[Array, "... c"]:
        """Normalise; ``train`` makes no difference."""
        del train
        channels = x.shape[-1]
        groups = math.gcd(self.groups, channels)
        wide = at_least_float32(x).reshape(*x.shape[:-1], groups, channels // groups)
        axes = (*range(x.ndim - 1 - self.spatial_axes, x.ndim - 1), x.ndim)
        centered = center(wide, axes)
        var = jnp.mean(centered**2, axes, keepdims=True)
        y = (centered * jax.lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        y = y * self.param("scale", self.scale_init, (channels,), jnp.float32)
        y = y + self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        return y.astype(self.dtype or x.dtype)


def map_norm(kind: str, **options: Any) -> nn.Module:
    """Build the normalisation of a convolution's maps: ``"batch"`` or ``"group"``.

    >>> type(map_norm("group", name="bn1")).__name__
    'GroupNorm'
    """
    return BatchNorm(**options) if kind == "batch" else GroupNorm(**options)


def standardize(kernel: Float[Array, "... k"], *, epsilon: float = 1e-5) -> Float[Array, "... k"]:
    """Standardise weights: those of each output get mean 0 and standard deviation 1.

    ``w ← (w − μ) / (σ + ε)`` with μ and σ (biased) over all axes but the last, computed in float32 or wider. Meant for layers
    that a normalisation follows, to which the scale of their outputs makes no difference.

    Args:
      kernel: ``[..., outputs]``: of a dense layer, or ``[h, w, in, out]`` of a convolution.
      epsilon: ε.

    Returns:
      An array like ``kernel``, in its dtype.

    >>> import jax.numpy as jnp
    >>> standardize(jnp.array([[1.0], [3.0]])).round(3).ravel().tolist()
    [-1.0, 1.0]

    Reference: Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization (2019),
    equation 5.
    """
    axes = tuple(range(kernel.ndim - 1))
    centered = center(kernel, axes)
    # σ by a safe root: its gradient at 0 (weights that are all equal, a single input) is 0 instead of NaN.
    deviation = safe_sqrt(jnp.mean(centered * centered, axes))
    return (centered / (deviation + epsilon)).astype(kernel.dtype)


def standardized_conv(inputs: Array, kernel: Array, *args: Any, **options: Any) -> Array:
    """Convolve as ``jax.lax.conv_general_dilated`` with standardised weights, for ``nn.Conv``."""
    return jax.lax.conv_general_dilated(inputs, standardize(kernel), *args, **options)


def standardized_dot(inputs: Array, kernel: Array, *args: Any, **options: Any) -> Array:
    """Multiply as ``jax.lax.dot_general`` with standardised weights, for ``nn.Dense``."""
    return jax.lax.dot_general(inputs, standardize(kernel), *args, **options)


def _unbiased(x: Array) -> float:
    """n / (n − 1) for n values a channel."""
    n = x.size // x.shape[-1]
    check.require(n > 1, "batch", x.shape, "more than one value a channel when train=True")
    return n / (n - 1)
