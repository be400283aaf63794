"""The scaffolding of methods that compare views through one network: SimCLR and its relatives, metric learning, redundancy."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import Halves, Method, Sign, encoding
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity

PairLoss = Callable[[Array, Array, Batch, Key, Array], tuple[Array, Metrics]]
"""``(z1, z2, batch, key, step) -> (loss, metrics)`` with the projections ``[n, d]`` of the two views."""

ViewsLoss = Callable[[Array, Batch, Key, Array], tuple[Array, Metrics]]
"""``(z, batch, key, step) -> (loss, metrics)`` with the projections ``[n, v, d]`` of v views."""


def pair_method(
    encoder: Network,
    projector: Network,
    loss_of: PairLoss,
    *,
    views: tuple[View, ...],
    signs: Callable[[int], tuple[Sign, ...]],
) -> Method:
    """:func:`views_method` of two views, whose loss takes the projections of each by itself.

    Raises:
      ValueError: not two views of one size.
    """
    require(len(views) == 2, "views", len(views), "two")

    def loss_of_both(z: Array, batch: Batch, key: Key, step: Array) -> tuple[Array, Metrics]:
        return loss_of(z[:, 0], z[:, 1], batch, key, step)

    return views_method(encoder, projector, loss_of_both, views=views, signs=signs)


def views_method(
    encoder: Network,
    projector: Network,
    loss_of: ViewsLoss,
    *,
    views: tuple[View, ...],
    signs: Callable[[int], tuple[Sign, ...]],
) -> Method:
    """A method whose loss is a function of the projections of two views or more.

    All views pass through the network as one batch, so BatchNorm sees vN images. Nothing is kept between steps but batch
    statistics. The metrics of :func:`ssl_jax.methods.parts.siamese.pair_health`, of the first two views, are added to those of
    the loss.

    Args:
      encoder: the network to train; its features are what ``encode`` gives.
      projector: head between the features and the loss.
      loss_of: the loss; its key is for what the loss draws.
      views: two or more of one size.
      signs: of collapse, as in :class:`ssl_jax.methods.method.Method`.

    Returns:
      The method.

    Raises:
      ValueError: fewer than two views, or views that differ in size.
    """
    sizes = [view.size for view in views]
    require(len(sizes) >= 2 and len(set(sizes)) == 1, "views", sizes, "two views or more of one size")
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def embed(params: Params, state: State, batch: Batch, key: Key) -> tuple[Array, State]:
        (features,), moved = embed_crops(encoder, params["encoder"], state["encoder"], batch["views"], key)
        return features, {**state, "encoder": moved}

    def compare(
        params: Params, state: State, features: Array, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        projections, moved = projector.apply(
            params["projector"], state["projector"], merge_views(features), train=True
        )
        z = split_views(projections, len(views))
        value, metrics = loss_of(z, batch, key, step)
        state = {**state, "projector": moved}
        return value, (state, {**pair_health(z[:, 0], z[:, 1]), **metrics})

    encode, encoder_of = encoding(encoder)
    halves = Halves(embed, compare)
    return Method(views, init, halves.loss, encode, encoder, encoder_of, signs=signs, halves=halves)


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


def expander(encoder: Network, *, layers: int, width: int, norm: str, projection: int) -> Network:
    """The projector of Barlow Twins and VICReg: dense layers without bias, normalisation and ReLU between them, nothing after.

    Args:
      encoder: whose features it takes.
      layers: depth, 3 in the papers; 0: none.
      width: of the hidden layers.
      norm: of the hidden layers, ``"batch"``, ``"group"`` or ``"none"``; see :func:`ssl_jax.models.heads.mlp`.
      projection: width of the output.

    Returns:
      The head; the identity for 0 layers.

    Raises:
      ValueError: ``layers`` is negative, an unknown norm.

    Reference: facebookresearch/barlowtwins, facebookresearch/vicreg.
    """
    require(layers >= 0, "projector_layers", layers, "an integer of 0 or more")
    choice("projector_norm", norm, heads.HIDDEN_NORMS)
    if layers == 0:
        return identity(encoder.features)
    widths = (width,) * (layers - 1) + (projection,)
    # BatchNorm would cancel a bias.
    biased = norm == "none"
    options: dict[str, Any] = {"hidden_bias": biased, "hidden_norm": norm, "last_bias": False}
    return heads.mlp(widths, dtype=compute_dtype(encoder), **options)


def merge_views(views: Float[Array, "b v ..."]) -> Float[Array, "bv ..."]:
    """``[batch, views, ...]`` to ``[batch * views, ...]``: an order that moves no image between devices.

    >>> import jax.numpy as jnp
    >>> merge_views(jnp.zeros((4, 2, 8, 8, 3))).shape
    (8, 8, 8, 3)
    """
    return views.reshape(-1, *views.shape[2:])


def split_views(merged: Float[Array, "bv ..."], count: int) -> Float[Array, "b v ..."]:
    """The inverse of :func:`merge_views` for ``count`` views an example.

    >>> import jax.numpy as jnp
    >>> split_views(jnp.zeros((8, 16)), 2).shape
    (4, 2, 16)
    """
    return merged.reshape(-1, count, *merged.shape[1:])


def embed_crops(
    encoder: Network, params: Params, state: State, crops: Sequence[Array], key: Key
) -> tuple[list[Array], State]:
    """Features of crops of several sizes, those of one size as one batch: batch statistics are per size.

    Args:
      encoder: the network, in training mode.
      params: its params.
      state: its state, which passes through the sizes in turn.
      crops: for each size ``[b, v, h, w, c]``.
      key: of what the encoder draws.

    Returns:
      ``(for each size [b, v, features], state)``.
    """
    features = []
    for i, group in enumerate(crops):
        size_key = jax.random.fold_in(key, i)
        merged, state = encoder.apply(params, state, merge_views(group), train=True, key=size_key)
        features.append(split_views(merged, group.shape[1]))
    return features, state


def pair_health(x: Float[Array, "n d"], y: Float[Array, "n d"]) -> Metrics:
    """Collapse monitors of two embeddings of the same images, on unit vectors.

    ``std``: see :func:`direction_std`.
    ``alignment``: ``mean ‖x − y‖²`` (Wang & Isola 2020), 0 when the views agree.

    Args:
      x: embeddings of the first views.
      y: embeddings of the second views.

    Returns:
      Scalars ``embedding_std`` and ``alignment``.
    """
    u, v = normalize(jax.lax.stop_gradient(x)), normalize(jax.lax.stop_gradient(y))
    return {"embedding_std": direction_std(x), "alignment": jnp.mean(jnp.sum((u - v) ** 2, axis=-1))}


def direction_std(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """How far embeddings spread over the sphere, without gradient.

    The standard deviation of the unit vectors over the batch, averaged over dimensions and divided by ``1/√d``, its value for
    directions spread evenly: near 1 is healthy, 0 is complete collapse (SimSiam, Chen & He 2021, section 4.1).

    >>> import jax.numpy as jnp
    >>> float(direction_std(jnp.ones((3, 2))))
    0.0
    """
    unit = normalize(jax.lax.stop_gradient(x))
    return jnp.mean(jnp.std(unit, axis=0)) * jnp.sqrt(1.0 * unit.shape[-1])
