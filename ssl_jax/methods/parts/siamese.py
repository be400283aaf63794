"""Views through one network: how siamese methods embed and project them, the projectors, the metrics of a pair."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import compute_std, normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype, identity


def require_pair(views: tuple[View, ...]) -> None:
    """Raise a ValueError unless there are two views of one size."""
    require(len(views) == 2, "views", len(views), "two")
    require_one_size(views)


def require_one_size(views: tuple[View, ...]) -> None:
    """Raise a ValueError unless there are two views or more, of one size."""
    sizes = [view.size for view in views]
    require(len(sizes) >= 2 and len(set(sizes)) == 1, "views", sizes, "two views or more of one size")


def embed_each_size(
    encoder: Network, params: Params, state: State, crops: Sequence[Array], key: Key
) -> tuple[list[Float[Array, "b v f"]], State]:
    """Compute the features of crops of several sizes, those of one size as one batch: batch statistics are per size.

    A network of :func:`ssl_jax.models.packing.pack_crops` takes all of them as one sequence an example, with the same result.

    Args:
      encoder: f, in training mode.
      params: its parameters.
      state: its state, which passes through the sizes in turn.
      crops: for each size ``[b, v, h, w, c]``.
      key: used once, for what the encoder draws.

    Returns:
      ``(for each size [b, v, f], state)``.
    """
    if encoder.packed and len(crops) > 1:
        every, state = encoder.apply(params, state, tuple(crops), train=True, key=key)
        ends = np.cumsum([group.shape[1] for group in crops])[:-1].tolist()
        return jnp.split(every, ends, axis=1), state
    features = []
    for i, group in enumerate(crops):
        size_key = jax.random.fold_in(key, i)
        merged, state = encoder.apply(params, state, merge_views(group), train=True, key=size_key)
        features.append(split_views(merged, group.shape[1]))
    return features, state


def embed_views(
    encoder: Network, params: Params, state: State, batch: Batch, key: Key
) -> tuple[Float[Array, "b v f"], State]:
    """Compute the features of all views, those of one size as one batch: ``h = f(x)``.

    BatchNorm statistics are those of all views of a size. Where ``batch["features"]`` stands already it is returned, and the
    encoder is not run: so cached gradients (:func:`ssl_jax.train.step.make_train_step`) call the same loss.

    Args:
      encoder: f, in training mode; ``params["encoder"]`` and ``state["encoder"]`` are its variables.
      params: the method's parameters.
      state: a dict with ``encoder``, which passes through the sizes in turn.
      batch: with ``views``, for each size ``[b, v, h, w, c]``, or with ``features``.
      key: used once, for what the encoder draws.

    Returns:
      ``(h, state)``, the views of all sizes in the order of ``batch["views"]``.
    """
    if "features" in batch:
        return batch["features"], state
    features, encoder_state = embed_each_size(
        encoder, params["encoder"], state["encoder"], batch["views"], key
    )
    return jnp.concatenate(features, axis=1), {**state, "encoder": encoder_state}


def project_views(
    projector: Network, params: Params, state: State, features: Float[Array, "b v f"], name: str = "projector"
) -> tuple[Float[Array, "b v d"], State]:
    """Project the features of all views as one batch: ``z = g(h)``.

    Args:
      projector: g, in training mode.
      params: the method's parameters.
      state: a dict with ``name``.
      features: h, from :func:`embed_views`.
      name: key of g's variables in params and state.

    Returns:
      ``(z, state)``.
    """
    merged, head_state = projector.apply(params[name], state[name], merge_views(features), train=True)
    return split_views(merged, features.shape[1]), {**state, name: head_state}


def apply_per_view(
    network: Network,
    params: Params,
    state: State,
    views: Float[Array, "b v ..."],
    key: Key | None = None,
) -> tuple[Float[Array, "b v d"], State]:
    """Apply a network to one view after the other: BatchNorm statistics are per view.

    Args:
      network: a network, in training mode; of a :func:`ssl_jax.models.network.chain` the last output is taken.
      params: its parameters.
      state: its state, which passes through the views in turn.
      views: ``[b, v, ...]``, images or features.
      key: used once, for what the network draws.

    Returns:
      ``(outputs, state)``.
    """
    outputs = []
    for i, inputs in enumerate(views.swapaxes(0, 1)):
        view_key = None if key is None else jax.random.fold_in(key, i)
        output, state = network.apply(params, state, inputs, train=True, key=view_key)
        outputs.append(output[-1] if isinstance(output, tuple) else output)
    return jnp.stack(outputs, axis=1), state


def simclr_projector(encoder: Network, *, layers: int, width: int | None, projection: int) -> Network:
    """Build SimCLR's projector: dense layers without bias, BatchNorm and ReLU between them, a BatchNorm without β at the end.

    Args:
      encoder: the network whose features it takes.
      layers: depth, the paper's ablation: 0 (none), 1 (linear), 2 (SimCLR), 3 (SimCLR v2).
      width: width of the hidden layers; ``None``: the encoder's features, as in the paper.
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
    """Build the projector of Barlow Twins and VICReg: dense layers without bias, normalisation and ReLU between, nothing after.

    Args:
      encoder: the network whose features it takes.
      layers: depth, 3 in the papers; 0: none.
      width: width of the hidden layers.
      norm: normalisation of the hidden layers, ``"batch"``, ``"group"``, ``"layer"`` or ``"none"``; see
        :func:`ssl_jax.models.heads.mlp`.
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
    """Reshape ``[batch, views, ...]`` to ``[batch * views, ...]``: an order that moves no image between devices.

    >>> import jax.numpy as jnp
    >>> merge_views(jnp.zeros((4, 2, 8, 8, 3))).shape
    (8, 8, 8, 3)
    """
    return views.reshape(-1, *views.shape[2:])


def split_views(merged: Float[Array, "bv ..."], count: int) -> Float[Array, "b v ..."]:
    """Invert :func:`merge_views` for ``count`` views an example.

    >>> import jax.numpy as jnp
    >>> split_views(jnp.zeros((8, 16)), 2).shape
    (4, 2, 16)
    """
    return merged.reshape(-1, count, *merged.shape[1:])


def pair_metrics(x: Float[Array, "n d"], y: Float[Array, "n d"]) -> Metrics:
    """Compute collapse monitors of two embeddings of the same images, on unit vectors.

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
    """Measure how far embeddings spread over the sphere, without gradient.

    The standard deviation of the unit vectors over the batch, averaged over dimensions and divided by ``1/√d``, its value for
    directions spread evenly: near 1 is healthy, 0 is complete collapse (SimSiam, Chen & He 2021, section 4.1).

    >>> import jax.numpy as jnp
    >>> float(direction_std(jnp.ones((3, 2))))
    0.0
    """
    unit = normalize(jax.lax.stop_gradient(x))
    return jnp.mean(compute_std(unit)) * jnp.sqrt(1.0 * unit.shape[-1])
