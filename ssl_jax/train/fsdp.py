"""Parameters that lie split over devices and are whole only while they are used (FSDP, ZeRO stage 3).

Left to itself the compiler leaves split parameters where they are and moves activations: every device of the axis ``fsdp`` then
computes all of their images. Here each split array is put together where the loss reads it, again in the backward pass instead
of being kept for it, and its gradient is split as soon as it is summed.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.lax import with_sharding_constraint
from jax.sharding import Mesh, NamedSharding

from ssl_jax.core import trees
from ssl_jax.core.types import Array, Batch, Params, PyTree, State
from ssl_jax.methods.method import Halves, Method
from ssl_jax.train.sharding import batch_sharding, replicated
from ssl_jax.train.state import TrainState


def sharded_method(method: Method, shardings: TrainState, mesh: Mesh) -> Method:
    """The method, reading parameters and teachers that are split over devices.

    Of the state, arrays whose path ends as a parameter's does (its last two names) are put together like parameters: teachers.
    What else is split, queues and memories, is left to the compiler, which looks rows up where they lie.

    Args:
      method: any method.
      shardings: of the run's state, from :func:`ssl_jax.train.sharding.state_shardings`.
      mesh: of these shardings.

    Returns:
      The method with another ``loss`` and ``halves``, of the same values and gradients.
    """
    ends = {_end(path) for path in trees.flatten(shardings.params)}

    def whole(path: str, x: Array, sharding: NamedSharding) -> Array:
        used = not sharding.is_fully_replicated and _end(path) in ends
        return _gathered(x, sharding, replicated(mesh)) if used else x

    def reading_whole(function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of ``(params, state, *inputs)``, which keeps nothing that was put together."""

        def of_split(params: Params, state: State, *inputs: Any) -> Any:
            params = trees.map_with_path(whole, params, shardings.params)
            state = trees.map_with_path(whole, state, shardings.state)
            return function(params, state, *inputs)

        return jax.checkpoint(of_split, policy=_keep)

    def placed(batch: Batch) -> Batch:
        return with_sharding_constraint(batch, batch_sharding(mesh))

    def split(state: State) -> State:
        return with_sharding_constraint(state, shardings.state)

    def loss(params: Params, state: State, batch: Batch, *inputs: Any) -> Any:
        value, (state, metrics) = reading_whole(method.loss)(params, state, placed(batch), *inputs)
        return value, (split(state), metrics)

    def embed(params: Params, state: State, batch: Batch, *inputs: Any) -> Any:
        assert method.halves is not None
        features, state = reading_whole(method.halves.embed)(params, state, placed(batch), *inputs)
        return features, split(state)

    def compare(params: Params, state: State, features: PyTree, *inputs: Any) -> Any:
        assert method.halves is not None
        value, (state, metrics) = reading_whole(method.halves.compare)(params, state, features, *inputs)
        return value, (split(state), metrics)

    return method._replace(loss=loss, halves=method.halves and Halves(embed, compare))


def _end(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _gathered(x: Array, sharding: NamedSharding, everywhere: NamedSharding) -> Array:
    """The array on every device; its gradient split as it is."""

    @jax.custom_vjp
    def gather(x: Array) -> Array:
        return with_sharding_constraint(x, everywhere)

    def back(_: None, gradient: Array) -> tuple[Array]:
        # Split only once it is summed: asked for in one go, the compiler would split the activations of its layer instead.
        return (with_sharding_constraint(with_sharding_constraint(gradient, everywhere), sharding),)

    gather.defvjp(lambda x: (with_sharding_constraint(x, everywhere), None), back)
    return gather(x)


def _keep(primitive: Any, *_: Any, **__: Any) -> bool:
    """What the forward pass keeps for the backward pass: everything but arrays that were put together."""
    return primitive.name != "sharding_constraint"
