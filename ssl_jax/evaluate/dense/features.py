"""Frozen features of patches: maps of images of any size."""

from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Params, State
from ssl_jax.models.network import Network, grid_of, prefix_of


def patch_features(network: Network, params: Params, state: State, images: Array) -> Array:
    """Compute the features of the patches of images, float32 ``[n, rows, columns, d]``; may be traced.

    A ViT's patch tokens after its last normalization, without class token and registers; a CNN's last map.

    Args:
      network: an encoder with ``output="tokens"``: tokens of a ViT, or a map.
      params: its params.
      state: its state.
      images: normalised images ``[n, h, w, c]``.

    Raises:
      ValueError: an encoder without any.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models import build
    >>> network, images = build("convnet", widths=(4,), grid=1), jnp.zeros((2, 8, 12, 3))
    >>> patch_features(network, *network.init(jax.random.key(0), images), images).shape
    (2, 4, 6, 4)
    """
    try:
        tokens, _ = network.apply(params, state, images, train=False, output="tokens")
    except ValueError as error:
        if "output='tokens'" not in str(error):
            raise
        raise ValueError(
            f"{network.config.get('name')} has no features of patches, as ViTs and CNNs have"
        ) from error
    if tokens.ndim == 4:
        return at_least_float32(tokens)
    tokens = tokens[:, prefix_of(network) :]
    return at_least_float32(tokens.reshape(len(tokens), *grid_of(network, images), -1))
