"""What the tests of methods start from: the smoke config of a method, built, and a small real batch."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.augment.views import make_views
from ssl_jax.config import build
from ssl_jax.core import trees
from ssl_jax.data.frames import Clips
from ssl_jax.data.loader import stream
from ssl_jax.data.open import open_source
from ssl_jax.methods.method import Method
from ssl_jax.optim.optimizer import Optimizer
from ssl_jax.train.program import Program

BATCH = 16
QUICK = ("simclr", "byol", "mae", "swav")
"""Methods of four kinds: pairs, a teacher, masked patches, crops with prototypes. The tests of the others are long ones, which
.ci/run adds to the README's command."""


class Case(NamedTuple):
    """A method of the conformance table; ``one`` and ``eight`` are its programs with ``sgd`` on so many devices.

    ``gradient``: ``(params, state, batch) -> ((loss, (state, metrics)), (to params, to the floats of state))``,
    compiled once for all tests that need a loss. ``inputs``: params and state at the start, the batch with views.
    """

    config: build.Config
    method: Method
    optimizer: Optimizer
    sgd: Optimizer
    batch: dict
    one: Program
    eight: Program
    gradient: Callable
    inputs: tuple


def config_of(name, *, batch_size=BATCH, steps=4):
    """The smoke config as plain dicts."""
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.batch_size, config.steps = batch_size, steps
    return build.to_dict(config)


def method_of(name, *, encoder=None, **options):
    """The method of a smoke config, with some of its options, or of the encoder's, replaced; of groups those that are named."""
    config = config_of(name)
    for option, value in options.items():
        group = config["method"].get(option)
        both = isinstance(group, dict) and isinstance(value, dict)
        config["method"][option] = {**group, **value} if both else value
    config["encoder"] |= encoder or {}
    return build.method(config)


def source_of(config, split="train"):
    """The images that a config names: gray ones for all methods but those that need colours or clips."""
    return build.open_images(config, config["data"]["source"], split)


def real_batch(count=BATCH, config=None):
    """Raw images, as the loader gives them; of the source of a config, ``embedded`` if there is none."""
    source = open_source("embedded", "train") if config is None else source_of(config)
    if isinstance(source, Clips):
        with stream(source, seed=0, batch_size=count, threads=0) as batches:
            return next(batches)
    images = np.stack([source[i * 7]["image"] for i in range(count)])
    return {"image": images, "label": np.zeros(count, np.int32), "index": np.arange(count, dtype=np.int32)}


def with_views(method, batch=None, seed=1):
    """A batch (``real_batch()``) with the method's views."""
    batch = real_batch() if batch is None else batch
    return {**batch, "views": make_views(jax.random.key(seed), batch, method.views)}


def begun(method, state):
    """The state of a run at its first step: after the refresh before it, here of random features of 100 images."""
    if method.refresh is None:
        return state
    images = jnp.zeros((1, method.views[0].size, method.views[0].size, 1))
    shape = jax.eval_shape(method.refresh.features, state.params, state.state, images).shape
    features = jax.random.normal(jax.random.key(5), (100, *shape[1:]))
    refreshed = jax.jit(method.refresh.update)(state.state, features, jax.random.key(6))
    return state._replace(state=jax.device_put(refreshed, jax.tree.map(lambda x: x.sharding, state.state)))


def start(method, seed=0, batch=None):
    """Params, state and batch with views of a method at its start."""
    batch = with_views(method, batch)
    return *method.init(jax.random.key(seed), batch), batch


def loss_inputs(case):
    """Params, state and batch with views of a case, for one test to change as it likes."""
    params, state, batch = case.inputs
    return (*jax.tree.map(lambda x: x, (params, state)), dict(batch))


def floats(tree):
    """The floating leaves of a tree, by path."""
    return {p: x for p, x in trees.flatten(tree).items() if jnp.issubdtype(x.dtype, jnp.floating)}


def make_gradient(method):
    """``Case.gradient`` of a method."""

    def loss(params, float_leaves, state, batch):
        flat = trees.flatten(state)
        merged = jax.tree.unflatten(
            jax.tree.structure(state), [float_leaves.get(p, x) for p, x in flat.items()]
        )
        return method.loss(params, merged, batch, jax.random.key(2), jnp.int32(0))

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    return lambda params, state, batch: compiled(params, floats(state), state, batch)


def with_average(teacher, params):
    """An :class:`ssl_jax.methods.parts.ema_teacher.EmaTeacher` whose averaged parameters are replaced."""
    return teacher._replace(average=teacher.average._replace(average=params))


def loss_of(method, params, state, batch, step=0):
    """Loss, state and metrics of one compiled call."""
    loss, (state, metrics) = jax.jit(method.loss)(params, state, batch, jax.random.key(2), jnp.int32(step))
    return float(loss), state, metrics


def zero_params_loss(case):
    """The loss with all params 0, where every image has the same projection."""
    params, state, batch = loss_inputs(case)
    (loss, _), _ = case.gradient(jax.tree.map(jnp.zeros_like, params), state, batch)
    return float(loss)
