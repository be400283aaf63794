"""Batch normalisation with torch's statistics."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array

AFFINE = ("full", "scale", "none")


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
            mean, var = jnp.mean(wide, axes), jnp.var(wide, axes)
            if not self.is_initializing():
                running_mean.value = self._moved(running_mean.value, mean)
                running_var.value = self._moved(running_var.value, var * _unbiased(x))
        else:
            mean, var = running_mean.value, running_var.value
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.affine != "none":
            factor = factor * self.param("scale", self.scale_init, channels, jnp.float32)
        y = (wide - mean) * factor
        if self.affine == "full":
            y = y + self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        return y.astype(self.dtype or x.dtype)

    def _moved(self, running: Array, batch: Array) -> Array:
        batch = jax.lax.stop_gradient(batch).astype(running.dtype)
        return self.decay * running + (1.0 - self.decay) * batch


def _unbiased(x: Array) -> float:
    """n / (n − 1) for n values a channel."""
    n = x.size // x.shape[-1]
    check.require(n > 1, "batch", x.shape, "more than one value a channel when train=True")
    return n / (n - 1)
