"""The one train step, for every method and every mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment.views import add_boxes, add_views, make_views
from ssl_jax.core import trees
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, PyTree, State
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.siamese import embed_views
from ssl_jax.optim.optimizer import Optimizer
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
    method: Method,
    optimizer: Optimizer,
    *,
    accumulate: int = 1,
    cached_gradients: bool = False,
    loop_views: bool | None = None,
) -> StepFn:
    """One update: views, loss, gradient, optimizer, what the method keeps.

    Everything random follows from ``(state.key, state.step)`` and the position of an example in the global batch. A
    non-finite loss or gradient sets ``finite`` to False, and from then on the step returns the state untouched: it is the
    state before the bad step.

    Args:
      method: what to train.
      optimizer: from :func:`ssl_jax.optim.optimizer.build`.
      accumulate: parts of the batch, a divisor of it: activations of one at a time are held. Each sees the views that the
        whole batch would. Gradients are averaged: that of the whole batch for losses that are means over examples, while
        negatives, BatchNorm and the like see one part only, and queues move once for each.
      cached_gradients: let the loss see the whole batch all the same, for losses that take features: the encoder runs on a part
        at a time without keeping anything, the loss and its gradient are taken on all features, and the encoder runs again,
        each part with its share of that gradient. The gradient is that of the whole batch, for a third more computation.
        Heads see all features, so BatchNorm in them is that of the whole batch; the encoder must be without. Stochastic
        depth draws for each part.
      loop_views: how views are computed, see :func:`ssl_jax.augment.views.make_views`; ``False`` where several CPU devices
        share the batch.

    Returns:
      ``train_step(state, batch) -> (state, metrics)``, pure, to be jitted with the state donated. ``batch`` holds the raw
      images (``image`` ``[batch, h, w, c]``, or ``crops``), ``label`` and ``index``. ``metrics`` are the method's, and
      ``loss``, ``grad_norm``, ``update_norm``, ``learning_rate`` and ``finite``.

    Raises:
      ValueError: ``accumulate`` below 1, or a batch that it does not divide; cached gradients of a loss that reads the images,
        or of an encoder with BatchNorm.

    Reference of the cached gradients: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
    2021, section 3.
    """
    require(accumulate >= 1, "accumulate", accumulate, "an integer of 1 or more")
    if cached_gradients:
        gradient = _cached(method, accumulate, loop_views)
    elif accumulate > 1:
        gradient = _accumulated(method, accumulate, loop_views)
    else:
        gradient = _gradient(method, loop_views)

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


Gradient = Callable[[Params, State, Batch, Key, Array], tuple[tuple[Array, tuple[State, Metrics]], Params]]
"""Value and gradient of a loss of raw images."""


def _gradient(method: Method, loop_views: bool | None) -> Gradient:
    """Of the whole batch at once."""

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        view_key, loss_key = jax.random.split(key)
        viewed = jax.lax.stop_gradient(add_views(view_key, batch, method.views, loop=loop_views))
        return method.loss(params, state, viewed, loss_key, step)

    return jax.value_and_grad(loss, has_aux=True)


def _accumulated(method: Method, parts: int, loop_views: bool | None) -> Gradient:
    """Averaged over parts of the batch; the method's state passes through them in turn."""
    gradient = jax.value_and_grad(method.loss, has_aux=True)

    def whole(params: Params, state: State, batch: Batch, key: Key, step: Array) -> PyTree:
        view_key, loss_key = jax.random.split(key)

        def body(carry: PyTree, part: tuple[Batch, Array, Key]) -> PyTree:
            (state, total), (images, places, part_key) = carry, part
            viewed = add_views(view_key, images, method.views, positions=places, loop=loop_views)
            (loss, (state, metrics)), gradients = gradient(params, state, viewed, part_key, step)
            return (state, jax.tree.map(jnp.add, total, gradients)), (loss, metrics)

        start = (state, jax.tree.map(jnp.zeros_like, params))
        inputs = _split(batch, parts, loss_key)
        (state, total), (losses, metrics) = jax.lax.scan(body, start, inputs)
        mean_metrics = jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)
        return (jnp.mean(losses), (state, mean_metrics)), jax.tree.map(lambda g: g / parts, total)

    return whole


def _cached(method: Method, parts: int, loop_views: bool | None) -> Gradient:
    """Of the whole batch, with the encoder's activations of one part at a time."""

    def join(x: Array) -> Array:
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    def whole(params: Params, state: State, batch: Batch, key: Key, step: Array) -> PyTree:
        _refuse_batch_statistics(method, params, state)
        view_key, loss_key = jax.random.split(key)

        def embed(params: Params, part: tuple[Batch, Array, Key]) -> Array:
            images, positions, part_key = part
            views = make_views(view_key, images, method.views, positions=positions, loop=loop_views)
            own_params, own_state = ({"encoder": x} for x in method.encoder_variables(params, state))
            return embed_views(method.encoder, own_params, own_state, {"views": views}, part_key)[0]

        def loss(params: Params, features: Array) -> tuple[Array, tuple[State, Metrics]]:
            try:
                return method.loss(params, state, {**boxed, "features": join(features)}, loss_key, step)
            except KeyError as error:
                if error.args != ("views",):
                    raise
                raise ValueError(
                    "cached_gradients=True: this method's loss reads the images themselves; allowed is False, which is exact "
                    "too for losses that are means over examples"
                ) from None

        def body(total: Params, part: PyTree) -> tuple[Params, None]:
            inputs, cotangent = part
            _, pull = jax.vjp(lambda p: embed(p, inputs), params)
            return jax.tree.map(jnp.add, total, pull(cotangent)[0]), None

        inputs = _split(batch, parts, loss_key)
        boxed = add_boxes(view_key, batch, method.views)
        features = jax.lax.map(lambda part: embed(params, part), inputs)
        value, (to_heads, to_features) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            params, features
        )
        total, _ = jax.lax.scan(body, to_heads, (inputs, to_features))
        return value, total

    return whole


def _split(batch: Batch, parts: int, key: Key) -> tuple[Batch, Array, Key]:
    """Parts of a batch along a new first axis, the places of their examples in it, and a key each."""

    def split(x: Array) -> Array:
        require(x.shape[0] % parts == 0, "accumulate", parts, f"a divisor of the batch size {x.shape[0]}")
        # The batch axis stays in front of the part axis, so a sharded batch is split without moving between devices.
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    places = jnp.arange(jax.tree.leaves(batch)[0].shape[0])
    return jax.tree.map(split, batch), split(places), jax.random.split(key, parts)


def _refuse_batch_statistics(method: Method, params: Params, state: State) -> None:
    paths = trees.flatten(method.encoder_variables(params, state)[1])
    if any("batch_stats" in path.split("/") for path in paths):
        raise ValueError(
            "cached_gradients=True: the encoder has BatchNorm, whose statistics would be those of a part of the batch; allowed "
            "are encoders without, such as a ViT or norm='group'"
        )
