"""The scaffolding of methods that learn from clips: time-contrastive networks, triplets of frames."""

from collections.abc import Callable

import jax

from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.siamese import direction_std
from ssl_jax.models.network import Network, chain

FramesLoss = Callable[[Key, Array, Array, Array], tuple[Array, Metrics]]
"""``(key, z, clips, times) -> (loss, metrics)`` with the embeddings ``[n, d]`` of the batch's frames."""


def frames_method(
    encoder: Network,
    head: Network,
    loss_of: FramesLoss,
    *,
    views: tuple[View, ...],
    collapse: tuple[CollapseValue, ...],
) -> Method:
    """A method whose loss is a function of the embeddings of frames, of their clips and of their times.

    The metric ``embedding_std`` is that of :func:`ssl_jax.methods.parts.siamese.direction_std`.

    Args:
      encoder: the network to train; its features are what ``encode`` gives.
      head: between the features and the loss.
      loss_of: the loss.
      views: one view of each frame.
      collapse: metric values of collapse, as in :class:`ssl_jax.methods.method.Method`.

    Returns:
      The method.

    Raises:
      ValueError: more than one view; when training, a source without clips.
    """
    require(len(views) == 1, "views", len(views), "one view")
    network = chain(encoder=encoder, head=head)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        require(
            "clip" in batch,
            "batch",
            sorted(batch),
            "one of frames, with clip and time: config.data.source=frames:<path> or frames:moving",
        )
        network_key, loss_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        (_, z), state = network.apply(params, state, images, train=True, key=network_key)
        value, metrics = loss_of(loss_key, z, batch["clip"], batch["time"])
        metrics["embedding_std"] = direction_std(z)
        return value, (state, metrics)

    return Method(views, init, loss, encoder, collapse=collapse)
