"""The form in which every network leaves ``models/``: two pure functions over plain dicts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import check, trees
from ssl_jax.core.types import Array, Key, Params, State

DTYPES = ("float32", "bfloat16", "float64")


class Network(NamedTuple):
    """A network as a pair of pure functions, with what is needed to build it again.

    Attributes:
      init: ``(key, inputs) -> (params, state)``. ``inputs`` is an array of the right shape (its values are
        not read). ``params`` are float32; ``state`` holds batch statistics and other arrays that no gradient
        reaches, ``{}`` if none.
      apply: ``(params, state, inputs, *, train=False, key=None, **options) -> (outputs, state)``. With
        ``train=False`` it is deterministic and returns ``state`` as it came. ``key`` is needed only where
        training draws (stochastic depth).
      features: width of the last axis of the outputs.
      config: ``{"name": ..., **options}``: ``models.build(**config)`` builds the same encoder again. ``{}``
        for heads.
      packed: methods pass crops of several sizes through it as one sequence, see
        :func:`ssl_jax.models.packing.pack_crops`.
    """

    init: Callable[..., tuple[Params, State]]
    apply: Callable[..., tuple[Any, State]]
    features: int
    config: Mapping[str, Any]
    packed: bool = False


def from_linen(module: nn.Module, *, features: int, config: Mapping[str, Any] | None = None) -> Network:
    """Turn a Linen module into a pair of pure functions over plain dicts.

    The module's ``__call__`` is ``(inputs, *, train, **options)``. Collection ``params`` becomes the params;
    all other collections become the state, of which training changes ``batch_stats`` only (``frozen`` stays
    as it is). What training draws comes from the random stream ``"train"``; where the inputs are a tuple, from ``"train_0"``,
    ``"train_1"``, ..., whose keys are ``fold_in(key, i)``.

    Args:
      module: the Linen module.
      features: width of the last axis of its outputs.
      config: options that ``models.build`` needs to build it again; ``None`` for heads.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> class Linear(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, inputs, *, train):
    ...         return nn.Dense(2)(inputs)
    >>> network = from_linen(Linear(), features=2)
    >>> params, state = network.init(jax.random.key(0), jnp.ones((4, 3)))
    >>> params["Dense_0"]["kernel"].shape, state
    ((3, 2), {})
    >>> network.apply(params, state, jnp.ones((4, 3)), train=True)[0].shape
    (4, 2)
    """

    def init(key: Key, inputs: Array, **options: Any) -> tuple[Params, State]:
        shape = jax.ShapeDtypeStruct(inputs.shape, jnp.float32)
        # lazy_init computes the variables without running the network.
        variables = dict(module.lazy_init({"params": key}, shape, train=False, **options))
        return variables.pop("params", {}), variables

    def apply(
        params: Params,
        state: State,
        inputs: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        **options: Any,
    ) -> tuple[Any, State]:
        variables = {"params": params, **state}
        if not train:
            return module.apply(variables, inputs, train=False, **options), state
        if isinstance(inputs, tuple) and key is not None:
            rngs = {f"train_{i}": jax.random.fold_in(key, i) for i in range(len(inputs))}
        else:
            rngs = {} if key is None else {"train": key}
        outputs, updated = module.apply(
            variables, inputs, train=True, rngs=rngs, mutable=["batch_stats"], **options
        )
        return outputs, {**state, **updated}

    return Network(init, apply, features, {} if config is None else config)


def grouped_apply(
    network: Network,
    params: Params,
    state: State,
    inputs: Array,
    *,
    groups: int,
    train: bool = False,
    key: Key | None = None,
    **options: Any,
) -> tuple[Any, State]:
    """Apply a network to ``groups`` contiguous parts of the batch, each with batch statistics of its own.

    With as many groups as devices this is per-device BatchNorm (MoCo's key encoder, "ghost" BatchNorm),
    defined by the batch and not by the hardware. The running statistics become the mean of the groups' new
    ones (MoCo's code keeps those of device 0). With ``train=False`` groups make no difference, and the
    network is applied to the whole batch.

    Args:
      network: the network; its outputs carry the batch on their first axis.
      params: its params.
      state: its state.
      inputs: ``[batch, ...]``; the batch is divisible by ``groups``.
      groups: number of parts, 1 or more.
      train: as in ``network.apply``.
      key: as in ``network.apply``; split over the groups.
      **options: passed on, the same for every group.

    Returns:
      ``(outputs, state)`` as from ``network.apply``, outputs in the order of the batch.

    Raises:
      ValueError: the batch is not divisible by ``groups``.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models import heads
    >>> head = heads.mlp((4,), last_norm="batch")
    >>> x = jax.random.normal(jax.random.key(1), (8, 3))
    >>> outputs, _ = grouped_apply(head, *head.init(jax.random.key(0), x), x, groups=2, train=True)
    >>> bool(jnp.abs(outputs[:4].mean(0)).max() < 1e-6)
    True
    """
    batch = inputs.shape[0]
    check.require(groups >= 1 and batch % groups == 0, "groups", groups, f"a divisor of the batch, {batch}")
    if not train:
        return network.apply(params, state, inputs, train=False, **options)
    keys = None if key is None else jax.random.split(key, groups)

    def one(part: Array, part_key: Key | None) -> tuple[Any, State]:
        return network.apply(params, state, part, train=True, key=part_key, **options)

    def merge(path: str, new: Array, old: Array) -> Array:
        return new.mean(axis=0) if "batch_stats" in path.split("/") else old

    outputs, new_state = jax.vmap(one)(inputs.reshape(groups, batch // groups, *inputs.shape[1:]), keys)
    outputs = jax.tree.map(lambda y: y.reshape(batch, *y.shape[2:]), outputs)
    return outputs, trees.map_with_path(merge, new_state, state)


def chain(**networks: Network) -> Network:
    """Apply networks one after the other, each to the output of the one before.

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


FRESH = ("mask_token",)
"""Parameters that no file needs to have: they are drawn where it lacks them, and trained where the others are not."""


def with_variables(network: Network, params: Params, state: State) -> Network:
    """Let a network start from given arrays: its ``init`` returns them, whatever the key.

    Args:
      network: any network.
      params: its params; of :data:`FRESH` those that lack are drawn.
      state: its state.

    Returns:
      The same network with another ``init``, which raises a ValueError where the arrays are not those of the network: it names
      the first ones that lack, that are too many, or whose shapes differ.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models import heads
    >>> head, x = heads.mlp((2,)), jnp.ones((1, 3))
    >>> params, state = head.init(jax.random.key(0), x)
    >>> again, _ = with_variables(head, params, state).init(jax.random.key(1), x)
    >>> bool((trees.flatten(again)["dense_0/kernel"] == trees.flatten(params)["dense_0/kernel"]).all())
    True
    """
    given = trees.flatten({"params": params, "state": state})

    def init(key: Key, inputs: Array, **options: Any) -> tuple[Params, State]:
        drawn_params, drawn_state = network.init(key, inputs, **options)
        drawn = {"params": drawn_params, "state": drawn_state}
        expected = {path: leaf.shape for path, leaf in trees.flatten(drawn).items()}
        require_same_arrays({path: np.shape(leaf) for path, leaf in given.items()}, expected)

        def take(path: str, leaf: Array) -> Array:
            return jnp.asarray(given[path], leaf.dtype) if path in given else leaf

        started = trees.map_with_path(take, drawn)
        return started["params"], started["state"]

    return network._replace(init=init)


def require_same_arrays(
    given: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise a ValueError unless arrays have the names and shapes that a network needs; names the first three that do not.

    Args:
      given: shapes by path; those of :data:`FRESH` may lack.
      expected: shapes by path.
    """
    missing = [path for path in expected if path not in given and path.split("/")[-1] not in FRESH]
    extra = [path for path in given if path not in expected]
    other = [
        f"{path} {given[path]} instead of {shape}"
        for path, shape in expected.items()
        if path in given and given[path] != shape
    ]
    said = [
        f"{what} {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}"
        for what, paths in (("lack", missing), ("have besides", extra), ("have another shape:", other))
        if paths
    ]
    if said:
        raise ValueError(f"the weights are not those of the encoder: they {'; they '.join(said)}")


def frozen(network: Network) -> Network:
    """Hold an encoder still: no gradient reaches its params, and it is applied as in evaluation.

    So the statistics of BatchNorm, of which it takes the running ones, stay too, and stochastic depth is off. Of the params
    only :data:`FRESH` get a gradient.

    Args:
      network: an encoder from ``models.build``; ``config`` gets ``all_frozen``.
    """

    def apply(
        params: Params,
        state: State,
        inputs: Array,
        *,
        train: bool = False,
        key: Key | None = None,
        **options: Any,
    ) -> tuple[Any, State]:
        del train, key
        held = {name: part if name in FRESH else jax.lax.stop_gradient(part) for name, part in params.items()}
        return network.apply(held, state, inputs, train=False, **options)

    return network._replace(apply=apply, config={**network.config, "all_frozen": True})


def identity(features: int) -> Network:
    """Build the network that returns its input: a projector or predictor that is switched off.

    >>> identity(8).apply({}, {}, 3.0)
    (3.0, {})
    """
    return Network(lambda key, inputs: ({}, {}), lambda params, state, x, **_: (x, state), features, {})


def compute_dtype(encoder: Network) -> str:
    """Return the compute dtype of an encoder, which its heads follow."""
    return str(encoder.config.get("dtype", "float32"))


def grid_of(encoder: Network, images: Array | np.ndarray) -> tuple[int, int]:
    """Return the rows and columns of patches."""
    patch = int(encoder.config["patch"])
    return images.shape[1] // patch, images.shape[2] // patch


def prefix_of(encoder: Network) -> int:
    """Count the tokens in front of the patches."""
    return int(encoder.config["class_token"]) + int(encoder.config["registers"])
