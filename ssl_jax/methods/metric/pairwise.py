"""Pairwise contrastive loss (Hadsell et al., CVPR 2006): views of an image attract, others repel up to a margin."""

import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.metric import contrastive_margin, label_ids, pair_masks
from ssl_jax.methods.method import CollapseValue, Limits, Method
from ssl_jax.methods.parts.distance import Distance
from ssl_jax.methods.parts.siamese import (
    embed_views,
    merge_views,
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
    margin: float = 1.0,
    positive_margin: float = 0.0,
    power: int = 2,
    reduction: str = "mean",
    labels: bool = False,
    distance: Distance = Distance(),
    projector_layers: int = 2,
    projector_width: int | None = None,
    projection: int = 128,
) -> Method:
    """Pairwise contrastive loss with a margin.

    ``L = mean⁺ max(0, D − m⁺)^q / q + mean⁻ max(0, m − D)^q / q`` with D the distances of all 2N projections ``n(g(f(v)))`` of
    the batch, m ``margin``, m⁺ ``positive_margin`` and q ``power``. The two views of an image are the positives, all pairs of
    views of different images the negatives: see :func:`ssl_jax.losses.metric.contrastive_margin`.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.simclr`.
      margin: m > 0, up to which negatives repel; below 2 for unit vectors. May be traced.
      positive_margin: m⁺ ≥ 0, down to which positives attract. May be traced.
      power: q, 1 or 2 (the paper).
      reduction: ``"mean"``, or ``"nonzero"``: the mean over pairs that cost something.
      labels: images of one label are positives too: supervised metric learning. An image without a label (−1) is a class of
        its own.
      distance: D, see :class:`ssl_jax.methods.parts.distance.Distance`; the paper's is the Euclidean one without normalisation.
      projector_layers: depth of g; 0 (the paper): none.
      projector_width: width of g's hidden layers; ``None``: the encoder's features.
      projection: width of g's output.

    Returns:
      The method. ``encode`` gives the encoder's features; ``metrics`` hold ``active_positives`` and ``active_negatives``, the
      shares of pairs that cost something: without an active negative nothing repels any more.

    Raises:
      ValueError: a margin out of range, an unknown power or reduction.

    Reference: Dimensionality Reduction by Learning an Invariant Mapping, section 2.1. Deviation: the paper has neighbours in
    place of views, no projector and no normalisation.
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
        ids = label_ids(batch["label"]) if labels else jnp.arange(len(z))
        value, (positives, negatives) = contrastive_margin(
            merge_views(z),
            *pair_masks(jnp.repeat(ids, 2)),
            margin=margin,
            positive_margin=positive_margin,
            power=power,
            reduction=reduction,
            normalize=distance.normalize,
            p=distance.p,
            squared=distance.squared,
        )
        metrics = {"active_positives": positives, "active_negatives": negatives}
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), **metrics})

    views = presets.simclr() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", margin**power / power, "all projections are alike"),)
    return Method(views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=2))
