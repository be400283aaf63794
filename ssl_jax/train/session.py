"""What happens around the steps of a run: refreshes, logging, hooks, checkpoints and a stop that loses nothing."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ssl_jax.core.types import Batch
from ssl_jax.train.dump import write_dump
from ssl_jax.train.input import Batches
from ssl_jax.train.progress import Progress
from ssl_jax.train.refresh import Refresher
from ssl_jax.train.run import Hook, Watch
from ssl_jax.train.signals import Stopped, StopRequest
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import StepFn
from ssl_jax.train.watchdog import Watchdog
from ssl_jax.train.writers import Writer


class NonFiniteError(FloatingPointError):
    """The loss or a gradient stopped being finite."""


class Session:
    """A run under way, as a context manager. Metrics are fetched one step late, so that the device never waits for the host.

    Of several runs in one program, state and metrics have an axis of runs in front; progress and checkpoints show means.

    Args:
      state: to begin or go on with.
      steps: updates in all.
      images_per_step: over all devices and runs.
      batches: closed at the end.
      refresher: looks at all images where that is due.
      watch: what watches and saves.
      source: name of the data, for messages.

    Attributes:
      state: after the last step made.
      start: step after which the session begins.
      steps: updates in all.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        steps: int,
        images_per_step: int,
        batches: Batches,
        refresher: Refresher,
        watch: Watch,
        source: str,
    ) -> None:
        # A run that is not finite stands still while those beside it go on.
        self.state, self.start, self.steps = state, int(np.max(state.step)), steps
        self._images_per_step, self._batches, self._refresher = images_per_step, batches, refresher
        self._watch, self._source = watch, source
        self._device = "the device (compiling, or the first step)"
        self._unread: tuple[int, Any, Batch] | None = None
        self._scalars: dict[str, float] = {}

    def __enter__(self) -> "Session":
        watch = self._watch
        with ExitStack() as stack:
            stack.callback(self._batches.close)
            stream = sys.stderr if jax.process_index() == 0 else stack.enter_context(open(os.devnull, "w"))
            progress = Progress(self.steps, self.start, self._images_per_step, stream=stream)
            self._progress = stack.enter_context(closing(progress))
            # Of several processes, none may leave a step that the others are in.
            self._stop = stack.enter_context(StopRequest(alone=jax.process_count() == 1))
            self._writer: Writer | None = None
            if watch.writer is not None:
                self._writer = stack.enter_context(closing(watch.writer(self.start)))
            watchdog = Watchdog(watch.stall_seconds, progress.note)
            self._watchdog = stack.enter_context(closing(watchdog))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def run_pending_hooks(self) -> None:
        """Make up for the hooks that a stop broke off before the checkpoint was made that was restored."""
        if self._watch.checkpoints is not None and self._watch.checkpoints.pending_hooks:
            self._run_due_hooks(self.start)

    def prepare(self, step: int) -> Batch:
        """Refresh the state if that is due, and wait for the batch of the update that follows ``step`` others.

        Raises:
          Stopped: the run is to stop; the state before all this has been saved.
        """
        due = self._refresher.is_due(step)
        if due:
            self._flush_metrics()
        try:
            with self._stop.interruptible():
                state = self._refresh(step) if due else self.state
                if step == self.start or due:
                    self._batches.open(step, self._refresher.order(step, state))
                batch = self._next_batch()
        except Stopped:
            self._flush_metrics()
            self._save(step)
            raise
        self.state = state
        return batch

    def advance(self, step: int, train_step: StepFn, batch: Batch) -> None:
        """Make the update number ``step``, counted from 1.

        Raises:
          NonFiniteError: the update before it was not finite; what is needed to replay it has been dumped.
        """
        with self._watchdog.waiting(self._device):
            self.state, metrics = train_step(self.state, batch)
        self._flush_metrics()
        self._unread = (step, metrics, batch)

    def observe(self, step: int) -> None:
        """Run the hooks and save the checkpoint that are due after ``step`` updates.

        Raises:
          Stopped: the run is to stop; the state has been saved.
        """
        saved = self._run_due_hooks(step)
        reason = self._stop.requested or ("preemption" if _is_preempted(step) else "")
        if reason:
            self._flush_metrics()
            if not saved:
                self._save(step)
            raise Stopped(reason)

    def finish(self) -> None:
        """Read the last metrics, and return when what was saved is on disk."""
        self._flush_metrics()
        if self._watch.checkpoints is not None:
            with self._watchdog.waiting(f"a checkpoint in {self._watch.checkpoints.directory}"):
                self._watch.checkpoints.wait()

    def _refresh(self, step: int) -> TrainState:
        self._progress.pause(step, "refresh: looking at all images")
        with self._watchdog.waiting("the refresh, which looks at all images"):
            state = self._refresher(step, self.state)
        # With the records of the step that follows: a run that goes on here writes both anew.
        self._log(step + 1, self._refresher.scalars(state))
        return state

    def _next_batch(self) -> Batch:
        before = time.perf_counter()
        with self._watchdog.waiting(f"data from {self._source}"):
            batch = self._batches.next()
        self._progress.stall(time.perf_counter() - before)
        return batch

    def _run_due_hooks(self, step: int) -> bool:
        """Run the hooks that are due, then save if that is due, or at once if the run is to stop; returns whether it saved."""
        checkpoints = self._watch.checkpoints
        hooks = [hook for hook in self._watch.hooks if self._is_due(step, hook.every)]
        save = checkpoints is not None and self._is_due(step, checkpoints.every)
        if hooks or save:
            self._flush_metrics()
        stopped = False
        try:
            with self._stop.interruptible():
                measured = [self._run_hook(hook, step) for hook in hooks]
        except Stopped:
            measured, stopped = [], True
        for scalars in measured:
            self._log(step, scalars)
        if save or stopped:
            self._save(step, pending_hooks=stopped and bool(hooks))
        return save or stopped

    def _run_hook(self, hook: Hook, step: int) -> Mapping[str, Any]:
        with self._watchdog.waiting(f"evaluation ({type(hook).__name__})"):
            return hook(step, self.state)

    def _flush_metrics(self) -> None:
        """Read the metrics of the step that is one behind."""
        if self._unread is None:
            return
        (step, metrics, batch), self._unread = self._unread, None
        with self._watchdog.waiting(self._device):
            # Numbers, or lists of them for several runs.
            scalars = {
                name: np.asarray(value, np.float64).tolist()
                for name, value in jax.device_get(metrics).items()
            }
        self._watchdog.finished(step)
        self._device = "the device"
        if not scalars.pop("finite"):
            self._fail(step, scalars, batch)
        if self._is_due(step, self._watch.log_every):
            scalars |= self._progress.report(step, {**self._scalars, **_mean_over_runs(scalars)})
            if self._batches.corrupt_count:
                scalars["corrupt_images"] = self._batches.corrupt_count
            self._log(step, scalars)

    def _save(self, step: int, *, pending_hooks: bool = False) -> None:
        checkpoints = self._watch.checkpoints
        if checkpoints is not None:
            with self._watchdog.waiting(f"a checkpoint in {checkpoints.directory}"):
                checkpoints.save(step, self.state, metrics=self._scalars, pending_hooks=pending_hooks)

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps

    def _log(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._scalars |= _mean_over_runs(scalars)
        if scalars and self._writer is not None:
            self._writer.write(step, scalars)

    def _fail(self, step: int, scalars: dict[str, float], batch: Batch) -> None:
        values = ", ".join(f"{name} {scalars[name]:g}" for name in ("loss", "grad_norm"))
        message = f"step {step} is not finite ({values}). The state before it is kept"
        if self._watch.checkpoints is not None:
            self._watch.checkpoints.wait()
        if self._watch.dumps is not None:
            state = self.state._replace(finite=jnp.logical_not(self.state.finite))
            path = write_dump(self._watch.dumps, state=state, batch=batch, metrics=scalars)
            message += f" with its batch and key in {path}; replay it with:\n  {replay_command(path)}"
        raise NonFiniteError(message)


def replay_command(dump: Path) -> str:
    """Return the command that runs a dumped step again."""
    return f"python -m experiments.pretrain --replay={dump}"


def _mean_over_runs(scalars: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: float(np.mean(value)) if isinstance(value, list) else value for name, value in scalars.items()
    }


def _is_preempted(step: int) -> bool:
    """Whether the processes of a multi-process run have agreed to stop at this step."""
    if jax.process_count() == 1:
        return False
    return multihost_utils.reached_preemption_sync_point(step)
