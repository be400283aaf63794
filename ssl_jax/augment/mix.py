"""Mixtures of two images."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.types import Array, Key


def cutmix(
    key: Key, image: Float[Array, "h w c"], other: Float[Array, "h w c"]
) -> tuple[Float[Array, "h w c"], Float[Array, ""]]:
    """CutMix: a random rectangle of an image is replaced by the same place of another one.

    With λ ~ U(0, 1) the rectangle has the sides ``h √(1 − λ)`` and ``w √(1 − λ)``, rounded down to even pixels, and a
    centre that is uniform over the image; what lies outside is cut off. Targets are mixed in the same shares:
    ``share · y + (1 − share) · y'``.

    Args:
      key: used once.
      image: ``[h, w, c]``.
      other: ``[h, w, c]``.

    Returns:
      ``(mixed, share)``: the share in [0, 1] of pixels that are still those of ``image``, float32.

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> mixed, share = cutmix(jax.random.key(0), jnp.ones((8, 8, 3)), jnp.zeros((8, 8, 3)))
      >>> bool(mixed.mean() == share)
      True

    Reference: Yun et al., "CutMix", ICCV 2019, eqs. 1 and 2, with α = 1.
    """
    check.require(other.shape == image.shape, "other.shape", other.shape, f"that of image, {image.shape}")
    side, *centre = jax.random.uniform(key, (3,))

    def covered(size: int, place: Array) -> Array:
        half = jnp.floor(size * jnp.sqrt(1.0 - side)) // 2
        return jnp.abs(jnp.arange(size) + 0.5 - jnp.floor(place * size)) < half

    rows, columns = (covered(size, place) for size, place in zip(image.shape[:2], centre, strict=True))
    cut = rows[:, None] & columns
    return jnp.where(cut[:, :, None], other, image), 1.0 - jnp.mean(cut.astype(jnp.float32))
