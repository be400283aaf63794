"""Triplet loss (Schroff et al., CVPR 2015): a view is nearer to its image's other view than to any other, by a margin."""

import math

import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.metric import label_ids, pair_masks
from ssl_jax.losses.metric import triplet as triplet_loss
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
    margin: float = 0.2,
    mining: str = "all",
    soft: bool = False,
    swap: bool = False,
    distance: Distance = Distance(),
    reduction: str = "mean",
    labels: bool = False,
    projector_layers: int = 2,
    projector_width: int | None = None,
    projection: int = 128,
) -> Method:
    """Triplet loss.

    ``L = mean max(0, D_ap − D_an + m)`` over mined triplets of an anchor a, a positive p and a negative n, with D the distances
    of all 2N projections ``n(g(f(v)))`` of the batch and m ``margin``. The positive is the image's other view, negatives are
    the views of all other images: see :func:`ssl_jax.losses.metric.triplet`.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.simclr`.
      margin: m ≥ 0; 0.2 in FaceNet (with ``distance.squared``). May be traced.
      mining: ``"all"``, ``"semi_hard"``, ``"hard"`` or ``"batch_hard"``. From random weights ``"batch_hard"`` with the hinge
        may pull all projections together, to a loss of m.
      soft: ``log(1 + exp(D_ap − D_an + m))`` in place of the hinge.
      swap: the nearer of anchor and positive stands against the negative.
      distance: D, see :class:`ssl_jax.methods.parts.distance.Distance`.
      reduction: ``"mean"``, or ``"nonzero"``: the mean over triplets that cost something.
      labels: images of one label are positives too: supervised metric learning. An image without a label (−1) is a class of
        its own.
      projector_layers: depth of g; 0: none.
      projector_width: width of g's hidden layers; ``None``: the encoder's features.
      projection: width of g's output.

    Returns:
      The method. ``encode`` gives the encoder's features; ``metrics`` hold ``active``, the share of triplets that are mined and
      violate the margin: at 0 nothing is learned any more.

    Raises:
      ValueError: a negative margin, an unknown mining or reduction.

    Reference: FaceNet, equation 2; In Defense of the Triplet Loss (Hermans et al. 2017), section 2. Deviation: FaceNet has
    labels, no projector, and one semi-hard negative for each pair.
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
        value, active = triplet_loss(
            merge_views(z),
            *pair_masks(jnp.repeat(ids, 2)),
            margin=margin,
            soft=soft,
            mining=mining,
            reduction=reduction,
            normalize=distance.normalize,
            p=distance.p,
            squared=distance.squared,
            swap=swap,
            # Without labels the other view is the only positive.
            max_positives=None if labels else 1,
        )
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), "active": active})

    views = presets.simclr() if views is None else views
    require_pair(views)
    meaning = "all projections are alike, or no triplet is in the right order"
    collapse = (CollapseValue("loss", lambda _: math.log1p(math.exp(margin)) if soft else margin, meaning),)
    if mining == "semi_hard":
        # The loss is 0 when all is alike, and 0 when all is learned.
        collapse = (CollapseValue("embedding_std", 0.0, "all projections are alike"),)
    return Method(views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=2))
