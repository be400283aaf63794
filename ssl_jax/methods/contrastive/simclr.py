"""SimCLR (Chen et al., ICML 2020): two views of an image attract, all other views of the global batch repel."""

import math
from typing import Any

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import nt_xent
from ssl_jax.methods.common import (
    chain,
    compute_dtype,
    encode_with,
    identity,
    merge_views,
    pair_health,
    split_views,
)
from ssl_jax.methods.method import Method, Sign
from ssl_jax.models import heads
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
    require(projector_layers >= 0, "projector_layers", projector_layers, "an integer of 0 or more")
    width = encoder.features if projector_width is None else projector_width
    if projector_layers == 0:
        projector = identity(encoder.features)
    else:
        widths = (width,) * (projector_layers - 1) + (projection,)
        options: dict[str, Any] = {
            "hidden_bias": False,
            "last_bias": False,
            "last_norm": "batch_scale",
            "kernel_init": 0.01,
        }
        projector = heads.mlp(widths, dtype=compute_dtype(encoder), **options)
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = merge_views(batch["views"][0])
        (_, projections), state = network.apply(params, state, images, train=True, key=key)
        z1, z2 = split_views(projections, 2).swapaxes(0, 1)
        value = nt_xent(z1, z2, temperature=temperature, block_size=block_size)
        return value, (state, pair_health(z1, z2))

    def encoder_of(params: Params, state: State) -> tuple[Params, State]:
        return params["encoder"], state["encoder"]

    def encode(params: Params, state: State, images: jax.Array) -> Array:
        return encode_with(encoder, *encoder_of(params, state), images)

    def signs(batch_size: int) -> tuple[Sign, ...]:
        return (Sign("loss", math.log(2 * batch_size - 1), "all projections are alike"),)

    views = presets.simclr() if views is None else views
    return Method(views, init, loss, encode, encoder, encoder_of, signs=signs)
