"""Barlow Twins (Zbontar et al., ICML 2021): the cross-correlation matrix of two views' projections should be the identity."""

import math
from typing import Any

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.barlow import NORMALIZATIONS, barlow_cross_entropy, barlow_twins
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.siamese import embed_views, expander, pair_metrics, project_views, require_pair
from ssl_jax.models.network import Network, chain

OBJECTIVES = ("squares", "cross_entropy")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    invariance_weight: float = 1.0,
    redundancy_weight: float = 0.0051,
    scale: float = 1.0,
    normalization: str = "batch",
    objective: str = "squares",
    temperature: float = 0.1,
    projector_layers: int = 3,
    projector_width: int = 8192,
    projector_norm: str = "batch",
    projection: int = 8192,
) -> Method:
    """Barlow Twins.

    ``L = s (α Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij²)`` with C the correlations, over the global batch, of the dimensions of
    ``g(f(v₁))`` with those of ``g(f(v₂))``; f is the encoder, g the projector, α ``invariance_weight``, λ
    ``redundancy_weight`` and s ``scale``. No negatives, no predictor, no stopped gradient: a constant has no correlation with
    anything, and equal dimensions cost the second term. Wide projections help, a batch may be smaller than they are wide.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.byol`.
      invariance_weight: α ≥ 0; 0 is an ablation of the paper. May be traced.
      redundancy_weight: λ ≥ 0; 0 is an ablation of the paper. May be traced.
      scale: s > 0. Under LARS only biases and normalisation parameters feel it: the official code gives them a rate 0.024
        times that of the weights, to which ``scale=0.024`` comes down. May be traced.
      normalization: ``"batch"``; ablations of the paper: ``"features"``: each row instead of each dimension has mean 0 and
        variance 1, ``"none"``: projections are neither centred nor scaled.
      objective: ``"squares"``, or ``"cross_entropy"``: :func:`ssl_jax.losses.barlow.barlow_cross_entropy`, an ablation of
        the paper, for which a ``redundancy_weight`` of about 1 is the natural one.
      temperature: τ > 0 of the cross-entropy. May be traced.
      projector_layers: depth of g, an ablation of the paper; 0: none.
      projector_width: width of g's hidden layers.
      projector_norm: ``"batch"``, ``"group"``, ``"layer"``, or ``"none"``: no BatchNorm in g, an ablation of the paper.
      projection: width of g's output.

    Returns:
      The method. ``encode`` gives the encoder's features; ``metrics`` hold the two sums, ``invariance`` and ``redundancy``.

    Raises:
      ValueError: ``projector_layers`` is negative, an unknown norm, normalization or objective.

    Reference: Barlow Twins, equations 1 and 2, figure 4 and section 4; facebookresearch/barlowtwins. Deviations: both views
    pass through the network as one batch (there: one by one); the code's gradient is divided by its number of processes, here
    it is that of the formula.
    """
    choice("normalization", normalization, NORMALIZATIONS)
    choice("objective", objective, OBJECTIVES)
    projector = expander(
        encoder, layers=projector_layers, width=projector_width, norm=projector_norm, projection=projection
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
        weights: dict[str, Any] = {
            "invariance_weight": invariance_weight,
            "redundancy_weight": redundancy_weight,
            "normalization": normalization,
        }
        if objective == "squares":
            value, terms = barlow_twins(z[:, 0], z[:, 1], scale=scale, **weights)
        else:
            value, terms = barlow_cross_entropy(z[:, 0], z[:, 1], temperature=temperature, **weights)
            value = scale * value
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), **terms})

    views = presets.byol() if views is None else views
    require_pair(views)
    d = projector.features
    squares = d * invariance_weight
    entropies = redundancy_weight * math.log(max(d * (d - 1), 1)) - invariance_weight * math.log(d)
    value = scale * (squares if objective == "squares" else entropies)
    meaning = "projections are constant, or those of two views have nothing in common"
    collapse = (CollapseValue("loss", value, meaning),)
    if normalization != "batch":
        # Of constant projections the correlations are not 0 then, and the loss can be anything.
        collapse = (CollapseValue("embedding_std", 0.0, "projections are constant"),)
    project = project_at(encoder, projector)
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
