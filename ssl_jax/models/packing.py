"""Crops of several sizes as one sequence an example: what works on tokens runs once, attention stays inside of a crop."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ssl_jax.core.check import require
from ssl_jax.core.types import Array
from ssl_jax.models.network import Network

Layout = tuple[tuple[int, int], ...]
"""For each size of crops: how many crops of an example, and how many tokens of a crop."""


def pack(parts: Sequence[Array], batch: int) -> Array:
    """Join the tokens of all crops of an example, ``[b, Σ v n, ...]``, of ``[b v, n, ...]`` for each size.

    Args:
      parts: tokens, crops of an example next to each other.
      batch: b.

    >>> import jax.numpy as jnp
    >>> pack([jnp.ones((4, 9, 8)), jnp.ones((6, 3, 8))], 2).shape
    (2, 27, 8)
    """
    return jnp.concatenate([part.reshape(batch, -1, *part.shape[2:]) for part in parts], axis=1)


def unpack(x: Array, layout: Layout) -> list[Array]:
    """Divide ``[b, Σ v n, ...]`` into ``[b v, n, ...]`` for each size, the inverse of :func:`pack`.

    Args:
      x: tokens.
      layout: v and n of each size.

    >>> import jax.numpy as jnp
    >>> [part.shape for part in unpack(jnp.ones((2, 27, 8)), ((2, 9), (3, 3)))]
    [(4, 9, 8), (6, 3, 8)]
    """
    ends = np.cumsum([crops * tokens for crops, tokens in layout])[:-1].tolist()
    parts = jnp.split(x, ends, axis=1)
    return [part.reshape(-1, n, *part.shape[2:]) for part, (_, n) in zip(parts, layout, strict=True)]


def pack_crops(encoder: Network) -> Network:
    """Let methods with crops of several sizes pass them through an encoder as one sequence an example.

    Linear layers, normalisations and MLPs then run once on the tokens of all sizes, and read their weights once; attention is
    computed crop by crop, that is on the blocks of its block-diagonal matrix only. Results and gradients are those of a pass
    for each size, to rounding, and the draws of training are the same: nothing but speed changes.

    ``apply(params, state, crops, ...)`` of a vision transformer takes a tuple of ``[b, v, h, w, c]`` for each size. It returns
    features ``[b, Σ v, width]``, or with ``output="tokens"`` a tuple with ``[b, v, prefix + patches, width]`` for each size;
    ``mask [b v, patches]`` is about the first size.

    Args:
      encoder: from ``models.build``.

    Returns:
      The network with ``packed``, which methods read.

    Raises:
      ValueError: it is no vision transformer.

    >>> from ssl_jax.models import build
    >>> pack_crops(build("vit_tiny")).packed
    True

    Reference: Oquab et al. 2023 (DINOv2), section 5, "sequence packing".
    """
    name = str(encoder.config.get("name", ""))
    require(name.startswith("vit"), "encoder", name, "a ViT, to pack crops of several sizes")
    return encoder._replace(packed=True)
