"""Pooling of tokens by attention: one learned query, then an MLP (SigLIP, big_vision's MAP head)."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_jax.core.types import Array
from ssl_jax.models.attention import attend
from ssl_jax.models.transformer import Mlp, dense, hidden_units, layer_norm, linear_init


class AttentionPool(nn.Module):
    """``y + MLP(LN(y))`` with ``y = proj(attention(q(latent), kv(x)))`` of tokens ``x [b, length, width]``; ``[b, width]``.

    ``present [b, length]`` (bool): tokens where it is False are not attended to. The names are timm's (``attn_pool``).

    Reference: Zhai et al. 2022 (Scaling vision transformers), section 3.2; google-research/big_vision ``MAPHead``.
    """

    heads: int
    mlp: str
    mlp_ratio: float
    norm_epsilon: float
    scheme: str
    dtype: str

    @nn.compact
    def __call__(self, x: Array, present: Array | None = None) -> Array:
        width, dtype, init = x.shape[-1], jnp.dtype(self.dtype), linear_init(self.scheme)
        latent = self.param("latent", nn.initializers.normal(width**-0.5), (1, 1, width), jnp.float32)
        query = dense(width, dtype=dtype, kernel_init=init, name="q")(latent.astype(dtype))
        both = dense(2 * width, dtype=dtype, kernel_init=init, name="kv")(x)
        key, value = jnp.moveaxis(both.reshape(*x.shape[:2], 2, self.heads, width // self.heads), 2, 0)
        query = jnp.broadcast_to(
            query.reshape(1, 1, self.heads, -1), (len(x), 1, self.heads, width // self.heads)
        )
        mixed = attend(query, key, value, present=present).reshape(len(x), width)
        y = dense(width, dtype=dtype, kernel_init=init, name="proj")(mixed)
        mlp = Mlp(hidden_units(width, self.mlp_ratio), self.mlp, self.scheme, self.dtype, name="mlp")
        return y + mlp(layer_norm(dtype, "norm", self.norm_epsilon)(y))
