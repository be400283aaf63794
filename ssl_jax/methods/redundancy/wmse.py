"""W-MSE (Ermolov et al., ICML 2021): views agree after whitening in the batch, which a constant does not survive."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.whitening import wmse
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.siamese import embed_views, pair_metrics, project_views, require_one_size
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    w_size: int | None = 128,
    w_iter: int = 1,
    epsilon: float = 1e-4,
    normalize: bool = True,
    projector_width: int = 1024,
    projection: int = 64,
) -> Method:
    """W-MSE.

    ``L = mean over pairs of views a < b and images of 2 − 2 cos(W z_a, W z_b)`` of the projections ``z = g(f(v))``, where W
    subtracts the mean of a group of ``w_size`` images and multiplies by the inverse Cholesky factor of its covariance; each
    view of a group has its own W, through which gradients pass. Groups are drawn anew ``w_iter`` times a step. There are as
    many views as ``views`` holds: with d of them, of the same images, d(d − 1)/2 positive pairs.

    Args:
      encoder: the network to train.
      views: two views or more of one size; ``None``: :func:`ssl_jax.augment.presets.wmse`.
      w_size: images a group: more than ``projection`` (twice it is advised) and a divisor of the batch; ``None``: the batch.
      w_iter: draws of groups that are averaged, 1 or more.
      epsilon: ε in [0, 1], the covariance is ``(1 − ε) Σ + ε I``. May be traced.
      normalize: False: the squared distance of whitened projections instead of 2 − 2 cos, an ablation of the paper.
      projector_width: width of g's hidden layer.
      projection: width of g's output.

    Returns:
      The method. ``encode`` gives the encoder's features.

    Raises:
      ValueError: fewer than two views; groups that do not fit the batch or the projections (at the first loss).

    Reference: Whitening for Self-Supervised Representation Learning, section 3; htdt/self-supervised ``methods/w_mse.py``.
    Deviations: ε is 0 there, which gives NaN where a group's covariance is singular; with ε > 0 projections much smaller than
    √ε are no longer whitened. Views pass through the encoder as one batch (there: one by one).
    """
    projector = heads.mlp((projector_width, projection), dtype=compute_dtype(encoder))
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        embed_key, group_key = jax.random.split(key)
        h, state = embed_views(encoder, params, state, batch, embed_key)  # [n, v, f]
        z, state = project_views(projector, params, state, h)  # [n, v, d]
        value = wmse(group_key, z, w_size=w_size, w_iter=w_iter, epsilon=epsilon, normalize=normalize)
        return value, (state, pair_metrics(z[:, 0], z[:, 1]))

    views = presets.wmse() if views is None else views
    require_one_size(views)

    def collapsed_loss(batch_size: int) -> float:
        """Return the loss of unrelated views: a whitened dimension has mean square (size − 1)/size."""
        size = batch_size if w_size is None else w_size
        return 2.0 if normalize else 2 * (size - 1) / size

    meaning = "whitened views of an image are no more alike than those of two images"
    collapse = (CollapseValue("loss", collapsed_loss, meaning),)
    limits = Limits(least_batch=projection + 1 if w_size is None else w_size)
    project = project_at(encoder, projector)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)
