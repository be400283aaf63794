"""DCL (Yeh et al., ECCV 2022): SimCLR without the positive in the denominator, which lets small batches learn."""

import math

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import dcl
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
    sigma: float | None = None,
    detach_weights: bool = True,
    projector_layers: int = 2,
    projector_width: int | None = None,
    projection: int = 128,
    block_size: int | None = None,
) -> Method:
    """DCL, and DCLW with ``sigma``.

    ``L = mean_i [ log Σ_{j≠i,p(i)} exp(u_i·u_j/τ) − w_i u_i·u_p(i)/τ ]`` over the 2N unit projections u of both views, p(i)
    being the other view of the same image and τ ``temperature``; ``w = 1`` (DCL), or ``w_i = 2 − N softmax_i(u_i·u_p(i)/σ)``
    with σ ``sigma`` (DCLW). In SimCLR a pair that is found easily pulls little and its negatives push little; with few
    negatives most pairs are easy. Without the positive in the sum that coupling is gone.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.simclr`.
      temperature: τ > 0. May be traced.
      sigma: σ > 0 of the weights, 0.5 in the paper; ``None``: DCL. May be traced.
      detach_weights: no gradient passes through the weights.
      projector_layers: depth of the projector, SimCLR's: 0 (none), 1 (linear), 2 or more.
      projector_width: width of its hidden layers; ``None``: the encoder's features.
      projection: width of its output.
      block_size: candidates a block of the loss that never holds the 2N x 2N matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the encoder's features, before the projector.

    Raises:
      ValueError: ``projector_layers`` is negative.

    Reference: Decoupled Contrastive Learning, equations 6 and 7; there is no official code. Deviation: of two public codes
    lightly's detaches the weights and averages the directions, which is our default; the other does neither.
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
        value = dcl(
            z[:, 0],
            z[:, 1],
            temperature=temperature,
            sigma=sigma,
            detach_weights=detach_weights,
            block_size=block_size,
        )
        return value, (state, pair_metrics(z[:, 0], z[:, 1]))

    views = presets.simclr() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", lambda n: math.log(2 * n - 2), "all projections are alike"),)
    project = project_at(encoder, projector)
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
