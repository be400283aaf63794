"""Spectral contrastive learning (HaoChen et al., NeurIPS 2021): a contrast by squares, whose minima are known."""

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import positive, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.spectral import spectral_contrastive
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.siamese import embed_views, pair_metrics, project_views, require_pair
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    mu: float | None = 1.0,
    projector_layers: int = 2,
    projector_width: int = 2048,
    projection: int = 1000,
) -> Method:
    """Spectral contrastive learning.

    ``L = 1/μ [ −2 mean_i z₁ᵢ·z₂ᵢ + mean_{i≠j} (z₁ᵢ·z₂ⱼ)² ]`` with ``z = g(f(v))`` from the encoder f and the projector g, drawn
    back to the ball of radius √μ where it is longer. Where InfoNCE has a log-sum-exp, a square stands here, and then the minima
    are known: they are the eigenvectors of the graph that joins the views of an image, in which a linear probe finds whatever
    classes views rarely leave.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.moco_v2`, which are the authors'.
      mu: μ > 0, the squared radius: 1 on CIFAR-10, 10 on ImageNet. May be traced. ``None``: the loss of the theory, without the
        ball.
      projector_layers: depth of g, each layer with BatchNorm, ReLU between: 2 on CIFAR-10, 3 on ImageNet; 0: none.
      projector_width: width of g's hidden layers.
      projection: width of g's output: how many eigenvectors are sought.

    Returns:
      The method. ``encode`` gives the encoder's features; metrics hold the loss's ``attraction`` and ``repulsion``.

    Raises:
      ValueError: ``projector_layers`` is negative, μ is not positive.

    Reference: Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss, section 3;
    jhaochenz96/spectral_contrastive_learning. Deviations: both views pass through the networks as one batch (there: one by
    one); the biases of dense layers that a BatchNorm follows, which it cancels, are left out.
    """
    require(projector_layers >= 0, "projector_layers", projector_layers, "an integer of 0 or more")
    if mu is not None:
        positive("mu", mu)
    projector = identity(encoder.features)
    if projector_layers:
        widths = (projector_width,) * (projector_layers - 1) + (projection,)
        projector = heads.mlp(
            widths, hidden_bias=False, last_bias=False, last_norm="batch", dtype=compute_dtype(encoder)
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
        value, terms = spectral_contrastive(z[:, 0], z[:, 1], mu=mu)
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), **terms})

    def collapsed_loss(batch_size: int) -> float:
        """Least loss of one vector for all images: its squared length r is 1, or μ where the ball is smaller."""
        del batch_size
        radius, scale = (1.0, 1.0) if mu is None else (min(1.0, mu), mu)
        return (radius**2 - 2 * radius) / scale

    views = presets.moco_v2() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", collapsed_loss, "all projections are one vector"),)
    project = project_at(encoder, projector)
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
