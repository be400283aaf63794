"""Where a vision transformer looks: attention of the last block, a map a head."""

import functools

import jax
import numpy as np
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.types import Array, Params, State
from ssl_jax.models.network import Network, grid_of, prefix_of


def has_attention(encoder: Network) -> bool:
    """Say whether an encoder can give attention maps.

    >>> from ssl_jax import models
    >>> has_attention(models.build("vit_micro")), has_attention(models.build("convnet"))
    (True, False)
    """
    return {"heads", "patch", "class_token", "registers", "pool"} <= set(encoder.config)


def head_maps(
    encoder: Network, params: Params, state: State, images: Float[Array | np.ndarray, "b h w c"]
) -> Float[np.ndarray, "b heads rows columns"]:
    """Measure how much the last block's features take from each patch, for every head.

    With ``pool="cls"`` the row of the class token; with ``pool="mean"``, where every patch is a query, the mean of the
    patches' rows. Both over patch tokens only: what goes to the class token and the registers is left out, so a map sums
    to less than 1.

    Args:
      encoder: a ViT of :mod:`ssl_jax.models.vit`.
      params: parameters of the encoder.
      state: state of the encoder.
      images: normalised images, sides a multiple of the patch.

    Raises:
      ValueError: an encoder without attention.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax import models
    >>> encoder = models.build("vit_micro", width=16, depth=1, heads=2, patch=4, image_size=8)
    >>> head_maps(encoder, *encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1))), jnp.zeros((3, 8, 8, 1))).shape
    (3, 2, 2, 2)

    Reference: Caron et al. 2021 (DINO), figure 1, for the row of the class token.
    """
    check.require(has_attention(encoder), "encoder", encoder.config.get("name", ""), "a ViT")
    return np.asarray(jax.jit(functools.partial(last_attention, encoder))(params, state, images))


def last_attention(
    encoder: Network, params: Params, state: State, images: Float[Array | np.ndarray, "b h w c"]
) -> Float[Array, "b heads rows columns"]:
    """Apply a ViT and return the maps of :func:`head_maps`; may be traced.

    Args:
      encoder: a ViT of :mod:`ssl_jax.models.vit`.
      params: parameters of the encoder.
      state: state of the encoder.
      images: normalised images, sides a multiple of the patch.
    """
    prefix = prefix_of(encoder)
    weights, _ = encoder.apply(params, state, images, output="attention")
    rows = weights[:, :, 0] if encoder.config["pool"] == "cls" else weights[:, :, prefix:].mean(axis=2)
    return rows[..., prefix:].reshape(*rows.shape[:2], *grid_of(encoder, images))
