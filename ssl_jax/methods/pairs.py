"""The scaffolding of methods that compare two views through one network: SimCLR, its relatives, metric learning."""

from collections.abc import Callable
from typing import Any

from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
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

PairLoss = Callable[[Array, Array, Batch, Key, Array], tuple[Array, Metrics]]
"""``(z1, z2, batch, key, step) -> (loss, metrics)`` with the projections ``[n, d]`` of the two views."""


def pair_method(
    encoder: Network,
    projector: Network,
    loss_of: PairLoss,
    *,
    views: tuple[View, ...],
    signs: Callable[[int], tuple[Sign, ...]],
) -> Method:
    """A method whose loss is a function of the projections of two views.

    Both views pass through the network as one batch, so BatchNorm sees 2N images. Nothing is kept between steps but batch
    statistics. The metrics of :func:`ssl_jax.methods.common.pair_health` are added to those of the loss.

    Args:
      encoder: the network to train; its features are what ``encode`` gives.
      projector: head between the features and the loss.
      loss_of: the loss; its key is for what the loss draws.
      views: two views of one size.
      signs: of collapse, as in :class:`ssl_jax.methods.method.Method`.

    Returns:
      The method.
    """
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        images = merge_views(batch["views"][0])
        (_, projections), state = network.apply(params, state, images, train=True, key=key)
        z1, z2 = split_views(projections, 2).swapaxes(0, 1)
        value, metrics = loss_of(z1, z2, batch, key, step)
        return value, (state, {**pair_health(z1, z2), **metrics})

    def encoder_of(params: Params, state: State) -> tuple[Params, State]:
        return params["encoder"], state["encoder"]

    def encode(params: Params, state: State, images: Array) -> Array:
        return encode_with(encoder, *encoder_of(params, state), images)

    return Method(views, init, loss, encode, encoder, encoder_of, signs=signs)


def simclr_projector(encoder: Network, *, layers: int, width: int | None, projection: int) -> Network:
    """SimCLR's projector: dense layers without bias, BatchNorm and ReLU between them, a BatchNorm without β at the end.

    Args:
      encoder: whose features it takes.
      layers: depth, the paper's ablation: 0 (none), 1 (linear), 2 (SimCLR), 3 (SimCLR v2).
      width: of the hidden layers; ``None``: the encoder's features, as in the paper.
      projection: width of the output.

    Returns:
      The head; the identity for 0 layers.

    Raises:
      ValueError: ``layers`` is negative.

    Reference: google-research/simclr ``model_util.py``.
    """
    require(layers >= 0, "projector_layers", layers, "an integer of 0 or more")
    if layers == 0:
        return identity(encoder.features)
    hidden = encoder.features if width is None else width
    options: dict[str, Any] = {
        "hidden_bias": False,
        "last_bias": False,
        "last_norm": "batch_scale",
        "kernel_init": 0.01,
    }
    return heads.mlp((hidden,) * (layers - 1) + (projection,), dtype=compute_dtype(encoder), **options)
