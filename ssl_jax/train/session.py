"""What happens around the steps of a run: refreshes, logging, hooks, checkpoints and a stop that loses nothing.

A step is saved before its hooks are called: what fails or is killed in one of them costs no step. The checkpoint says that its
hooks are pending until they have been called, so that a run that goes on there calls them, and gets its metrics then.
"""

import logging
import os
import shlex
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

from ssl_jax.core.bucket import to_path
from ssl_jax.core.types import Batch
from ssl_jax.train import storage
from ssl_jax.train.dump import write_dump
from ssl_jax.train.input import Batches
from ssl_jax.train.progress import Progress
from ssl_jax.train.refresh import Refresher
from ssl_jax.train.run import Hook, Watch
from ssl_jax.train.signals import Stopped, StopRequest
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import StepFn
from ssl_jax.train.watchdog import Watchdog
from ssl_jax.train.writers import Writer, flush

logger = logging.getLogger(__name__)


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
        self._of_hooks: dict[int, dict[str, float]] = {}
        self._called: set[int] = set()
        self._failures: dict[str, list[tuple[int, str]]] = {}
        self._dumps = None if watch.dumps is None else to_path(watch.dumps).absolute()

    def __enter__(self) -> "Session":
        watch = self._watch
        with ExitStack() as stack:
            stack.callback(self._batches.close)
            stream = sys.stderr if jax.process_index() == 0 else stack.enter_context(open(os.devnull, "w"))
            progress = Progress(self.steps, self.start, self._images_per_step, stream=stream)
            self._progress = stack.enter_context(closing(progress))
            stack.callback(self._tell_failures)
            # Of several processes, none may leave a step that the others are in.
            self._stop = stack.enter_context(StopRequest(alone=jax.process_count() == 1))
            self._writer: Writer | None = None
            if watch.writer is not None:
                self._writer = watch.writer(self.start)
                stack.callback(self._close_writer)
            watchdog = Watchdog(watch.stall_seconds, progress.note)
            self._watchdog = stack.enter_context(closing(watchdog))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each hook and for the writer, if it failed: how often, and why at first."""
        return tuple(
            f"{name} failed {f'{len(failed)} times, first ' if len(failed) > 1 else ''}at step {failed[0][0]}: {failed[0][1]}"
            for name, failed in self._failures.items()
        )

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
        """Save the checkpoint and run the hooks that are due after ``step`` updates.

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
        self._wait_for_checkpoint()

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
        """Save if that is due, then run the hooks that are, or save at once if the run is to stop; returns whether it saved."""
        checkpoints = self._watch.checkpoints
        hooks = {n: hook for n, hook in enumerate(self._watch.hooks) if self._is_due(step, hook.every)}
        save = checkpoints is not None and self._is_due(step, checkpoints.every)
        if hooks or save:
            self._flush_metrics()
        for number in hooks:
            self._of_hooks.pop(number, None)
        if save:
            self._save(step, pending_hooks=bool(hooks))
        try:
            with self._stop.interruptible():
                # What a hook takes, such as memory, shows when it is first called.
                if save and not hooks.keys() <= self._called:
                    self._wait_for_checkpoint()
                self._called |= hooks.keys()
                measured = {n: self._run_hook(hook, step) for n, hook in hooks.items()}
        except Stopped:
            if not save:
                self._save(step, pending_hooks=bool(hooks))
            return True
        for number, scalars in measured.items():
            self._of_hooks[number] = _mean_over_runs(scalars)
            self._write(step, scalars)
        if save and hooks and checkpoints is not None:
            checkpoints.record(step, self._all_scalars())
        return save

    def _run_hook(self, hook: Hook, step: int) -> Mapping[str, Any]:
        name = getattr(hook, "name", type(hook).__name__)
        try:
            with self._watchdog.waiting(f"evaluation ({type(hook).__name__})"):
                scalars = hook(step, self.state)
                # What is no number shows here, and what fails on the device.
                for value in _mean_over_runs(scalars).values():
                    float(value)
                return scalars
        except Exception as error:
            if jax.process_count() > 1:
                # The others may wait for this one in the hook: all end, and what has been saved is on disk.
                self._wait_for_checkpoint()
                raise
            self._note_failure(name, step, error)
            return {}

    def _note_failure(self, name: str, step: int, error: Exception) -> None:
        """Say it, once for each reason."""
        logger.debug("%s failed", name, exc_info=error)
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300].rstrip(":. ")
        failed = self._failures.setdefault(name, [])
        if all(reason != earlier for _, earlier in failed):
            self._progress.note(
                f"warning: {name} failed at step {step}: {reason}; the run goes on without it"
            )
        failed.append((step, reason))

    def _tell_failures(self) -> None:
        for line in self.failures:
            self._progress.note(f"warning: {line}")

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
            scalars |= self._progress.report(step, {**self._all_scalars(), **_mean_over_runs(scalars)})
            if self._batches.corrupt_count:
                scalars["corrupt_images"] = self._batches.corrupt_count
            self._log(step, scalars)

    def _save(self, step: int, *, pending_hooks: bool = False) -> None:
        checkpoints = self._watch.checkpoints
        if checkpoints is not None:
            # A run that goes on here does not write the records before it again.
            self._flush_writer(step)
            with self._watchdog.waiting(f"a checkpoint in {checkpoints.directory}"):
                checkpoints.save(step, self.state, metrics=self._all_scalars(), pending_hooks=pending_hooks)

    def _wait_for_checkpoint(self) -> None:
        if self._watch.checkpoints is not None:
            with self._watchdog.waiting(f"a checkpoint in {self._watch.checkpoints.directory}"):
                self._watch.checkpoints.wait()

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps

    def _log(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._scalars |= _mean_over_runs(scalars)
        self._write(step, scalars)

    def _write(self, step: int, scalars: Mapping[str, Any]) -> None:
        if not scalars or self._writer is None:
            return
        try:
            self._writer.write(step, scalars)
        except Exception as error:
            self._note_failure("writing metrics", step, error)

    def _flush_writer(self, step: int) -> None:
        try:
            if self._writer is not None:
                flush(self._writer)
        except Exception as error:
            self._note_failure("writing metrics", step, error)

    def _close_writer(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception as error:
            self._note_failure("writing metrics", int(np.max(self.state.step)), error)

    def _all_scalars(self) -> dict[str, float]:
        """The last of each; of a hook that is due but has not been called, or failed, there are none."""
        return {**self._scalars, **{k: v for scalars in self._of_hooks.values() for k, v in scalars.items()}}

    def _fail(self, step: int, scalars: dict[str, float], batch: Batch) -> None:
        values = ", ".join(f"{name} {scalars[name]:g}" for name in ("loss", "grad_norm"))
        message = f"step {step} is not finite ({values}). The state before it is kept"
        if self._watch.checkpoints is not None:
            self._watch.checkpoints.wait()
        if self._dumps is not None:
            state = self.state._replace(finite=jnp.logical_not(self.state.finite))
            try:
                path = write_dump(self._dumps, state=state, batch=batch, metrics=scalars)
            except (OSError, ValueError) as error:
                reason = str(storage.innermost(error)).strip().splitlines()[0][:300]
                raise NonFiniteError(
                    f"{message}, but cannot be written to {self._dumps}: {reason}"
                ) from error
            message += f" with its batch and key in {path}; replay it with:\n  {replay_command(path)}"
        raise NonFiniteError(message)


def replay_command(dump: Path) -> str:
    """Return the command that runs a dumped step again."""
    return f"python -m experiments.pretrain --replay={shlex.quote(str(dump))}"


def _mean_over_runs(scalars: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: float(np.mean(value)) if isinstance(value, list) else value for name, value in scalars.items()
    }


def _is_preempted(step: int) -> bool:
    """Whether the processes of a multi-process run have agreed to stop at this step."""
    if jax.process_count() == 1:
        return False
    return multihost_utils.reached_preemption_sync_point(step)
