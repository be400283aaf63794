"""SimCLR (Chen et al., ICML 2020): two views of an image attract, all other views of the global batch repel."""

import math

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics
from ssl_jax.losses.contrastive import nt_xent
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import Method, Sign
from ssl_jax.methods.parts.siamese import pair_method, simclr_projector
from ssl_jax.models.network import Network


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    temperature: float = 0.1,
    projector_layers: int = 2,
    projector_width: int | None = None,
    projection: int = 128,
    block_size: int | None = None,
) -> Method:
    """SimCLR.

    ``L = NT-Xent(g(f(v₁)), g(f(v₂)); τ)`` with f the encoder, g the projector, τ ``temperature`` and the mean over all 2N
    anchors (the official code sums the two directions: twice this value). The two views pass through the network as one
    batch, so BatchNorm sees 2N images; negatives are those of the global batch.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.simclr`.
      temperature: τ > 0; 0.1 for long runs with large batches, 0.5 for CIFAR-10. May be traced.
      projector_layers: depth of g, the paper's ablation: 0 (none), 1 (linear), 2 (SimCLR), 3 (SimCLR v2).
      projector_width: width of g's hidden layers; ``None``: the encoder's features, as in the paper.
      projection: width of g's output.
      block_size: candidates a block of the loss that never holds the 2N x 2N matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the encoder's features, before the projector.

    Raises:
      ValueError: ``projector_layers`` is negative.

    Reference: A Simple Framework for Contrastive Learning of Visual Representations, equation 1 and section 4;
    google-research/simclr. Deviation: no weight decay or LARS exclusion lives here, they belong to the optimizer.
    """
    projector = simclr_projector(
        encoder, layers=projector_layers, width=projector_width, projection=projection
    )

    def loss_of(z1: Array, z2: Array, batch: Batch, key: Key, step: Array) -> tuple[Array, Metrics]:
        del batch, key, step
        value = nt_xent(z1, z2, temperature=temperature, block_size=block_size)
        return value, {"information_bound": information_bound(value, 2 * z1.shape[0] - 1)}

    def signs(batch_size: int) -> tuple[Sign, ...]:
        return (Sign("loss", math.log(2 * batch_size - 1), "all projections are alike"),)

    views = presets.simclr() if views is None else views
    return pair_method(encoder, projector, loss_of, views=views, signs=signs)
