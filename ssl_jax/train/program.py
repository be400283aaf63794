"""The compiled pieces of a run."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ssl_jax.core.types import Batch
from ssl_jax.data.loader import stream
from ssl_jax.data.sources import Source
from ssl_jax.methods.method import Method
from ssl_jax.optim.optimizer import Optimizer
from ssl_jax.train.fsdp import sharded_method
from ssl_jax.train.sharding import FSDP_MIN_SIZE, Rule, state_shardings
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import StepFn, make_init, make_train_step


class Program(NamedTuple):
    """A run's compiled pieces: what training and a replay of one of its steps share.

    Attributes:
      init: ``seed -> TrainState``, sharded over the mesh.
      step: ``(state, batch) -> (state, metrics)``, the state donated.
      abstract: shapes, dtypes and shardings of the state.
    """

    init: Callable[[Any], TrainState]
    step: StepFn
    abstract: TrainState

    @property
    def shardings(self) -> TrainState:
        """How the state lies on the devices."""
        return jax.tree.map(lambda x: x.sharding, self.abstract)


def sample_batch(source: Source, method: Method, *, crop_on: str = "auto") -> Batch:
    """Read a raw batch of one example, for its shapes."""
    batches = stream(source, views=method.views, crop_on=crop_on, seed=0, batch_size=1, share=(0, 1))
    try:
        return next(batches)
    finally:
        batches.close()


def make_program(
    method: Method,
    optimizer: Optimizer,
    sample: Batch,
    mesh: Mesh,
    *,
    rules: Sequence[Rule] = (),
    fsdp_min_size: int = FSDP_MIN_SIZE,
    accumulate: int = 1,
    cached_gradients: bool = False,
) -> Program:
    """Jit the initialisation and the step over a mesh.

    Args:
      method: what to train.
      optimizer: its optimizer.
      sample: a raw batch; only shapes are read.
      mesh: from :func:`ssl_jax.train.sharding.make_mesh`.
      rules: sharding rules for the state, see :func:`ssl_jax.train.sharding.state_shardings`.
      fsdp_min_size: elements from which on arrays without a rule are split over ``fsdp``.
      accumulate: see :func:`ssl_jax.train.step.make_train_step`.
      cached_gradients: see there too.

    Returns:
      The program.
    """
    init = make_init(method, optimizer, sample)
    abstract = jax.eval_shape(init, 0)
    shardings = state_shardings(abstract, mesh, rules=rules, fsdp_min_size=fsdp_min_size)
    if not all(sharding.is_fully_replicated for sharding in jax.tree.leaves(shardings)):
        method = sharded_method(method, shardings, mesh)
    loop_views = None if mesh.size == 1 else False
    step = make_train_step(
        method, optimizer, accumulate=accumulate, cached_gradients=cached_gradients, loop_views=loop_views
    )
    # Run once, so compiling it well takes longer than it saves.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    quickly = {"xla_backend_optimization_level": 0} if on_cpu else None
    return Program(
        jax.jit(init, out_shardings=shardings, compiler_options=quickly),
        jax.jit(step, donate_argnums=0, out_shardings=(shardings, None)),
        jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings),
    )
