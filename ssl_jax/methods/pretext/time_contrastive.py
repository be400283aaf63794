"""Time-contrastive networks (Sermanet et al., ICRA 2018), one camera: frames attract near in time and repel further off."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, positive, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.temporal import pair_info_nce, semi_hard_triplet, time_masks
from ssl_jax.methods.method import CollapseValue, Limits, Method
from ssl_jax.methods.parts.frames import split_frames
from ssl_jax.methods.parts.siamese import direction_std
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype

LOSSES = ("triplet", "info_nce")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    near: int = 6,
    far: int = 12,
    across: bool = False,
    loss: str = "triplet",
    margin: float = 0.2,
    temperature: float = 0.1,
    embedding: int = 32,
) -> Method:
    """Single-view time-contrastive network.

    A batch holds windows of consecutive frames of clips. For frames a, p, n of a clip at times t, with ``z = n(W f(x))``::

        positives  |t_a − t_p| ≤ near        negatives  |t_a − t_n| > far
        triplet    L = mean max(0, ‖z_a − z_p‖² − ‖z_a − z_n‖² + margin)     n the nearest beyond p, else the furthest
        info_nce   L = mean −log e^{z_a·z_p/τ} / (e^{z_a·z_p/τ} + Σ_n e^{z_a·z_n/τ})

    What changes within a clip is learnt: where things are and what they do. What stays the same in it, such as what they are,
    is not, unless other clips repel too, ``across``.

    Args:
      encoder: the network to train.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`. Crops and flips hide what frames differ in.
      near: frames, 1 or more.
      far: frames, ``near`` or more; a window has to be longer for its first frame to have a negative.
      across: all frames of other clips are negatives too.
      loss: ``"triplet"``: :func:`ssl_jax.losses.temporal.semi_hard_triplet`; ``"info_nce"``:
        :func:`ssl_jax.losses.temporal.pair_info_nce`.
      margin: of the triplets, 0 or more. May be traced.
      temperature: τ > 0 of InfoNCE. May be traced.
      embedding: width of z.

    Returns:
      The method. ``encode`` gives the encoder's features. Metrics: ``positives`` and ``negatives``, how many a frame has on
      average; for triplets ``active``, the share of pairs that cost something.

    Raises:
      ValueError: ``far`` below ``near``, an unknown ``loss``; when training, a source without clips.

    Reference: "Time-Contrastive Networks: Self-Supervised Learning from Video"; tensorflow/models
    ``research/tcn``, which has windows of one clip in a batch, or of several (``multiseq``, here ``across``).
    """
    require(near >= 1, "near", near, "an integer of 1 or more")
    require(far >= near, "far", far, f"an integer of near={near} or more")
    choice("loss", loss, LOSSES)
    positive("temperature", temperature)

    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    network = chain(encoder=encoder, head=heads.mlp((embedding,), dtype=compute_dtype(encoder)))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss_fn(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        network_key, _ = jax.random.split(key)
        images, clips, times = split_frames(batch)
        (_, z), state = network.apply(params, state, images, train=True, key=network_key)  # [n, d]
        positives, negatives = time_masks(clips, times, near=near, far=far, across=across)
        metrics = {
            "embedding_std": direction_std(z),
            "positives": positives.sum() / len(z),
            "negatives": negatives.sum() / len(z),
        }
        if loss == "info_nce":
            value = pair_info_nce(z, positives, negatives, temperature=temperature)
        else:
            value, metrics["active"] = semi_hard_triplet(z, positives, negatives, margin=margin)
        return value, (state, metrics)

    collapse = (CollapseValue("loss", margin, "all frames are alike, or no pair is in the right order"),)
    if loss == "info_nce":
        # How many negatives a frame has depends on its position in the window.
        collapse = (CollapseValue("embedding_std", 0.0, "all frames are alike"),)
    return Method(views, init, loss_fn, encoder, collapse=collapse, limits=Limits(least_batch=3))
