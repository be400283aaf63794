"""The loop: batches in, state out, and in between logging, hooks, checkpoints and a stop that loses nothing."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ssl_jax.core.check import require
from ssl_jax.core.types import Batch
from ssl_jax.data.loader import Stream, stream
from ssl_jax.data.place import Prefetch, local_share, prefetch
from ssl_jax.data.sources import Source
from ssl_jax.methods.method import Method
from ssl_jax.optim.build import Optimizer
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.dump import write_dump
from ssl_jax.train.fsdp import sharded_method
from ssl_jax.train.progress import Progress
from ssl_jax.train.refresh import Refresher
from ssl_jax.train.sharding import FSDP_MIN_SIZE, Rule, batch_sharding, make_mesh, state_shardings
from ssl_jax.train.signals import Stopped, StopRequest
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import StepFn, make_init, make_train_step
from ssl_jax.train.watchdog import Watchdog


class Hook(Protocol):
    """Something that looks at the run now and then, and never changes it."""

    every: int

    def __call__(self, step: int, state: TrainState) -> Mapping[str, float]:
        """Scalars to log at ``step``, the number of updates made."""


class Writer(Protocol):
    """Where scalars go."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record scalars at a step."""

    def close(self) -> None:
        """Finish what was recorded."""


class NonFiniteError(FloatingPointError):
    """The loss or a gradient stopped being finite."""


class Fitted(NamedTuple):
    """What :func:`fit` leaves.

    Attributes:
      state: after the last step made.
      stopped_by: name of the signal that ended the run early; ``""`` if it is complete.
    """

    state: TrainState
    stopped_by: str


class Program(NamedTuple):
    """A run's compiled pieces: what :func:`fit` and a replay of one of its steps share.

    Attributes:
      init: ``seed -> TrainState``, sharded over the mesh.
      step: ``(state, batch) -> (state, metrics)``, the state donated.
      abstract: shapes, dtypes and shardings of the state.
    """

    init: Callable[[int], TrainState]
    step: StepFn
    abstract: TrainState


def sample_batch(source: Source, method: Method, *, crop_on: str = "auto") -> Batch:
    """A raw batch of one example, for its shapes."""
    batches = stream(
        source, views=method.views, crop_on=crop_on, seed=0, batch_size=1, process_index=0, process_count=1
    )
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


