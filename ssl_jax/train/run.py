"""What a run is: what decides its bits, where it happens, and what only watches it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jax.sharding import Mesh

from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.sources import Source
from ssl_jax.methods.method import Method
from ssl_jax.optim.optimizer import Optimizer
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.program import Program
from ssl_jax.train.sharding import Rule
from ssl_jax.train.state import TrainState
from ssl_jax.train.writers import Writer


class Hook(Protocol):
    """Something that looks at the run now and then, and never changes it; its ``name``, if it has one, is used in messages."""

    every: int

    def __call__(self, step: int, state: TrainState) -> Mapping[str, Any]:
        """Return scalars to log at ``step``, the number of updates made."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What decides the bits: two runs that are alike here end in the same state.

    Attributes:
      method: from a ``build`` of :mod:`ssl_jax.methods`.
      optimizer: from :mod:`ssl_jax.optim`, whose horizon should be ``steps``.
      source: from :func:`ssl_jax.data.open.open_source`, or ``ArraySource(images)``.
      steps: updates in all.
      batch_size: images a step, over all devices and processes; a multiple of the number of devices.
      seed: of the weights, the data order and everything random.
      accumulate: see :func:`ssl_jax.train.step.make_train_step`.
      cached_gradients: see there too.
      crop_on: where crops are taken: ``"host"``, ``"host_reduced"``, ``"device"`` or ``"auto"``, see
        :func:`ssl_jax.data.loader.stream`.
      max_corrupt_fraction: share of unreadable images above which the run ends with an error.
      labeled_fraction: share of labelled images in every batch, see :func:`ssl_jax.data.loader.stream`; ``None``: as they come.
      refresh_every: steps between calls of ``method.refresh``, the first of which comes before step 0; needed by methods
        that have one, but for those that look at the images once.
      init_state: makes the state to begin with from the initialised one, such as by putting pretrained weights into it; not
        called when a checkpoint is restored.
    """

    method: Method
    optimizer: Optimizer
    source: Source
    steps: int
    batch_size: int
    seed: int = 0
    accumulate: int = 1
    cached_gradients: bool = False
    crop_on: str = "auto"
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION
    labeled_fraction: float | None = None
    refresh_every: int = 0
    init_state: Callable[[TrainState], TrainState] | None = None


@dataclasses.dataclass(frozen=True)
class Host:
    """Where a run happens. It may go on elsewhere: up to rounding, the result is the same.

    Attributes:
      mesh: devices; ``None``: all of them along ``data``.
      rules: sharding rules for the state, see :func:`ssl_jax.train.sharding.state_shardings`.
      workers: data loading processes; 0: threads of this one.
      program: of :func:`ssl_jax.train.program.make_program` for the same method, optimizer, mesh, rules and batches, so that
        several runs compile once; ``None``: it is made.
    """

    mesh: Mesh | None = None
    rules: Sequence[Rule] = ()
    workers: int = 0
    program: Program | None = None


@dataclasses.dataclass(frozen=True)
class Watch:
    """What only watches a run and saves it: nothing here changes a bit of the result.

    Attributes:
      writer: given the step after which the run goes on, returns where its scalars go.
      hooks: called every ``hook.every`` steps and at the end, in order, after the save of that step; their scalars are logged.
        One that raises an ``Exception`` is named, and the run goes on without its scalars of that step.
      checkpoints: saves and restores; ``None``: nothing is kept.
      dumps: folder for the dump of a step that is not finite; ``None``: no dump.
      log_every: steps between records.
      stall_seconds: seconds without a finished step after which the run says what it waits for; 0: never.
    """

    writer: Callable[[int], Writer] | None = None
    hooks: Sequence[Hook] = ()
    checkpoints: Checkpoints | None = None
    dumps: Path | None = None
    log_every: int = 50
    stall_seconds: float = 300.0


class Fitted(NamedTuple):
    """How a run ended.

    Attributes:
      state: after the last step made.
      stopped_by: name of the signal that ended the run early; ``""`` if it is complete.
      failures: a line for each hook and for the writer, if it failed: how often, and why at first.
    """

    state: TrainState
    stopped_by: str
    failures: tuple[str, ...] = ()
