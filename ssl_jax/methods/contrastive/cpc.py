"""CPC (van den Oord et al. 2018; Hénaff et al., ICML 2020): tell by the rows above which patch of the batch lies below."""

import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import predictive_coding
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.siamese import direction_std, embed_views
from ssl_jax.models import heads
from ssl_jax.models.context import row_context
from ssl_jax.models.network import Network, chain, compute_dtype, identity
from ssl_jax.ops.tiles import PatchGrid, cut_patches

PATCHES = PatchGrid(side=64, stride=32, jitter=4)
TURNS = {"down": 0, "left": 1, "up": 2, "right": 3}
"""Quarter turns of the grid after which what lies in a direction lies below."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    patches: PatchGrid = PATCHES,
    toward: tuple[str, ...] = ("down",),
    ahead: int = 5,
    skip: int = 0,
    context_depth: int = 5,
    context_width: int = 256,
    projection: int | None = None,
    temperature: float = 1.0,
    drop_colors: bool = False,
    block_size: int | None = None,
) -> Method:
    """Contrastive predictive coding.

    Overlapping patches x of an image, a grid of them, go through one encoder, and what it makes of them through a network
    whose output at a place depends on the rows down to it, and on nothing below::

        z_ij = f(x_ij)        c_ij = g(z_1·, ..., z_i·)        p_ijk = W_k c_ij
        L    = mean over images, places and rows ahead k of  −log [ exp(p_ijk·z_i+k,j / τ) / Σ_z exp(p_ijk·z / τ) ]

    The sum is over the patches of all images of the batch, those of the same image among them. With ``projection`` z is a
    linear map of the features in the loss, so that the score is one of low rank; g sees the features. For each direction of
    ``toward`` the grid is turned, and has a g and W of its own; the loss is the mean of theirs.

    Encoders should normalise each patch by itself (``norm="group"``, ViTs), as in both papers: statistics of the batch tell the
    patches of an image of each other, by which the loss falls lower and the features are no better.

    The encoder sees patches when it is trained and whole images in ``encode``, with the same parameters: it has to take both
    sizes. Convolutional encoders pool what map is left; the patches of a ViT have to divide these patches and the images, and
    its positions must not be relative.

    Args:
      encoder: the network to train.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` of 256 pixels with little cropping, all gray.
      patches: where patches lie, see :class:`ssl_jax.ops.tiles.PatchGrid`.
      toward: directions of the predictions: ``"down"``, ``"up"``, ``"left"``, ``"right"``; all four in the second paper.
      ahead: rows ahead that are predicted; 3 in the second paper.
      skip: nearest ones of them that are not, such as those that overlap the rows that are seen; 2 there.
      context_depth: blocks of g, see :func:`ssl_jax.models.context.row_context`.
      context_width: features inside of them.
      projection: width of z in the loss, 64 in the second paper; ``None``: the features themselves.
      temperature: τ > 0; 10 there. May be traced.
      drop_colors: of each patch keep one channel, of the second paper; does nothing to gray images.
      block_size: compute the scores in blocks of so many candidates; ``None``: all at once, up to (images · patches)² for each
        row ahead.

    Returns:
      The method. ``encode`` gives the encoder's features of whole images. Metrics: ``information``, log of the number of
      candidates less the loss, at most what z and c tell of each other, in nats; ``embedding_std``, how the features of all
      patches spread over the sphere.

    Raises:
      ValueError: a view without room for the rows ahead, an unknown direction, an option out of its range, more than one view.

    References: Representation Learning with Contrastive Predictive Coding, sections 2 and 3.2; Data-Efficient Image Recognition
    with Contrastive Predictive Coding, section 2. Both from memory: there is no official code. Deviations: the layers of g, a
    masked convolutional network, may differ from those of the papers' PixelCNN; rows ahead and directions count alike and their
    losses are averaged, where the second paper adds them; of its augmentations of single patches there are a random position
    and dropped colours.
    """
    views = presets.mae(256, area=(0.7, 1.0), grayscale_prob=1.0) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    for name in toward:
        choice("toward", name, TURNS)
    distinct = 1 <= len(toward) == len(set(toward))
    require(distinct, "toward", toward, "one to four different directions")
    side = patches.count(views[0].size)
    require(1 <= ahead < side, "ahead", ahead, f"1 to {side - 1}: there are {side} rows of patches")
    require(0 <= skip < ahead, "skip", skip, f"0 to {ahead - 1}: less than ahead")
    steps = range(skip + 1, ahead + 1)
    dtype, features = compute_dtype(encoder), encoder.features
    width = features if projection is None else projection
    target = identity(features) if projection is None else heads.mlp((width,), dtype=dtype)
    predictor = chain(
        context=row_context(features, width=context_width, depth=context_depth, dtype=dtype),
        rows=heads.mlp((len(steps) * width,), dtype=dtype),
    )

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        patch = jnp.zeros((1, patches.side, patches.side, batch["views"][0].shape[-1]))
        grid = jnp.zeros((1, side, side, features))
        networks = {"encoder": (encoder, patch), "target": (target, grid)}
        networks |= dict.fromkeys(toward, (predictor, grid))
        keys = jax.random.split(key, len(networks))
        made = {n: f.init(k, x) for k, (n, (f, x)) in zip(keys, networks.items(), strict=True)}
        return {n: params for n, (params, _) in made.items()}, {n: state for n, (_, state) in made.items()}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        patch_key, network_key = jax.random.split(key)
        cut = cut_patches(patch_key, batch["views"][0][:, 0], patches, drop=drop_colors)
        h, state = embed_views(encoder, params, state, {"views": (cut,)}, network_key)  # [b, patches, f]
        z = h.reshape(len(h), side, side, features)
        wanted, _ = target.apply(params["target"], state["target"], z)  # [b, r, s, d]

        losses = [
            predict_below(
                params[name], state[name], *(jnp.rot90(x, TURNS[name], axes=(1, 2)) for x in (z, wanted))
            )
            for name in toward
        ]
        value = jnp.mean(jnp.stack(losses))
        metrics = {
            "information": information_bound(value, wanted[..., 0].size),
            "embedding_std": direction_std(h.reshape(-1, features)),
        }
        return value, (state, metrics)

    def predict_below(params: Params, state: State, z: Array, wanted: Array) -> Array:
        """Compute the mean loss of all rows ahead from features ``[b, r, s, f]`` and targets ``[b, r, s, d]``."""
        (_, predictions), _ = predictor.apply(params, state, z)
        candidates = wanted.reshape(-1, width)
        places = jnp.arange(len(candidates)).reshape(wanted.shape[:3])
        losses = []
        for k, p in zip(steps, jnp.split(predictions, len(steps), axis=-1), strict=True):
            p, below = p[:, :-k].reshape(-1, width), places[:, k:].reshape(-1)
            losses.append(
                predictive_coding(p, candidates, below, temperature=temperature, block_size=block_size)
            )
        return jnp.mean(jnp.stack(losses))

    collapse = (
        CollapseValue(
            "loss",
            lambda images: math.log(images * side * side),
            "what lies below cannot be told from any other patch",
        ),
    )
    return Method(views, init, loss, encoder, collapse=collapse)
