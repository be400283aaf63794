"""Jigsaw (Noroozi and Favaro, ECCV 2016): tell in which order the tiles of an image were shuffled."""

import math

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Limits, Method
from ssl_jax.methods.parts.siamese import embed_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.ops.tiles import Layout, make_tiles
from ssl_jax.ops.tiles import permutations as permutations_of


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    permutations: int = 100,
    objective: str = "max_avg",
    permutation_seed: int = 0,
    tiles: Layout = Layout(grid=3, tile=64, jitter=19, channel_jitter=2),
    color_projection: float = 0.5,
    normalize_tiles: bool = True,
    projection: int = 1024,
    hidden_dim: int = 4096,
    hidden_layers: int = 1,
) -> Method:
    """Jigsaw.

    Tiles t of a grid at a random place of each view are shuffled by permutation p of a fixed set, drawn for each image, and go
    through one encoder and one layer g; their features in the shuffled order through a head::

        L = mean over images  −log softmax(h([g(f(t_p(1))), …, g(f(t_p(9)))]))_p

    The encoder sees tiles when it is trained and whole images in ``encode``, with the same parameters: it has to take both
    sizes. Convolutional encoders pool what map is left; the patches of a ViT have to divide tiles and images, and its
    positions must not be relative.

    Args:
      encoder: the network to train.
      views: one view, large enough for the tiles; ``None``: :func:`ssl_jax.augment.presets.mae` of 255 pixels, half of them
        gray.
      permutations: size of the set.
      objective: by which :func:`ssl_jax.ops.tiles.permutations` makes it, ``"max_avg"`` or ``"max_min"``.
      permutation_seed: of its first permutation.
      tiles: 2 x 2 or 3 x 3 of them, see :class:`ssl_jax.ops.tiles.Layout`; ``channel_jitter`` is against chromatic aberration.
      color_projection: probability that an image loses its colours between magenta and green, which does nothing to gray ones.
        May be traced.
      normalize_tiles: standardise each tile.
      projection: width of g, with BatchNorm and ReLU.
      hidden_dim: width of the hidden layers of the head, with BatchNorm and ReLU.
      hidden_layers: their number; 0: linear, as in vissl.

    Returns:
      The method. ``encode`` gives the encoder's features of whole images, before g; metrics hold the ``accuracy`` of the
      permutations.

    Raises:
      ValueError: a view in which the tiles do not fit, more permutations than there are, an option out of its range, more than
        one view.

    References: "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles"; MehdiNoroozi/JigsawPuzzleSolver;
    vissl's ``jigsaw``. Deviations: shifts of channels are taken from those of tiles (19 + 2 for the code's 21, to which it
    adds 2), so that no tile reaches into the next cell; tiles with a variance far below 0.01 stay near 0; no dropout.
    """
    views = presets.mae(255, grayscale_prob=0.5) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    tiles.require_room("views", views[0].size, views[0].size)
    grid, tile = tiles.grid, tiles.tile
    require(grid <= 3, "tiles.grid", grid, "2 or 3: the permutations of 16 tiles cannot be listed")
    require(permutations >= 2, "permutations", permutations, "an integer of 2 or more")
    require(hidden_layers >= 0, "hidden_layers", hidden_layers, "an integer of 0 or more")
    orders = jnp.asarray(
        permutations_of(permutations, tiles=grid * grid, objective=objective, seed=permutation_seed)
    )
    dtype = compute_dtype(encoder)
    projector = heads.mlp((projection,), last_bias=False, last_norm="batch", dtype=dtype)
    head = heads.mlp((hidden_dim,) * hidden_layers + (permutations,), hidden_bias=False, dtype=dtype)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        keys = jax.random.split(key, 3)
        inputs = {
            "encoder": jnp.zeros((1, tile, tile, batch["views"][0].shape[-1])),
            "projector": jnp.zeros((1, encoder.features)),
            "head": jnp.zeros((1, grid * grid * projection)),
        }
        networks = {"encoder": encoder, "projector": projector, "head": head}
        made = {n: networks[n].init(k, x) for k, (n, x) in zip(keys, inputs.items(), strict=True)}
        return {n: params for n, (params, _) in made.items()}, {n: state for n, (_, state) in made.items()}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        tile_key, draw_key, network_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        cut = make_tiles(tile_key, images, tiles, projection=color_projection, normalize=normalize_tiles)
        labels = jax.random.randint(draw_key, (len(cut),), 0, permutations)
        shuffled = jnp.take_along_axis(cut, orders[labels][..., None, None, None], axis=1)
        h, state = embed_views(encoder, params, state, {"views": (shuffled,)}, network_key)  # [b, tiles, f]
        projected, state["projector"] = projector.apply(
            params["projector"], state["projector"], h, train=True
        )
        joined = jax.nn.relu(projected).reshape(len(projected), -1)
        logits, state["head"] = head.apply(params["head"], state["head"], joined, train=True)
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        accuracy = jnp.mean(jnp.argmax(logits, axis=1) == labels)
        return value, (state, {"accuracy": accuracy})

    collapse = (
        CollapseValue("loss", math.log(permutations), "permutations cannot be told from what is seen"),
    )
    return Method(views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=2))
