"""Deep CCA (Andrew et al., ICML 2013): the canonical correlations of two views' projections are maximised."""

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.canonical_correlation import cca
from ssl_jax.methods.method import CollapseValue, Limits, Method
from ssl_jax.methods.parts.siamese import embed_views, pair_metrics, project_views, require_pair
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    ridge: float = 1e-3,
    top_k: int | None = None,
    projector_width: int = 1024,
    projection: int = 32,
) -> Method:
    """Deep CCA with one network for both views.

    ``L = −Σ_k σ_k(Σ₁₁^(−½) Σ₁₂ Σ₂₂^(−½))`` with Σ the covariances, over the global batch, of the projections ``g(f(v))`` of the
    two views, r = ``ridge`` being added to the diagonals of Σ₁₁ and Σ₂₂, and σ the singular values: the canonical
    correlations. The loss does not change under invertible linear maps of the projections (as r → 0). Barlow Twins, VICReg and
    W-MSE can be read as relaxations of it. The batch has to be much larger than ``projection``: correlations are
    over-estimated from few images, and ``projection`` images or fewer are correlated perfectly whatever they show.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.simclr`.
      ridge: r > 0, in the units of a variance. May be traced.
      top_k: number of largest correlations that count; ``None``: all.
      projector_width: width of g's hidden layer.
      projection: width of g's output.

    Returns:
      The method. ``encode`` gives the encoder's features; ``metrics`` hold ``largest_correlation`` and
      ``smallest_correlation`` of those that count.

    Raises:
      ValueError: ``top_k`` out of range or a batch of at most ``projection`` images (at the first loss).

    Reference: Deep Canonical Correlation Analysis, equation 10. Deviations: there two networks without shared weights take
    two modalities, trained on all examples at once by L-BFGS; here one network takes two views of an image, in mini-batches,
    each with covariances of its own. :func:`ssl_jax.losses.canonical_correlation.linear_cca` fits the canonical directions of
    the outputs afterwards.
    """
    projector = heads.mlp((projector_width, projection), dtype=compute_dtype(encoder))
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        h, state = embed_views(encoder, params, state, batch, key)  # [n, 2, f]
        z, state = project_views(projector, params, state, h)  # [n, 2, d]
        value, correlations = cca(z[:, 0], z[:, 1], ridge=ridge, top_k=top_k)
        metrics = {"largest_correlation": correlations[0], "smallest_correlation": correlations[-1]}
        return value, (state, {**pair_metrics(z[:, 0], z[:, 1]), **metrics})

    views = presets.simclr() if views is None else views
    require_pair(views)
    collapse = (
        CollapseValue("loss", 0.0, "projections are constant, or those of two views are not correlated"),
    )
    return Method(views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=projection + 1))
