"""What methods of every family share: networks in a row, views in and out of the batch axis, memories, health metrics."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax import models
from ssl_jax.core.numerics import at_least_float32, normalize
from ssl_jax.core.types import Array, Key, Metrics, Params, State
from ssl_jax.models.network import Network
from ssl_jax.optim.ema import Ema, EmaState, ema


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
    return bank.at[last_of_each(index, bank.shape[0])].set(normalize(rows), mode="drop")


def last_of_each(index: Int[Array, " n"], rows: int) -> Int[Array, " n"]:
    """Where to write with ``mode="drop"``: of equal places the last stays, the others go beyond the end, to ``rows``.

    The order of several writes to one place is not defined.

    >>> last_of_each(jnp.array([1, 0, 1]), 5).tolist()
    [5, 0, 1]
    """
    place = jnp.arange(index.shape[0])
    repeated = jnp.any((index[:, None] == index[None, :]) & (place[:, None] < place[None, :]), axis=1)
    return jnp.where(repeated, rows, index)


def average_rows(
    average: Ema, memory: EmaState, index: Int[Array, " n"], rows: Float[Array, "n d"]
) -> EmaState:
    """A memory of averages after a batch: rows ``index`` take in ``rows``, each with a weight of its own.

    Args:
      average: :func:`ssl_jax.optim.ema.ema` with ``debias`` and a constant decay.
      memory: ``average`` ``[m, d]`` and ``weight`` ``[m, 1]``; :func:`ssl_jax.optim.ema.debiased` reads it.
      index: ``[n]`` which rows; of equal ones the last is written.
      rows: ``[n, d]``; no gradient passes.

    Returns:
      The new memory; other rows are untouched.

    >>> average = ema(0.5, debias=True)
    >>> memory = average.init(jnp.zeros((3, 1)))._replace(weight=jnp.zeros((3, 1)))
    >>> memory = average_rows(average, memory, jnp.array([2, 0]), jnp.array([[4.0], [6.0]]))
    >>> memory.average.ravel().tolist(), memory.weight.ravel().tolist()
    ([3.0, 0.0, 2.0], [0.5, 0.0, 0.5])
    """
    old = memory._replace(average=memory.average[index], weight=memory.weight[index])
    _, new = average.update(jax.lax.stop_gradient(rows), old)
    place = last_of_each(index, memory.average.shape[0])
    write = lambda table, values: table.at[place].set(values, mode="drop")  # noqa: E731
    return new._replace(average=write(memory.average, new.average), weight=write(memory.weight, new.weight))


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


def without_drop_path(encoder: Network) -> Network:
    """The same architecture without stochastic depth, as teachers have it."""
    if not encoder.config.get("drop_path"):
        return encoder
    return models.build(**{**encoder.config, "drop_path": 0.0})


def compute_dtype(encoder: Network) -> str:
    """The compute dtype of an encoder, which its heads follow."""
    return str(encoder.config.get("dtype", "float32"))


def grid_of(encoder: Network, images: Array | np.ndarray) -> tuple[int, int]:
    """Rows and columns of patches."""
    patch = int(encoder.config["patch"])
    return images.shape[1] // patch, images.shape[2] // patch


def prefix_of(encoder: Network) -> int:
    """Tokens in front of the patches."""
    return int(encoder.config["class_token"]) + int(encoder.config["registers"])