def fit(
    method: Method,
    source: Source,
    *,
    optimizer: Optimizer,
    steps: int,
    batch_size: int,
    seed: int = 0,
    mesh: Mesh | None = None,
    rules: Sequence[Rule] = (),
    accumulate: int = 1,
    cached_gradients: bool = False,
    crop_on: str = "auto",
    workers: int = 0,
    max_corrupt_fraction: float = 0.01,
    hooks: Sequence[Hook] = (),
    writer: Callable[[int], Writer] | None = None,
    checkpoints: Checkpoints | None = None,
    dumps: Path | None = None,
    log_every: int = 50,
    stall_seconds: float = 300.0,
    refresh_every: int = 0,
    labeled_fraction: float | None = None,
    begin: Callable[[TrainState], TrainState] | None = None,
    program: Program | None = None,
) -> Fitted:
    """Train a method on the images of a source.

    The data stream and all randomness are functions of ``(seed, step)``: a run that was killed and goes on from its last
    checkpoint ends in the same bits as one that was not.

    Args:
      method: from a ``build`` of :mod:`ssl_jax.methods`.
      source: from :func:`ssl_jax.data.open.open_source`, or ``ArraySource(images)``.
      optimizer: from :func:`ssl_jax.optim.build.build`, whose horizon should be ``steps``.
      steps: updates in all.
      batch_size: images a step, over all devices and processes; a multiple of the number of devices.
      seed: of the weights, the data order and everything random.
      mesh: devices; ``None``: all of them along ``data``.
      rules: sharding rules for the state.
      accumulate: see :func:`ssl_jax.train.step.make_train_step`.
      cached_gradients: see there too.
      crop_on: where crops are taken: ``"host"``, ``"device"`` or ``"auto"``.
      workers: data loading processes; 0: threads of this one.
      max_corrupt_fraction: share of unreadable images above which the run ends with an error.
      hooks: called every ``hook.every`` steps and at the end, in order; their scalars are logged.
      writer: given the step after which the run goes on, returns where its scalars go.
      checkpoints: saves and restores; ``None``: nothing is kept.
      dumps: folder for the dump of a non-finite step; ``None``: no dump.
      log_every: steps between records.
      stall_seconds: seconds without a finished step after which the run says what it waits for; 0: never.
      refresh_every: steps between calls of ``method.refresh``, the first of which comes before step 0; needed by methods
        that have one.
      labeled_fraction: share of labelled images in every batch, see :func:`ssl_jax.data.loader.stream`; ``None``: as they come.
      begin: makes the state to begin with from the initialised one, such as by putting pretrained weights into it; not
        called when a checkpoint is restored.
      program: of :func:`make_program` for the same method, optimizer, mesh, rules and batches, so that several runs compile
        once; ``None``: it is made here.

    Returns:
      The state, and the signal that stopped the run, if one did. On SIGINT and SIGTERM the step under way is
      finished and saved. Waiting for data, a refresh and hooks are broken off; a run that goes on makes up for them.

    Raises:
      NonFiniteError: loss or gradient not finite; what is needed to replay the step has been dumped.
      ValueError: a batch size that the devices do not divide, or too many unreadable images.
    """
    mesh = make_mesh() if mesh is None else mesh
    devices = mesh.devices.size
    require(
        batch_size % devices == 0 and batch_size > 0,
        "batch_size",
        batch_size,
        f"a multiple of {devices} devices",
    )
    require(steps >= 1, "steps", steps, "an integer of 1 or more")
    if program is None:
        sample = sample_batch(source, method, crop_on=crop_on)
        program = make_program(
            method,
            optimizer,
            sample,
            mesh,
            rules=rules,
            accumulate=accumulate,
            cached_gradients=cached_gradients,
        )
    shardings = jax.tree.map(lambda x: x.sharding, program.abstract)
    refresher = Refresher(method, source, init=program.init, every=refresh_every, shardings=shardings)
    state = checkpoints.restore(program.abstract) if checkpoints else None
    if state is None:
        state = program.init(seed)
        if begin is not None:
            state = jax.device_put(begin(state), shardings)
    start = int(state.step)
    # The part of every batch that this process's devices hold: not always the one of its rank.
    index, count = local_share(batch_sharding(mesh), batch_size)
    with ExitStack() as stack:

        def open_stream(step: int, among: np.ndarray | None) -> Stream:
            return stream(
                source,
                views=method.views,
                crop_on=crop_on,
                seed=seed,
                batch_size=batch_size,
                start_step=step,
                workers=workers,
                max_corrupt_fraction=max_corrupt_fraction,
                process_index=index,
                process_count=count,
                among=among,
                labeled_fraction=labeled_fraction,
            )

        images = _Images(open_stream, batch_sharding(mesh))
        stack.callback(images.close)
        shown = sys.stderr if jax.process_index() == 0 else stack.enter_context(open(os.devnull, "w"))
        progress = Progress(steps, start, batch_size, stream=shown)
        stack.callback(progress.close)
        # Of several processes, none may leave a step that the others are in.
        stop = stack.enter_context(StopRequest(alone=jax.process_count() == 1))
        record = stack.enter_context(closing(writer(start))) if writer else None
        watchdog = Watchdog(stall_seconds, progress.note)
        stack.callback(watchdog.close)
        run = _Run(
            record, hooks, checkpoints, dumps, progress, images, watchdog, stop, steps, log_every, source.name
        )
        if checkpoints is not None and checkpoints.owed:
            run.look(start, state)
        for step in range(start, steps):
            before = state
            if refresher.due(step):
                run.settle(state)
            try:
                with stop.interruptible():
                    if refresher.due(step):
                        state = run.refresh(refresher, step, state)
                    if step == start or refresher.due(step):
                        images.open(step, refresher.order(step, state))
                    batch = run.batch()
            except Stopped:
                run.settle(before)
                run.save(step, before, owed=False)
                return Fitted(before, stop.requested)
            # Else what a refresh replaced would be held through a step.
            del before
            state = run.advance(program.step, step + 1, state, batch)
            saved = run.look(step + 1, state)
            if stop.requested or _preempted(step + 1):
                run.settle(state)
                if not saved:
                    run.save(step + 1, state, owed=False)
                return Fitted(state, stop.requested or "preemption")
        run.settle(state)
        run.finish()
    return Fitted(state, "")


def _preempted(step: int) -> bool:
    """Whether the processes of a multi-process run have agreed to stop at this step."""
    if jax.process_count() == 1:
        return False
    return multihost_utils.reached_preemption_sync_point(step)


class _Images:
    """The batches of a run, which begin anew where a refresh changes what they go through."""

    def __init__(
        self, open_stream: Callable[[int, np.ndarray | None], Stream], sharding: jax.sharding.Sharding
    ) -> None:
        self._open_stream, self._sharding = open_stream, sharding
        self._among: np.ndarray | None = None
        self._stream: Stream | None = None
        self._batches: Prefetch | None = None
        self._met: dict[str, str] = {}

    def open(self, step: int, among: np.ndarray | None) -> None:
        """Go on at a step, among these indices; batches that were read ahead are dropped if these are others."""
        if self._stream is not None and among is None and self._among is None:
            return
        self.close()
        self._among, self._stream = among, self._open_stream(step, among)
        self._batches = prefetch(self._stream, self._sharding)

    def next(self) -> Batch:
        assert self._batches is not None
        return next(self._batches)

    @property
    def corrupt(self) -> int:
        """How many corrupt images were met."""
        now = {} if self._stream is None else self._stream.corrupt
        return len(self._met | now)

    def close(self) -> None:
        if self._stream is not None and self._batches is not None:
            self._met |= self._stream.corrupt
            self._batches.close()


