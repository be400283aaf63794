"""The scaffolding of clustering methods that see crops of several sizes through one network: SwAV, DeepCluster-v2."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Method, encoder_at
from ssl_jax.methods.parts.siamese import embed_views, pair_health, project_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype

VIEWS: dict[str, Any] = {
    "global_area": (0.14, 1.0),
    "local_area": (0.05, 0.14),
    "local_count": 6,
    "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    "blur": (0.5, 0.5),
    "solarize": (0.0, 0.0),
}
"""SwAV's crops as options of the preset ``dino``: 2 x 224 and 6 x 96 pixels, colours and blur of SimCLR."""

LossOf = Callable[[Params, State, Array, Batch, Array], tuple[Array, State, Metrics]]
"""``(params, kept, z, batch, step) -> (loss, kept, metrics)``: z are the unit projections ``[b, v, d]`` of the crops, of which
the global ones come first, and ``kept`` is what the method itself keeps in the state."""


def multicrop_method(
    encoder: Network,
    loss_of: LossOf,
    *,
    views: tuple[View, ...],
    begin: Callable[[Key], tuple[Params, State]],
    collapse: tuple[CollapseValue, ...],
    width: int,
    projection: int,
    batch_norm: bool,
) -> tuple[Method, Callable[[Params, State, Array], Array]]:
    """A method whose loss is a function of the unit projections of all crops, ``z = n(g(f(crop)))``.

    Crops of one size pass through the encoder f as one batch, so BatchNorm statistics are per size; the projector g, two layers
    with biases, runs once on the crops of all sizes.

    Args:
      encoder: the network to train; its features are what ``encode`` gives.
      loss_of: the loss, with what the method keeps.
      views: crops; those of the first size are the global ones.
      begin: ``key -> (params, kept)`` of the method itself, beside ``encoder``, ``projector`` and ``online``.
      collapse: metric values of collapse, as in :class:`ssl_jax.methods.method.Method`.
      width: of the projector's hidden layer.
      projection: d.
      batch_norm: BatchNorm in the hidden layer.

    Returns:
      The method, and ``(params, state, images) -> z [b, d]`` of whole images, without training.

    Raises:
      ValueError: fewer than two global views.
    """
    require(
        global_count(views) >= 2, "views", global_count(views), "two global views or more, which come first"
    )
    norm = "batch" if batch_norm else "none"
    projector = heads.mlp((width, projection), hidden_norm=norm, dtype=compute_dtype(encoder))
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, own_key = jax.random.split(key)
        params, online = network.init(network_key, batch["views"][0][:, 0])
        own, kept = begin(own_key)
        return {**params, **own}, {**kept, "online": online}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        embed_key, _ = jax.random.split(key)
        kept, online = dict(state), dict(state["online"])
        del kept["online"]
        h, online = embed_views(encoder, params, online, batch, embed_key)
        merged, online = project_views(projector, params, online, h)
        z = normalize(merged)
        value, kept, metrics = loss_of(params, kept, z, batch, step)
        return value, ({**kept, "online": online}, {**pair_health(z[:, 0], z[:, 1]), **metrics})

    def project(params: Params, state: State, images: Array) -> Array:
        (_, projections), _ = network.apply(params, state["online"], images, train=False)
        return normalize(projections)

    method = Method(views, init, loss, encoder, encoder_at("online"), collapse=collapse)
    return method, project


def global_count(views: tuple[View, ...]) -> int:
    """Number of views of the size of the first one."""
    return sum(view.size == views[0].size for view in views)


def cosines(z: Array, rows: Array) -> Array:
    """``z rowsᵀ`` of unit vectors ``[..., d]`` and ``[k, d]``, in full precision: temperatures are low."""
    return jnp.matmul(z, rows.T, precision=jax.lax.Precision.HIGHEST)
