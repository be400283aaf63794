"""VICReg (Bardes et al., ICLR 2022): views agree, every dimension keeps its variance, no two dimensions covary."""

import math

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.variance_covariance import vicreg
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.siamese import embed_views, expander, pair_metrics, project_views, require_pair
from ssl_jax.models.network import Network, chain


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    target: float = 1.0,
    epsilon: float = 1e-4,
    projector_layers: int = 3,
    projector_width: int = 8192,
    projector_norm: str = "batch",
    projection: int = 8192,
) -> Method:
    """VICReg.

    ``L = λ s(z₁, z₂) + μ (v(z₁) + v(z₂))/2 + ν (c(z₁) + c(z₂))`` of the projections ``z = g(f(v))``, which are not normalised:
    s is their mean squared difference, v what each dimension's standard deviation over the global batch lacks to γ, c the
    squared covariances of different dimensions. λ is ``invariance_weight``, μ ``variance_weight``, ν ``covariance_weight`` and
    γ ``target``. Each view is regularised by itself, so nothing in the loss ties the two branches but s.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.byol`.
      invariance_weight: λ ≥ 0; with each weight at 0 the paper shows what its term is for. May be traced.
      variance_weight: μ ≥ 0; at 0 the projections collapse to a constant. May be traced.
      covariance_weight: ν ≥ 0. May be traced.
      target: γ > 0. May be traced.
      epsilon: ε of the standard deviation ``sqrt(var + ε)``. May be traced.
      projector_layers: depth of g, the paper's expander; 0: none.
      projector_width: width of g's hidden layers.
      projector_norm: ``"batch"``, ``"group"``, ``"layer"``, or ``"none"``: no BatchNorm in g, an ablation of the paper.
      projection: width of g's output.

    Returns:
      The method. ``encode`` gives the encoder's features; ``metrics`` hold the terms without their weights: ``invariance``,
      ``variance`` and ``covariance``.

    Raises:
      ValueError: ``projector_layers`` is negative, an unknown norm.

    Reference: VICReg, equations 1 to 6 and section 4; facebookresearch/vicreg. Deviations: both views pass through the network
    as one batch (there: one by one); hidden layers have no bias, which BatchNorm would cancel. As in the code s is divided by
    the width and v is the mean of the views: see :func:`ssl_jax.losses.variance_covariance.vicreg`.
    """
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
        value, terms = vicreg(
            z[:, 0],
            z[:, 1],
            invariance_weight=invariance_weight,
            variance_weight=variance_weight,
            covariance_weight=covariance_weight,
            target=target,
            epsilon=epsilon,
        )
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), **terms})

    views = presets.byol() if views is None else views
    require_pair(views)
    meaning = "projections are constant: the variance term does not hold"
    collapse = (
        CollapseValue("loss", lambda _: variance_weight * (target - math.sqrt(epsilon)), meaning),
        CollapseValue("variance", lambda _: target - math.sqrt(epsilon), meaning),
    )
    project = project_at(encoder, projector)
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
