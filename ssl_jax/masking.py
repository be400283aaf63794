"""Masks over the patches of one image: which are hidden, with static shapes. The caller vmaps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ssl_jax.core import check
from ssl_jax.core.types import Array, Key


class Mask(NamedTuple):
    """Which of L patches are hidden, with the indices to drop them and to put them back.

    Attributes:
      keep: ``[k]`` int32 indices of the visible patches, in the order in which the encoder sees them.
      restore: ``[L]`` int32: ``concatenate([visible, hidden])[restore]`` puts tokens back in image order,
        where ``visible = tokens[keep]`` and the hidden ones may be L − k copies of a mask token.
      hidden: ``[L]`` bool, True = hidden, in image order.
    """

    keep: Int[Array, " k"]
    restore: Int[Array, " length"]
    hidden: Bool[Array, " length"]


def random_mask(key: Key, length: int, *, ratio: float) -> Mask:
    """Hide a fixed number of patches drawn uniformly without replacement, for one image.

    Args:
      key: PRNG key, one an image.
      length: L, the number of patches.
      ratio: share of hidden patches in [0, 1); ``int(L (1 − ratio))`` patches stay visible.

    Returns:
      A :class:`Mask`.

    Raises:
      ValueError: a ratio outside [0, 1), or one that leaves no patch visible.

    Example:
      >>> import jax
      >>> mask = random_mask(jax.random.key(0), 16, ratio=0.75)
      >>> mask.keep.shape, int(mask.hidden.sum())
      ((4,), 12)

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3.
    """
    return mask_from_noise(jax.random.uniform(key, (length,)), ratio=ratio)


def mask_from_noise(noise: Float[Array, " length"], *, ratio: float) -> Mask:
    """Keep the patches with the smallest noise visible: the deterministic core of :func:`random_mask`.

    Args:
      noise: ``[L]`` any float dtype; equal values count in image order.
      ratio: share of hidden patches in [0, 1). As in the authors' code ``int(L (1 − ratio))``, a product of
        floats that is truncated, stay visible: ratio 0.9 of 100 patches leaves 9, since 1 − 0.9 < 0.1 in
        floating point.

    Returns:
      A :class:`Mask`.

    Raises:
      ValueError: a ratio outside [0, 1), or one that leaves no patch visible.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = mask_from_noise(jnp.array([0.9, 0.1, 0.5, 0.3]), ratio=0.5)
      >>> mask.keep.tolist(), mask.restore.tolist(), mask.hidden.tolist()
      ([1, 3], [3, 0, 2, 1], [True, False, True, False])
    """
    length = noise.shape[0]
    visible = int(length * (1 - ratio))
    check.require(0 <= ratio < 1, "ratio", ratio, "a share in [0, 1)")
    check.require(
        visible >= 1, "ratio", ratio, f"a share that leaves at least one of {length} patches visible"
    )
    order = jnp.argsort(noise).astype(jnp.int32)
    restore = jnp.argsort(order).astype(jnp.int32)
    return Mask(keep=order[:visible], restore=restore, hidden=restore >= visible)
