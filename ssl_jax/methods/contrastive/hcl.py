"""HCL (Robinson et al., ICLR 2021): SimCLR whose negatives count by their hardness, corrected for false ones."""

import math

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import hard_negative
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.siamese import embed_views, pair_metrics, project_views, require_pair
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.schedules import constant, linear


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    temperature: float = 0.5,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    anneal_steps: int | None = None,
    projector_width: int = 512,
    projection: int = 128,
    block_size: int | None = None,
) -> Method:
    """HCL: hard-negative contrastive learning.

    ``L = mean_i log(1 + N_i / e_i)`` over the 2N unit projections u, with ``e_i = exp(u_i·u_p(i)/τ)`` for the positive and
    ``N_i = max((Σ_j w_ij exp(u_i·u_j/τ) − τ⁺ M e_i)/(1 − τ⁺), M exp(−1/τ))`` for the M = 2N − 2 others, whose weights
    ``w_ij = exp(β u_i·u_j/τ) / mean_j exp(β u_i·u_j/τ)`` grow with their nearness. τ is ``temperature``, β ``beta`` and τ⁺
    ``tau_plus``. Both ablations are values of the options: β = 0 is debiased contrastive learning (Chuang et al. 2020),
    β = 0 and τ⁺ = 0 is SimCLR's loss.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.simclr`.
      temperature: τ > 0. May be traced.
      beta: β ≥ 0, the concentration on hard negatives. May be traced.
      tau_plus: 0 ≤ τ⁺ < 1, the probability that a negative is of the anchor's class: 0.1 for ten classes. May be traced.
      anneal_steps: steps over which β falls to 0 on a line; ``None``: it stays.
      projector_width: width of the projector's hidden layer.
      projection: width of its output.
      block_size: candidates a block of the loss that never holds the 2N x 2N matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the encoder's features, before the projector.

    Raises:
      ValueError: ``anneal_steps`` below 1; β or τ⁺ out of range (at the first loss).

    Reference: Contrastive Learning with Hard Negative Samples, equation 4 and appendix; joshr17/HCL ``image/main.py``.
    Deviations: as in that code β acts on ``u·u/τ`` (paper: on ``u·u``); its annealing falls in nine stairs, ours in a line.
    """
    projector = heads.mlp((projector_width, projection), hidden_bias=False, dtype=compute_dtype(encoder))
    concentration = constant(beta) if anneal_steps is None else linear(beta, 0.0, anneal_steps)
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        h, state = embed_views(encoder, params, state, batch, key)  # [n, 2, f]
        z, state = project_views(projector, params, state, h)  # [n, 2, d]
        annealed = concentration(step)
        value = hard_negative(
            z[:, 0], z[:, 1], temperature=temperature, beta=annealed, tau_plus=tau_plus, block_size=block_size
        )
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), "beta": annealed})

    views = presets.simclr() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", lambda n: math.log(2 * n - 1), "all projections are alike"),)
    project = project_at(encoder, projector)
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
