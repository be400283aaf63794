"""The one train step, for every method and every mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment.views import make_views
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, PyTree, State
from ssl_jax.methods.method import Method
from ssl_jax.optim.build import Optimizer
from ssl_jax.train.state import TrainState

StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_init(method: Method, optimizer: Optimizer, sample: Batch) -> Callable[[Array], TrainState]:
    """The function from a seed to the state before the first step.

    Args:
      method: what to train.
      optimizer: its optimizer.
      sample: a raw batch (``image`` or ``crops``) or its ``jax.ShapeDtypeStruct``s; only shapes are read.

    Returns:
      ``init(seed) -> TrainState``, pure, to be jitted with the state's shardings as ``out_shardings``.
    """
    shapes = jax.eval_shape(
        lambda key, batch: make_views(key, batch, method.views), jax.random.key(0), sample
    )

    def init(seed: Array) -> TrainState:
        init_key, run_key = jax.random.split(jax.random.key(seed))
        views = tuple(jnp.zeros(view.shape, view.dtype) for view in shapes)
        params, state = method.init(init_key, {"views": views})
        return TrainState(jnp.int32(0), params, state, optimizer.init(params), run_key, jnp.bool_(True))

    return init


def make_train_step(
    method: Method, optimizer: Optimizer, *, accumulate: int = 1, loop_views: bool | None = None
) -> StepFn:
    """One update: views, loss, gradient, optimizer, what the method keeps.

    Everything random follows from ``(state.key, state.step)`` and the position of an example in the global batch. A
    non-finite loss or gradient sets ``finite`` to False, and from then on the step returns the state untouched: it is the
    state before the bad step.

    Args:
      method: what to train.
      optimizer: from :func:`ssl_jax.optim.build.build`.
      accumulate: micro-batches a step, which must divide the batch: activations of one at a time are held and gradients
        averaged. Equals the whole batch for losses that are means over examples; negatives, BatchNorm and the
        like see one micro-batch only, and queues move once for each.
      loop_views: how views are computed, see :func:`ssl_jax.augment.views.make_views`; ``False`` where several CPU devices
        share the batch.

    Returns:
      ``train_step(state, batch) -> (state, metrics)``, pure, to be jitted with the state donated. ``batch`` holds the raw
      images (``image`` ``[batch, h, w, c]``, or ``crops``), ``label`` and ``index``. ``metrics`` are the method's, and
      ``loss``, ``grad_norm``, ``update_norm``, ``learning_rate`` and ``finite``.

    Raises:
      ValueError: ``accumulate`` below 1, or a batch that it does not divide.
    """
    require(accumulate >= 1, "accumulate", accumulate, "an integer of 1 or more")
    gradient = jax.value_and_grad(_loss_of_images(method, loop_views), has_aux=True)
    if accumulate > 1:
        gradient = _accumulated(gradient, accumulate)

    def train_step(old: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(old.key, old.step)
        (loss, (state, metrics)), gradients = gradient(old.params, old.state, batch, key, old.step)
        updates, opt_state = optimizer.update(gradients, old.opt_state, old.params)
        params = optax.apply_updates(old.params, updates)
        state = method.after_update(params, state, old.step)
        norm = optax.tree.norm(gradients)
        finite = old.finite & jnp.isfinite(loss) & jnp.isfinite(norm)
        changed = (old.step + 1, params, state, opt_state)
        kept = jax.tree.map(lambda new, before: jnp.where(finite, new, before), changed, tuple(old[:4]))
        metrics |= {
            "loss": loss,
            "grad_norm": norm,
            "update_norm": optax.tree.norm(updates),
            "finite": finite,
        }
        metrics["learning_rate"] = jnp.float32(optimizer.learning_rate(old.step))
        step, params, state, opt_state = kept
        return TrainState(step, params, state, opt_state, old.key, finite), metrics

    return train_step


LossOfImages = Callable[[Params, State, Batch, Key, Array], tuple[Array, tuple[State, Metrics]]]


def _loss_of_images(method: Method, loop_views: bool | None) -> LossOfImages:
    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        view_key, loss_key = jax.random.split(key)
        views = jax.lax.stop_gradient(make_views(view_key, batch, method.views, loop=loop_views))
        return method.loss(params, state, {**batch, "views": views}, loss_key, step)

    return loss


def _accumulated(gradient: Callable, parts: int) -> Callable:
    """Average gradients over micro-batches; the method's state passes through them in turn."""

    def split(x: Array) -> Array:
        require(x.shape[0] % parts == 0, "accumulate", parts, f"a divisor of the batch size {x.shape[0]}")
        # The batch axis stays in front of the part axis, so a sharded batch is split without moving between devices.
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def whole(params: Params, state: State, batch: Batch, key: Key, step: Array) -> PyTree:
        def body(carry: PyTree, part: tuple[Batch, Key]) -> PyTree:
            state, total = carry
            (loss, (state, metrics)), gradients = gradient(params, state, part[0], part[1], step)
            return (state, jax.tree.map(jnp.add, total, gradients)), (loss, metrics)

        start = (state, jax.tree.map(jnp.zeros_like, params))
        inputs = (jax.tree.map(split, batch), jax.random.split(key, parts))
        (state, total), (losses, metrics) = jax.lax.scan(body, start, inputs)
        mean_metrics = jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)
        return (jnp.mean(losses), (state, mean_metrics)), jax.tree.map(lambda g: g / parts, total)

    return whole
