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
from jax.tree_util import Partial

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
    everywhere = replicated(mesh)

    def is_used(path: str, sharding: NamedSharding) -> bool:
        return not sharding.is_fully_replicated and _end(path) in ends

    def whole(path: str, x: Array, sharding: NamedSharding) -> Array:
        return with_sharding_constraint(x, everywhere) if is_used(path, sharding) else x

    def split_gradient(path: str, x: Array, sharding: NamedSharding) -> Array:
        # Split only once it is summed: asked for in one go, the compiler would split the activations of its layer instead.
        return with_sharding_constraint(whole(path, x, sharding), sharding) if is_used(path, sharding) else x

    def reading_whole(function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of ``(params, state, features, inputs)``, which keeps nothing that was put together.

        A vjp of its own rather than ``jax.checkpoint``, whose policy would also say what the encoder's own ``remat`` keeps.
        """

        def put_together(params: Params, state: State) -> tuple[Params, State]:
            parts = trees.map_with_path(whole, params, shardings.params)
            return parts, trees.map_with_path(whole, state, shardings.state)

        @jax.custom_vjp
        def of_split(params: Params, state: State, features: PyTree, inputs: PyTree) -> Any:
            return function(*put_together(params, state), features, inputs)

        def forward(params: Params, state: State, features: PyTree, inputs: PyTree) -> Any:
            parts, parts_of_state = put_together(params, state)
            value, pull, aux = jax.vjp(
                lambda p, x: function(p, parts_of_state, x, inputs), parts, features, has_aux=True
            )
            return (value, aux), (params, state, _without(pull, (parts, parts_of_state)))

        def backward(kept: Any, cotangents: Any) -> Any:
            params, state, pull = kept
            # Put together again, not merged with the first time: that would keep it in between.
            split = jax.lax.optimization_barrier((params, state))
            gradient, to_features = pull(put_together(*split))(cotangents[0])
            return trees.map_with_path(split_gradient, gradient, shardings.params), None, to_features, None

        of_split.defvjp(forward, backward)
        return of_split

    def placed(batch: Batch) -> Batch:
        return with_sharding_constraint(batch, batch_sharding(mesh))

    def split(state: State) -> State:
        return with_sharding_constraint(state, shardings.state)

    def loss(params: Params, state: State, batch: Batch, *inputs: Any) -> Any:
        function = reading_whole(lambda p, s, _, rest: method.loss(p, s, *rest))
        value, (state, metrics) = function(params, state, (), (placed(batch), *inputs))
        return value, (split(state), metrics)

    def embed(params: Params, state: State, batch: Batch, *inputs: Any) -> Any:
        assert method.halves is not None
        half = method.halves.embed
        function = reading_whole(lambda p, s, _, rest: half(p, s, *rest))
        features, state = function(params, state, (), (placed(batch), *inputs))
        return features, split(state)

    def compare(params: Params, state: State, features: PyTree, *inputs: Any) -> Any:
        assert method.halves is not None
        half = method.halves.compare
        function = reading_whole(lambda p, s, x, rest: half(p, s, x, *rest))
        value, (state, metrics) = function(params, state, features, inputs)
        return value, (split(state), metrics)

    return method._replace(loss=loss, halves=method.halves and Halves(embed, compare))


def _end(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _without(pull: PyTree, given: PyTree) -> Partial:
    """A pullback without those of its arrays that are among the given ones; it takes them again before it is called."""
    places = {id(x): place for place, x in enumerate(jax.tree.leaves(given))}
    leaves, structure = jax.tree.flatten(pull)
    kept = [x for x in leaves if id(x) not in places and isinstance(x, Array)]
    # What is neither stands for an array that is not needed.
    plan = [places.get(id(x), None if isinstance(x, Array) else x) for x in leaves]

    def restored(kept: list[Array], given: PyTree) -> Callable[..., Any]:
        found, rest = jax.tree.leaves(given), iter(kept)
        leaves = [next(rest) if p is None else found[p] if isinstance(p, int) else p for p in plan]
        pull: Callable[..., Any] = jax.tree.unflatten(structure, leaves)
        return pull

    return Partial(restored, kept)
