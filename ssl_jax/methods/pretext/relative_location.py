"""Relative location (Doersch et al., ICCV 2015): tell on which side of one patch of an image another one lies."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.siamese import embed_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.ops.tiles import Layout, make_tiles, neighbor_pairs

DIRECTIONS = 8


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    form: str = "center",
    tiles: Layout = Layout(grid=3, tile=64, jitter=21),
    drop_colors: bool = True,
    color_projection: float = 0.0,
    normalize_tiles: bool = True,
    hidden_dim: int = 4096,
    hidden_layers: int = 1,
) -> Method:
    """Relative location.

    Tiles t of a grid at a random place of each view go through one encoder; pairs of neighbours through a head on both
    features::

        L = mean over pairs (i, j)  −log softmax(h([f(t_i), f(t_j)]))_d(i, j)      d: 8 directions from i to j

    The encoder sees tiles when it is trained and whole images in ``encode``, with the same parameters: it has to take both
    sizes. Convolutional encoders pool what map is left; the patches of a ViT have to divide tiles and images, and its
    positions must not be relative.

    Args:
      encoder: the network to train.
      views: one view, large enough for the tiles; ``None``: :func:`ssl_jax.augment.presets.mae` of 255 pixels without flips.
      form: ``"center"``: eight pairs from the middle of 3 x 3 tiles (mmselfsup); ``"all"``: all neighbours in both orders
        (the authors).
      tiles: where tiles lie, see :class:`ssl_jax.ops.tiles.Layout`; a ``gap`` is against lines that go on from one to the next.
        The authors' tiles of 96, 48 apart and moved by up to 7 to all sides, are ``tile=96, gap=34, jitter=14``.
      drop_colors: keep one channel of each tile and put noise in place of the others, against chromatic aberration; does
        nothing to gray images.
      color_projection: probability that an image loses its colours between magenta and green, the paper's other defence. May be
        traced.
      normalize_tiles: standardise each tile.
      hidden_dim: width of the hidden layers of the head, with BatchNorm and ReLU.
      hidden_layers: their number.

    Returns:
      The method. ``encode`` gives the encoder's features of whole images; metrics hold the ``accuracy`` of the directions.

    Raises:
      ValueError: a view in which the tiles do not fit, an option out of its range, more than one view.

    References: "Unsupervised Visual Representation Learning by Context Prediction"; cdoersch/deepcontext;
    mmselfsup's ``relative_loc``. Deviations: one grid of fixed size an image, where the authors fill the image with four; no
    tile is shrunk and enlarged again against pixel-level cues; tiles with a variance far below 0.01 stay near 0; the head has
    no dropout.
    """
    views = presets.mae(255, flip_prob=0.0) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    tiles.require_room("views", views[0].size, views[0].size)
    require(hidden_layers >= 0, "hidden_layers", hidden_layers, "an integer of 0 or more")
    first, second, directions = jnp.asarray(neighbor_pairs(tiles.grid, form=form)).T
    widths = (hidden_dim,) * hidden_layers + (DIRECTIONS,)
    head = heads.mlp(widths, hidden_bias=False, dtype=compute_dtype(encoder))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, head_key = jax.random.split(key)
        cut = jnp.zeros((1, tiles.tile, tiles.tile, batch["views"][0].shape[-1]))
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, cut)
        params["head"], state["head"] = head.init(head_key, jnp.zeros((1, 2 * encoder.features)))
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        tile_key, network_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        options: dict[str, Any] = {"drop": drop_colors, "normalize": normalize_tiles}
        cut = make_tiles(tile_key, images, tiles, projection=color_projection, **options)
        h, state = embed_views(encoder, params, state, {"views": (cut,)}, network_key)  # [b, tiles, f]
        pairs = jnp.concatenate([h[:, first], h[:, second]], axis=-1)
        logits, state["head"] = head.apply(params["head"], state["head"], pairs, train=True)
        labels = jnp.broadcast_to(directions, logits.shape[:2])
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        return value, (state, {"accuracy": accuracy})

    collapse = (CollapseValue("loss", math.log(DIRECTIONS), "directions cannot be told from what is seen"),)
    return Method(views, init, loss, encoder, collapse=collapse)
