"""Crops of several sizes through one network, and their prototypes: SwAV, DeepCluster-v2, LeJEPA."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Params, State
from ssl_jax.methods.parts.siamese import embed_views, project_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype

VIEWS: dict[str, Any] = {
    "global_area": (0.14, 1.0),
    "local_area": (0.05, 0.14),
    "local_count": 6,
    "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    "blur_prob": (0.5, 0.5),
    "solarize_prob": (0.0, 0.0),
}
"""SwAV's crops as options of the preset ``dino``: 2 x 224 and 6 x 96 pixels, colours and blur of SimCLR."""


def require_global_views(views: tuple[View, ...]) -> None:
    """Raise a ValueError unless there are two global views or more."""
    count = global_count(views)
    require(count >= 2, "views", count, "two global views or more, which come first")


def global_count(views: tuple[View, ...]) -> int:
    """Count the views of the size of the first one."""
    return sum(view.size == views[0].size for view in views)


def swav_projector(encoder: Network, *, width: int, projection: int, batch_norm: bool) -> Network:
    """Build SwAV's projector g: two layers with biases.

    Args:
      encoder: whose features it takes.
      width: units of the hidden layer.
      projection: d, width of the output.
      batch_norm: BatchNorm in the hidden layer.
    """
    norm = "batch" if batch_norm else "none"
    return heads.mlp((width, projection), hidden_norm=norm, dtype=compute_dtype(encoder))


def unit_projections(
    encoder: Network, projector: Network, params: Params, state: State, batch: Batch, key: Key
) -> tuple[Float[Array, "b v d"], State]:
    """Compute ``z = n(g(f(crop)))`` of all crops, the global ones first.

    Crops of one size pass through f as one batch, so BatchNorm statistics are per size; g runs once on the crops of all sizes.

    Args:
      encoder: f, in training mode.
      projector: g, in training mode.
      params: the method's parameters.
      state: batch statistics of ``encoder`` and ``projector``.
      batch: with ``views`` or ``features``, see :func:`ssl_jax.methods.parts.siamese.embed_views`.
      key: used once, for what the encoder draws.

    Returns:
      ``(z, state)``.
    """
    h, state = embed_views(encoder, params, state, batch, key)
    z, state = project_views(projector, params, state, h)
    return normalize(z), state


def cosines(z: Float[Array, "... d"], rows: Float[Array, "k d"]) -> Float[Array, "... k"]:
    """Compute ``z rowsᵀ`` of unit vectors, in full precision: temperatures are low."""
    return jnp.matmul(z, rows.T, precision=jax.lax.Precision.HIGHEST)