class _Run:
    """What happens around the steps. Metrics are fetched one step late, so that the device never waits for the host."""

    def __init__(
        self,
        writer: Writer | None,
        hooks: Sequence[Hook],
        checkpoints: Checkpoints | None,
        dumps: Path | None,
        progress: Progress,
        images: _Images,
        watchdog: Watchdog,
        stop: StopRequest,
        steps: int,
        log_every: int,
        data: str,
    ) -> None:
        self._writer, self._hooks, self._checkpoints, self._dumps = writer, hooks, checkpoints, dumps
        self._progress, self._images, self._steps, self._log_every = progress, images, steps, log_every
        self._watchdog, self._stop, self._data = watchdog, stop, data
        self._device = "the device (compiling, or the first step)"
        self._late: tuple[int, Any, Batch] | None = None
        self._scalars: dict[str, float] = {}

    def refresh(self, refresher: Refresher, step: int, state: TrainState) -> TrainState:
        self._progress.pause(step, "refresh: looking at all images")
        with self._watchdog.waiting("the refresh, which looks at all images"):
            state = refresher(step, state)
        # With the records of the step that follows: a run that goes on here writes both anew.
        self._log(step + 1, refresher.scalars(state))
        return state

    def batch(self) -> Batch:
        before = time.perf_counter()
        with self._watchdog.waiting(f"data from {self._data}"):
            batch = self._images.next()
        self._progress.stall(time.perf_counter() - before)
        return batch

    def advance(self, train_step: StepFn, step: int, state: TrainState, batch: Batch) -> TrainState:
        with self._watchdog.waiting(self._device):
            state, metrics = train_step(state, batch)
        self.settle(state)
        self._late = (step, metrics, batch)
        return state

    def look(self, step: int, state: TrainState) -> bool:
        """Call the hooks that are due, then save if that is due, or at once if the run is to stop; returns whether it saved."""
        hooks = [hook for hook in self._hooks if self._due(step, hook.every)]
        save = self._checkpoints is not None and self._due(step, self._checkpoints.every)
        if hooks or save:
            self.settle(state)
        owed = False
        try:
            with self._stop.interruptible():
                found = [self._ask(hook, step, state) for hook in hooks]
        except Stopped:
            found, owed = [], True
        for scalars in found:
            self._log(step, scalars)
        if save or owed:
            self.save(step, state, owed=owed and bool(hooks))
        return save or owed

    def _ask(self, hook: Hook, step: int, state: TrainState) -> Mapping[str, float]:
        with self._watchdog.waiting(f"evaluation ({type(hook).__name__})"):
            return hook(step, state)

    def settle(self, state: TrainState) -> None:
        """Read the metrics of the step that is one behind."""
        if self._late is None:
            return
        (step, metrics, batch), self._late = self._late, None
        with self._watchdog.waiting(self._device):
            scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._watchdog.finished(step)
        self._device = "the device"
        if not scalars.pop("finite"):
            self._fail(step, state, scalars, batch)
        if self._due(step, self._log_every):
            scalars |= self._progress.report(step, {**self._scalars, **scalars})
            if self._images.corrupt:
                scalars["corrupt_images"] = self._images.corrupt
            self._log(step, scalars)

    def save(self, step: int, state: TrainState, *, owed: bool) -> None:
        if self._checkpoints is not None:
            with self._watchdog.waiting(f"a checkpoint in {self._checkpoints.directory}"):
                self._checkpoints.save(step, state, metrics=self._scalars, owed=owed)

    def finish(self) -> None:
        """Return when what was saved is on disk."""
        if self._checkpoints is not None:
            with self._watchdog.waiting(f"a checkpoint in {self._checkpoints.directory}"):
                self._checkpoints.wait()

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self._steps

    def _log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._scalars |= scalars
        if scalars and self._writer is not None:
            self._writer.write(step, scalars)

    def _fail(self, step: int, state: TrainState, scalars: dict[str, float], batch: Batch) -> None:
        found = ", ".join(f"{name} {scalars[name]:g}" for name in ("loss", "grad_norm"))
        message = f"step {step} is not finite ({found}). The state before it is kept"
        if self._checkpoints is not None:
            self._checkpoints.wait()
        if self._dumps is not None:
            state = state._replace(finite=jnp.logical_not(state.finite))
            path = write_dump(self._dumps, state=state, batch=batch, metrics=scalars)
            message += f" with its batch and key in {path}; replay it with:\n  {replay_command(path)}"
        raise NonFiniteError(message)


def replay_command(dump: Path) -> str:
    """The command that runs a dumped step again."""
    return f"python -m experiments.pretrain --replay={dump}"
