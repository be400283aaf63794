"""Parameters that lie split over devices and are whole only while they are used (FSDP, ZeRO stage 3).

Left to itself the compiler leaves split parameters where they are and moves activations: every device of the axis ``fsdp`` then
computes all of their images. Here each split array is put together where the loss reads it, again in the backward pass instead
of being kept for it, and its gradient is split as soon as it is summed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.lax import with_sharding_constraint
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import Partial

from ssl_jax.core.types import Array, Batch, Params, PyTree, State
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.ema_teacher import EmaTeacher
from ssl_jax.methods.parts.frozen_teacher import FrozenTeacher
from ssl_jax.train.sharding import batch_sharding, replicated
from ssl_jax.train.state import TrainState


def sharded_method(method: Method, shardings: TrainState, mesh: Mesh) -> Method:
    """Return the method, reading parameters and teachers that are split over devices.

    Of the state, :class:`ssl_jax.methods.parts.ema_teacher.EmaTeacher` and
    :class:`ssl_jax.methods.parts.frozen_teacher.FrozenTeacher` are gathered like parameters. What else is split, queues and
    memories, is left to the compiler, which looks rows up where they lie.

    Args:
      method: any method.
      shardings: of the run's state, from :func:`ssl_jax.train.sharding.state_shardings`.
      mesh: of these shardings.

    Returns:
      The method with another ``loss`` and ``encoder``, of the same values and gradients.
    """

    def loss(params: Params, state: State, batch: Batch, *inputs: Any) -> Any:
        # Cached gradients ask for the gradient of features; where there are none this is empty.
        features = {name: x for name, x in batch.items() if name == "features"}
        rest = {name: x for name, x in batch.items() if name not in features}

        def whole_loss(params: Params, state: State, features: PyTree, inputs: PyTree) -> Any:
            batch, *others = inputs
            return method.loss(params, state, {**batch, **features}, *others)

        run = _gathering(whole_loss, shardings.params, shardings.state, mesh)
        placed = with_sharding_constraint(rest, batch_sharding(mesh))
        value, (state, metrics) = run(params, state, features, (placed, *inputs))
        return value, (with_sharding_constraint(state, shardings.state), metrics)

    def apply(params: Params, state: State, images: Array, **options: Any) -> Any:
        key = options.pop("key", None)

        def whole_apply(params: Params, state: State, features: PyTree, inputs: PyTree) -> Any:
            images, key = inputs
            return method.encoder.apply(params, state, images, key=key, **options)

        of_params, of_state = encoder_shardings
        run = _gathering(whole_apply, of_params, of_state, mesh)
        return run(params, state, (), (with_sharding_constraint(images, batch_sharding(mesh)), key))

    encoder_shardings = method.encoder_variables(shardings.params, shardings.state)
    return dataclasses.replace(method, loss=loss, encoder=method.encoder._replace(apply=apply))


def _gathering(
    function: Callable[..., Any], of_params: PyTree, of_state: PyTree, mesh: Mesh
) -> Callable[..., Any]:
    """Return the same function of ``(params, state, features, inputs)`` that keeps nothing of what it gathered.

    A vjp of its own rather than ``jax.checkpoint``, whose policy would also say what the encoder's own ``remat`` keeps.
    """
    used_of_params = jax.tree.map(lambda sharding: not sharding.is_fully_replicated, of_params)
    used_of_state = _used_whole(of_state)
    everywhere = replicated(mesh)

    def gather(used: bool, x: Array) -> Array:
        return with_sharding_constraint(x, everywhere) if used else x

    def split_gradient(used: bool, x: Array, sharding: NamedSharding) -> Array:
        # Split only once it is summed: asked for in one go, the compiler would split the activations of its layer instead.
        return with_sharding_constraint(gather(used, x), sharding) if used else x

    def gather_all(params: Params, state: State) -> tuple[Params, State]:
        return jax.tree.map(gather, used_of_params, params), jax.tree.map(gather, used_of_state, state)

    @jax.custom_vjp
    def of_split(params: Params, state: State, features: PyTree, inputs: PyTree) -> Any:
        return function(*gather_all(params, state), features, inputs)

    def forward(params: Params, state: State, features: PyTree, inputs: PyTree) -> Any:
        parts, parts_of_state = gather_all(params, state)
        value, pull, aux = jax.vjp(
            lambda p, x: function(p, parts_of_state, x, inputs), parts, features, has_aux=True
        )
        return (value, aux), (params, state, _without(pull, (parts, parts_of_state)))

    def backward(kept: Any, cotangents: Any) -> Any:
        params, state, pull = kept
        # Gathered again, not merged with the first time: that would keep it in between.
        split = jax.lax.optimization_barrier((params, state))
        gradient, to_features = pull(gather_all(*split))(cotangents[0])
        return jax.tree.map(split_gradient, used_of_params, gradient, of_params), None, to_features, None

    of_split.defvjp(forward, backward)
    return of_split


def _used_whole(shardings: PyTree) -> PyTree:
    """Return for each array of a method's state whether a network reads it whole: split arrays of teachers."""
    teachers = (EmaTeacher, FrozenTeacher)

    def mark(node: Any) -> Any:
        is_teacher = isinstance(node, teachers)
        return jax.tree.map(lambda sharding: is_teacher and not sharding.is_fully_replicated, node)

    return jax.tree.map(mark, shardings, is_leaf=lambda node: isinstance(node, teachers))


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
