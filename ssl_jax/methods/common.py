"""What methods of every family share: networks in a row, views in and out of the batch axis, memories, health metrics."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssl_jax import models
from ssl_jax.core.numerics import at_least_float32, normalize
from ssl_jax.core.types import Array, Key, Metrics, Params, State
from ssl_jax.models.network import Network
from ssl_jax.optim.ema import ema


def chain(**networks: Network) -> Network:
    """Networks applied one after the other, each to the output of the one before.

    Variables are dicts by the networks' names, so a method's params hold ``encoder``, ``projector`` and so on; entries under
    other names are left alone. ``apply`` returns the outputs of all of them, as a tuple.

    Args:
      **networks: name to network, in order of application.

    Returns:
      The network in a row: ``apply`` returns ``((output_1, ..., output_n), state)``.
    """
    order = list(networks.items())

    def init(key: Key, inputs: Array) -> tuple[Params, State]:
        params: Params = {}
        state: State = {}
        for network_key, (name, network) in zip(jax.random.split(key, len(order)), order, strict=True):
            params[name], state[name] = network.init(network_key, inputs)
            inputs = jnp.zeros((inputs.shape[0], network.features))
        return params, state

    def apply(
        params: Params, state: State, inputs: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[tuple[Array, ...], State]:
        state = dict(state)
        outputs = []
        for i, (name, network) in enumerate(order):
            part_key = None if key is None else jax.random.fold_in(key, i)
            inputs, state[name] = network.apply(params[name], state[name], inputs, train=train, key=part_key)
            outputs.append(inputs)
        return tuple(outputs), state

    return Network(init, apply, order[-1][1].features, {})


def identity(features: int) -> Network:
    """The network that returns its input: a projector or predictor that is switched off.

    >>> identity(8).apply({}, {}, 3.0)
    (3.0, {})
    """
    return Network(lambda key, inputs: ({}, {}), lambda params, state, x, **_: (x, state), features, {})


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


def encode_with(encoder: Network, params: Params, state: State, images: Array) -> Array:
    """Features of an encoder in inference mode, float32 ``[batch, features]``."""
    features, _ = encoder.apply(params, state, images, train=False)
    return at_least_float32(features)


def encoding(
    encoder: Network, *within: str
) -> tuple[Callable[[Params, State, Array], Array], Callable[[Params, State], tuple[Params, State]]]:
    """``encode`` and ``encoder_of`` of a method whose own encoder is the one to keep.

    Args:
      encoder: whose params are ``params["encoder"]``.
      *within: where in the state its batch statistics lie, as names from the top.
    """

    def encoder_of(params: Params, state: State) -> tuple[Params, State]:
        for name in within:
            state = state[name]
        return params["encoder"], state["encoder"]

    def encode(params: Params, state: State, images: Array) -> Array:
        return encode_with(encoder, *encoder_of(params, state), images)

    return encode, encoder_of


def remember(
    bank: Float[Array, "m d"], index: Int[Array, " n"], q: Float[Array, "n d"], decay: float | Array
) -> Float[Array, "m d"]:
    """The memory after a batch: ``u_y ← n(decay · u_y + (1 − decay) · q)`` for the images y of the batch.

    Args:
      bank: ``[m, d]`` unit rows.
      index: ``[n]`` which rows; of equal ones the last is written.
      q: ``[n, d]`` unit rows; no gradient passes.
      decay: 0 to 1.

    Returns:
      The new bank; rows of other images are untouched.

    >>> import jax.numpy as jnp
    >>> remember(jnp.eye(2), jnp.array([1, 1]), jnp.array([[0.6, 0.8], [1.0, 0.0]]), 0.0).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    average = ema(decay)
    rows, _ = average.update(jax.lax.stop_gradient(q), average.init(bank[index]))
    place = jnp.arange(index.shape[0])
    repeated = jnp.any((index[:, None] == index[None, :]) & (place[:, None] < place[None, :]), axis=1)
    # Rows beyond the bank are dropped: the order of writes to one place is not defined.
    kept = jnp.where(repeated, bank.shape[0], index)
    return bank.at[kept].set(normalize(rows), mode="drop")


def pair_health(x: Float[Array, "n d"], y: Float[Array, "n d"]) -> Metrics:
    """Collapse monitors of two embeddings of the same images, on unit vectors.

    ``std``: standard deviation over the batch, averaged over dimensions and divided by ``1/√d``, its value for directions
    spread evenly over the sphere: near 1 is healthy, 0 is complete collapse (SimSiam, Chen & He 2021, section 4.1).
    ``alignment``: ``mean ‖x − y‖²`` (Wang & Isola 2020), 0 when the views agree.

    Args:
      x: embeddings of the first views.
      y: embeddings of the second views.

    Returns:
      Scalars ``embedding_std`` and ``alignment``.
    """
    x, y = normalize(jax.lax.stop_gradient(x)), normalize(jax.lax.stop_gradient(y))
    std = jnp.mean(jnp.std(x, axis=0)) * jnp.sqrt(1.0 * x.shape[-1])
    return {"embedding_std": std, "alignment": jnp.mean(jnp.sum((x - y) ** 2, axis=-1))}


def without_drop_path(encoder: Network) -> Network:
    """The same architecture without stochastic depth, as teachers have it."""
    if not encoder.config.get("drop_path"):
        return encoder
    return models.build(**{**encoder.config, "drop_path": 0.0})


def compute_dtype(encoder: Network) -> str:
    """The compute dtype of an encoder, which its heads follow."""
    return str(encoder.config.get("dtype", "float32"))
