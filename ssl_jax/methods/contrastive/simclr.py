"""SimCLR (Chen et al., ICML 2020): two views of an image attract, all other views of the global batch repel."""

import math

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import nt_xent
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.siamese import (
    embed_views,
    pair_metrics,
    project_views,
    require_pair,
    simclr_projector,
)
from ssl_jax.models.network import Network, chain


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    temperature: float = 0.1,
    projector_layers: int = 2,
    projector_width: int | None = None,
    projection: int = 128,
    block_size: int | None = None,
) -> Method:
    """SimCLR.

    ``L = NT-Xent(g(f(v₁)), g(f(v₂)); τ)`` with f the encoder, g the projector, τ ``temperature`` and the mean over all 2N
    anchors (the official code sums the two directions: twice this value). The two views pass through the network as one
    batch, so BatchNorm sees 2N images; negatives are those of the global batch.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.simclr`.
      temperature: τ > 0; 0.1 for long runs with large batches, 0.5 for CIFAR-10. May be traced.
      projector_layers: depth of g, the paper's ablation: 0 (none), 1 (linear), 2 (SimCLR), 3 (SimCLR v2).
      projector_width: width of g's hidden layers; ``None``: the encoder's features, as in the paper.
      projection: width of g's output.
      block_size: candidates a block of the loss that never holds the 2N x 2N matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the encoder's features, before the projector.

    Raises:
      ValueError: ``projector_layers`` is negative.

    Reference: A Simple Framework for Contrastive Learning of Visual Representations, equation 1 and section 4;
    google-research/simclr. Deviation: no weight decay or LARS exclusion lives here, they belong to the optimizer.
    """
    projector = simclr_projector(
        encoder, layers=projector_layers, width=projector_width, projection=projection
    )

    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        h, state = embed_views(encoder, params, state, batch, key)  # [n, 2, f]
        z, state = project_views(projector, params, state, h)  # [n, 2, d]
        value = nt_xent(z[:, 0], z[:, 1], temperature=temperature, block_size=block_size)
        bound = information_bound(value, 2 * len(z) - 1)
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), "information_bound": bound})

    views = presets.simclr() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", lambda n: math.log(2 * n - 1), "all projections are alike"),)
    project = project_at(encoder, projector)
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
