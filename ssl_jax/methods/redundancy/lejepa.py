"""LeJEPA (Balestriero and LeCun, 2025): views predict their mean, and embeddings are spread like a Gaussian. Nothing else."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.sketched_gaussian import lejepa, random_directions, sigreg
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.multi_crop import global_count
from ssl_jax.methods.parts.siamese import embed_views, pair_metrics, project_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    weight: float = 0.05,
    directions: int = 1024,
    knots: int = 17,
    limit: float = 3.0,
    projector_layers: int = 3,
    projector_width: int = 2048,
    projection: int = 128,
) -> Method:
    """LeJEPA.

    ``L = λ SIGReg(z) + (1 − λ) mean (z_v − z̄)²``: the projections ``z = g(f(view))`` of every view, global or local, predict
    the mean z̄ of the global ones, and those of each view are pushed towards N(0, I), tested along random directions
    (:func:`ssl_jax.losses.sketched_gaussian.sigreg`). No teacher, no predictor, no stopped gradient, no schedule.

    Args:
      encoder: the network to train.
      views: global views, then local ones; ``None``: :func:`ssl_jax.augment.presets.dino` with LeJEPA's areas, 6 local crops.
      weight: λ, 0 to 1. May be traced.
      directions: how many directions are drawn in a step.
      knots: points of the integral over the characteristic function, odd.
      limit: up to which it is integrated.
      projector_layers: depth of g, BatchNorm and ReLU between; 0: none.
      projector_width: width of g's hidden layers.
      projection: width of g's output.

    Returns:
      The method. ``encode`` gives the encoder's features; ``metrics`` hold the two terms, ``sigreg`` and ``invariance``.

    Raises:
      ValueError: fewer than two views, a negative depth, no direction, or what ``sigreg`` refuses.

    Reference: LeJEPA, arXiv:2511.08544; rbalestr-lab/lejepa, whose README gives views and optimizer, ``MINIMAL.md`` the
    network. Deviation: crops of one size pass through the encoder as one batch, those of all sizes through the projector.
    """
    views = (
        presets.dino(global_area=(0.3, 1.0), local_area=(0.05, 0.3), local_count=6)
        if views is None
        else views
    )
    require(len(views) >= 2, "views", len(views), "two views or more")
    require(projector_layers >= 0, "projector_layers", projector_layers, "an integer of 0 or more")
    require(directions >= 1, "directions", directions, "an integer of 1 or more")
    targets = global_count(views)
    widths = (projector_width,) * (projector_layers - 1) + (projection,)
    projector = heads.mlp(widths, dtype=compute_dtype(encoder)) if projector_layers else None
    width = projection if projector else encoder.features

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, projector_key = jax.random.split(key)
        params: Params = {}
        state: State = {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, batch["views"][0][:, 0])
        if projector:
            features = jnp.zeros((1, encoder.features))
            params["projector"], state["projector"] = projector.init(projector_key, features)
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        embed_key, direction_key = jax.random.split(key)
        z, state = embed_views(encoder, params, state, batch, embed_key)  # [n, v, d], global views first
        if projector:
            z, state = project_views(projector, params, state, z)
        along = random_directions(direction_key, width, directions)
        value, terms = lejepa(
            z.swapaxes(0, 1), along, targets=targets, weight=weight, knots=knots, limit=limit
        )
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), **terms})

    def constant_sigreg(batch_size: int) -> float:
        """Statistic of constant embeddings; that of a Gaussian sample is about 1."""
        return float(sigreg(jnp.zeros((batch_size, 1)), jnp.ones((1, 1)), knots=knots, limit=limit))

    collapse = (
        CollapseValue("loss", lambda n: weight * constant_sigreg(n), "embeddings are all 0"),
        CollapseValue("sigreg", constant_sigreg, "embeddings are all 0"),
    )
    project = project_at(encoder, projector) if projector else None
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
