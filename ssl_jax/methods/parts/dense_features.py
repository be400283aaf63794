"""A class token and patches of any encoder, and patches on another grid: dense distillation, features as targets."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key, Params, State
from ssl_jax.models.network import Network, grid_of, prefix_of
from ssl_jax.models.positions import resampling_matrix


def dense_features(
    network: Network,
    params: Params,
    state: State,
    images: Float[Array, "b h w c"],
    *,
    train: bool = False,
    key: Key | None = None,
    raw: bool = False,
) -> tuple[Float[Array, "b d"], Float[Array, "b r s d"], State]:
    """Compute a vector of each image and the features of its patches.

    Of a ViT with a class token these are the class token and the patch tokens after the last normalisation. Of other networks
    patches are the patch tokens, or the positions of the last map, and the vector is their mean.

    Args:
      network: from ``models.build``.
      params: its params.
      state: its state.
      images: ``[b, h, w, c]``.
      train: as in ``network.apply``.
      key: as in ``network.apply``.
      raw: of a ViT the output of its last block, before the last normalisation.

    Returns:
      ``(vectors [b, d], patches [b, rows, columns, d], state)``, at least float32.

    >>> from ssl_jax import models
    >>> images = jnp.zeros((2, 8, 12, 3))
    >>> for name, options in (("vit_micro", {"patch": 4, "image_size": 8}), ("convnet", {"widths": (8, 16)})):
    ...     network = models.build(name, **options)
    ...     vectors, patches, _ = dense_features(network, *network.init(jax.random.key(0), images), images)
    ...     print(vectors.shape, patches.shape)
    (2, 128) (2, 2, 3, 128)
    (2, 16) (2, 2, 3, 16)
    """
    output = "layers" if raw and "class_token" in network.config else "tokens"
    tokens, state = network.apply(params, state, images, train=train, key=key, output=output)
    if output == "layers":
        tokens = tokens[f"blocks_{int(network.config['depth']) - 1}"]
    tokens = at_least_float32(tokens)
    if tokens.ndim == 4:
        return jnp.mean(tokens, axis=(1, 2)), tokens, state
    prefix = prefix_of(network)
    patches = tokens[:, prefix:]
    vectors = tokens[:, 0] if network.config["class_token"] else jnp.mean(patches, axis=1)
    return vectors, patches.reshape(len(images), *grid_of(network, images), -1), state


def token_width(network: Network, images: Float[Array, "b h w c"]) -> int:
    """Return the width of the features of an encoder's patches; nothing is computed.

    >>> from ssl_jax import models
    >>> token_width(models.build("convnet", widths=(8, 16), grid=2), jnp.zeros((1, 8, 8, 3)))
    16
    """
    return map_shape(network, images)[-1]


def map_shape(network: Network, images: Float[Array, "b h w c"]) -> tuple[int, int, int]:
    """Return rows, columns and width of the patches of :func:`dense_features`; nothing is computed."""

    def patches(x: Array) -> Array:
        return dense_features(network, *network.init(jax.random.key(0), x), x)[1]

    rows, columns, width = jax.eval_shape(patches, images).shape[1:]
    return int(rows), int(columns), int(width)


def resample_grid(
    features: Float[Array, "b r s d"], grid: tuple[int, int]
) -> Float[Array, "b rows columns d"]:
    """Resample features of patches to another grid, bilinearly.

    Position ``i`` of n lies at ``(i + 1/2) m/n − 1/2`` of m; values are interpolated between the two nearest ones of each axis,
    and beyond the ends the last one repeats (``interpolate(mode="bilinear", align_corners=False)`` of torch).

    Args:
      features: ``[b, r, s, d]``.
      grid: rows and columns wanted.

    >>> resample_grid(jnp.asarray([0.0, 4.0]).reshape(1, 1, 2, 1), (1, 4)).ravel().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    if features.shape[1:3] == tuple(grid):
        return features
    rows, columns = (
        jnp.asarray(resampling_matrix(source, target, resize="linear"), features.dtype)
        for source, target in zip(features.shape[1:3], grid, strict=True)
    )
    return jnp.einsum("ir,js,brsd->bijd", rows, columns, features, precision="highest")
