"""Triplets of frames (Wang & Gupta, ICCV 2015): two frames of a clip are nearer to each other than to those of others."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.temporal import ranking
from ssl_jax.methods.method import CollapseValue, Limits, Method
from ssl_jax.methods.parts.frames import split_frames
from ssl_jax.methods.parts.siamese import direction_std
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    margin: float = 1.0,
    negatives: int = 4,
    hard: int = 2,
    embedding: int = 1024,
) -> Method:
    """Triplets of frames.

    ``L = mean max(0, D(z, z⁺) − D(z, z⁻) + m)``, with ``D = 1 − cos``, ``z = W f(x)``, z⁺ the frame of the batch from the same
    clip that is furthest off in time, and z⁻ hard and random frames of other clips: see
    :func:`ssl_jax.losses.temporal.ranking`. The window of the source says which frames come together: two that are far apart,
    ``window=2`` and a large ``stride``, are the first and the last patch of a track.

    Gradient accumulation deals the frames of a window out to the micro-batches: windows of two then leave no frame a partner.

    Args:
      encoder: the network to train.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      margin: m ≥ 0. May be traced.
      negatives: of each frame.
      hard: how many of them are hard ones.
      embedding: width of z.

    Returns:
      The method. ``encode`` gives the encoder's features. Metrics: ``active``, the share of pairs of frames of different clips
      that violate the margin.

    Raises:
      ValueError: counts out of their range when training, a source without clips.

    Reference: "Unsupervised Learning of Visual Representations using Videos"; the margin is that of the released
    prototxt. Deviations: no tracker: whole frames, or the patches that the clips of a folder show; hard negatives from the
    start, where the paper begins with random ones.
    """
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    network = chain(encoder=encoder, head=heads.mlp((embedding,), dtype=compute_dtype(encoder)))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        network_key, negative_key = jax.random.split(key)
        images, clips, times = split_frames(batch)
        (_, z), state = network.apply(params, state, images, train=True, key=network_key)  # [n, d]
        same = clips[:, None] == clips[None, :]
        apart = jnp.where(same, jnp.abs(times[:, None] - times[None, :]), 0)
        partners = jnp.where(jnp.max(apart, axis=1) > 0, jnp.argmax(apart, axis=1), -1)
        value, active = ranking(
            negative_key, z, partners, ~same, margin=margin, negatives=negatives, hard=hard
        )
        return value, (state, {"active": active, "embedding_std": direction_std(z)})

    collapse = (CollapseValue("loss", margin, "all frames are alike"),)
    return Method(views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=3))
