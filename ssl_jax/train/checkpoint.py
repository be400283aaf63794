"""Checkpoints of a run: asynchronous, atomic, verified, the last and the best kept.

``DIR/<step>/`` holds the items ``model`` (params, state, step, key), all that evaluation needs, and ``opt``
(optimizer state, finite), with a manifest (:mod:`ssl_jax.train.storage`) that carries the configuration, the
metrics and the checksums. A directory copied elsewhere is complete.
"""

import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ssl_jax.core import check
from ssl_jax.core.bucket import is_bucket, to_path
from ssl_jax.core.files import remove_tree
from ssl_jax.core.trees import unflatten
from ssl_jax.core.types import Params, PyTree, State
from ssl_jax.core.version import LAYOUT, LAYOUT_KEY, require_layout
from ssl_jax.train import storage
from ssl_jax.train.state import TrainState


class NoUsableCheckpointError(RuntimeError):
    """There are checkpoints, and every one of them is damaged."""


class CannotSaveError(OSError):
    """A checkpoint could not be written; those before it are whole."""


class RestoredModel(NamedTuple):
    """What evaluation reads from a checkpoint: arrays are numpy's, the optimizer is left out.

    Attributes:
      params: parameters.
      state: what the method keeps besides.
      metadata: what :class:`Checkpoints` was given.
      step: number of updates made.
    """

    params: Params
    state: State
    metadata: dict[str, Any]
    step: int


def steps(directory: str | Path) -> list[int]:
    """List the steps of which a committed checkpoint exists, ascending; whether it is whole shows when it is read.

    >>> steps("/nowhere")
    []
    """
    directory = to_path(directory)
    paths = directory.iterdir() if directory.is_dir() else ()
    numbered = [path for path in paths if path.name.isascii() and path.name.isdigit()]
    return sorted(int(path.name) for path in numbered if storage.is_whole(path))


class Checkpoints:
    """The checkpoints of one run, as a context manager.

    Args:
      directory: where; created with the first save.
      every: steps between checkpoints; for the loop, which asks for each save.
      keep: how many of the latest to keep, 1 or more. With 1, there is nothing to fall back on.
      best: name of a metric; the checkpoint where it was highest is kept too. ``None``: only the latest are.
      metadata: JSON-able mapping, stored with each checkpoint: the run's configuration.

    Attributes:
      pending_hooks: whether the hooks of the step that was restored have not been called.

    Raises:
      ValueError: an argument out of range, metadata that is not JSON-able, or a path that cannot be written to.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        every: int,
        keep: int = 2,
        best: str | None = None,
        metadata: Mapping[str, Any],
    ) -> None:
        check.require(every >= 1, "every", every, "a number of steps of 1 or more")
        check.require(keep >= 1, "keep", keep, "a number of checkpoints of 1 or more")
        try:
            self._metadata = json.loads(json.dumps(metadata))
        except (TypeError, ValueError) as error:
            raise ValueError(f"metadata: allowed is what JSON can hold ({error})") from error
        self.directory = storage.resolve_directory(directory)
        self.every = every
        self._keep, self._best = keep, best
        self.pending_hooks = False
        self._restored = False
        self._saving: int | None = None
        self._unrecorded: dict[int, dict[str, float]] = {}
        self._checkpointer: ocp.training.Checkpointer | None = None
        self._policy = _LatestAndBest(keep)

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        metrics: Mapping[str, Any] | None = None,
        pending_hooks: bool = False,
    ) -> bool:
        """Save a state: returns when it has been copied from the devices, and is written in the background.

        The state may be donated right after. A kill at any moment leaves either the whole checkpoint or none.
        An error of the write is raised by the next call of ``save``, ``wait`` or ``close``; where the file system refused, such
        as a full disk, it is a :class:`CannotSaveError`.

        Args:
          step: ``int(state.step)``, without waiting for the device.
          state: what to save.
          metrics: scalars at this step; the one named ``best`` ranks the checkpoint.
          pending_hooks: whether the hooks of this step have not been called, so that a run that goes on here has to;
            :meth:`record` says when they have.

        Returns:
          Whether a checkpoint was made: not if there is one of this step.

        Raises:
          RuntimeError: the directory holds checkpoints of an earlier run that was not restored.
        """
        if not self._restored and (existing := steps(self.directory)):
            raise RuntimeError(
                f"{self.directory} holds checkpoints of steps {existing}: restore first, or save elsewhere"
            )
        self._restored = True
        # Orbax waits for the save before too.
        self.wait()
        if storage.of_first_process(step in steps(self.directory)):
            return False
        checkpointer = self._open()
        self._saving = step
        scalars = {name: float(value) for name, value in (metrics or {}).items()}
        self._policy.values[step] = _rank(scalars, self._best)
        facts = {
            LAYOUT_KEY: LAYOUT,
            "step": step,
            "best": self._best,
            "metrics": scalars,
            "pending_hooks": pending_hooks,
            "metadata": self._metadata,
        }
        with self._explained():
            checkpointer.save_checkpointables_async(step, storage.packed(_items(state), facts), force=True)
        return True

    def record(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Give the checkpoint that was saved with ``pending_hooks`` its metrics: the hooks of its step have been called.

        It is written when the checkpoint is on disk, with the next ``save``, ``wait`` or ``close``. A run that dies before
        calls these hooks once more.

        Args:
          step: of the checkpoint.
          metrics: scalars at this step; the one named ``best`` ranks the checkpoint.
        """
        scalars = {name: float(value) for name, value in metrics.items()}
        self._policy.values[step] = _rank(scalars, self._best)
        self._unrecorded[step] = scalars
        if step != self._saving:
            self._write_records()

    def restore(self, abstract_state: TrainState) -> TrainState | None:
        """Restore the latest checkpoint that is whole, with one warning for each damaged one that is passed over.

        Damaged checkpoints later than the one restored are renamed to ``<step>.damaged``, so that the run can
        save those steps again. If nothing can be restored, nothing is renamed.

        Args:
          abstract_state: state of ``jax.ShapeDtypeStruct`` with the shardings to restore to, which need not
            be those that were saved.

        Returns:
          The state, bit for bit as it was saved; ``None`` if there are no checkpoints.

        Raises:
          MismatchError: a checkpoint is of another configuration; names the first path that differs.
          ValueError: another version of ssl_jax wrote a checkpoint.
          NoUsableCheckpointError: there are checkpoints and all are damaged.
        """
        self.close()
        wanted = _items(abstract_state)
        damaged: dict[int, str] = {}
        for step in reversed(steps(self.directory)):
            items, problem = None, ""
            try:
                manifest = _manifest(self.directory, step)
                storage.require_fit(self.directory / str(step), manifest, wanted)
                items = storage.load(self.directory / str(step), manifest, wanted)
            except storage.DamagedError as error:
                problem = str(error)
            damaged[step] = storage.agreed(problem)
            if items is not None and not damaged.pop(step):
                storage.on_first_process(lambda: _set_aside(self.directory, damaged))
                self._restored, self.pending_hooks = True, manifest["facts"]["pending_hooks"]
                return TrainState(**items["model"], **items["opt"])
            _warn(self.directory, step, damaged[step])
        if damaged:
            raise _unusable(self.directory, damaged)
        return None

    def wait(self) -> None:
        """Return when all saves are on disk; raises what went wrong with them."""
        if self._checkpointer is not None:
            with self._explained():
                self._checkpointer.wait()
        self._write_records()

    def close(self) -> None:
        """Wait, and release what the saves needed."""
        if self._checkpointer is not None:
            checkpointer, self._checkpointer = self._checkpointer, None
            with self._explained():
                checkpointer.wait()
                self._write_records()
                self._remove_surplus(checkpointer)
                checkpointer.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A process that ends with an error must not wait for others, which wait for it in the step.
        if error is None or jax.process_count() == 1:
            self.close()

    def _write_records(self) -> None:
        records, self._unrecorded = self._unrecorded, {}
        if jax.process_index() != 0:
            return
        for step in records.keys() & set(steps(self.directory)):
            try:
                storage.update_facts(
                    self.directory / str(step), {"metrics": records[step], "pending_hooks": False}
                )
            except (OSError, storage.DamagedError) as error:
                warnings.warn(
                    f"metrics of checkpoint {step} in {self.directory} are not written: {error}", stacklevel=3
                )

    def _remove_surplus(self, checkpointer: ocp.training.Checkpointer) -> None:
        """The best before the last save, if that is now known to be better."""
        existing = [each.step for each in checkpointer.checkpoints]
        for step in set(existing) - self._policy.preserved(existing):
            checkpointer.delete(step)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the file system refused, in a line; orbax and tensorstore say it in many."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = str(storage.innermost(error)).strip().split("\n")[0][:300]
            space = ""
            if not is_bucket(self.directory):
                free = shutil.disk_usage(self.directory).free / 2**20
                space = f", where {free:,.1f} MiB are free"
            whole = steps(self.directory)
            after = (
                f"Those of steps {whole} are whole: the same command goes on from the last one"
                if whole
                else "None was written before: the same command starts anew"
            )
            raise CannotSaveError(
                f"a checkpoint cannot be written to {self.directory}{space}: {reason}. {after}"
            ) from error

    def _open(self) -> ocp.training.Checkpointer:
        """Opened with the first save, after restoring cleared the way; removes what a killed save left."""
        if self._checkpointer is None:
            on_disk = {step: _recorded_rank(self.directory, step) for step in steps(self.directory)}
            self._policy.values = on_disk | self._policy.values
            self._checkpointer = ocp.training.Checkpointer(
                storage.orbax_path(self.directory),
                preservation_policy=self._policy,
                cleanup_tmp_directories=True,
                context=storage.patient(self.directory),
            )
        return self._checkpointer


def restore_model(
    directory: str | Path,
    *,
    step: int | Literal["latest", "best"] = "latest",
    abstract: tuple[PyTree, PyTree] | None = None,
) -> RestoredModel:
    """Read parameters and method state on any machine, without the optimizer.

    Args:
      directory: the ``checkpoints`` of a run.
      step: which; ``"latest"`` passes over damaged ones with a warning, ``"best"`` is where the metric that
        the run ranked by was highest.
      abstract: ``(params, state)`` as arrays or ``jax.ShapeDtypeStruct``: what comes back has this structure,
        and an error names the first path that does not fit. Without it, every level is a dict: named tuples
        become dicts by field, empty branches are left out, and keys come as their data.

    Returns:
      The model, with the metadata of its run.

    Raises:
      ValueError: there is no such checkpoint, another version of ssl_jax wrote it, or it does not fit ``abstract``.
      NoUsableCheckpointError: those asked for are damaged.
    """
    directory = storage.resolve_directory(directory)
    candidates = _candidates(directory, step)
    damaged = {}
    for candidate in candidates:
        try:
            return _restore_model(directory, candidate, abstract)
        except storage.DamagedError as error:
            damaged[candidate] = str(error)
            if len(candidates) > 1:
                _warn(directory, candidate, str(error))
    raise _unusable(directory, damaged)


def _candidates(directory: Path, step: int | str) -> list[int]:
    """Steps to try, in this order."""
    existing = steps(directory)
    if not existing:
        raise ValueError(f"there is no checkpoint in {directory}")
    if step == "latest":
        return existing[::-1]
    if step == "best":
        ranks = {existing_step: _recorded_rank(directory, existing_step) for existing_step in existing}
        best = max(ranks, key=lambda s: (ranks[s], s))
        if ranks[best] == -math.inf:
            raise ValueError(
                f"step='best': no checkpoint in {directory} has the metric it would be ranked by"
            )
        return [best]
    return [check.choice("step", step, existing)]


def _restore_model(directory: Path, step: int, abstract: tuple[PyTree, PyTree] | None) -> RestoredModel:
    manifest = _manifest(directory, step)
    facts, described = manifest["facts"], manifest["items"]["model"]
    described = {
        path: entry for path, entry in described.items() if path.split("/")[0] in ("params", "state")
    }
    manifest = {"items": {"model": described}}
    if abstract is None:
        wanted = {"params": {}, "state": {}} | unflatten(
            {path: _empty(entry) for path, entry in described.items()}
        )
    else:
        tree = {"params": abstract[0], "state": abstract[1]}
        storage.require_fit(directory / str(step), manifest, {"model": tree})
        wanted = jax.tree.map(lambda x: x if storage.is_key(x) else np.empty(x.shape, x.dtype), tree)
    model = storage.load(directory / str(step), manifest, {"model": wanted})["model"]
    return RestoredModel(model["params"], model["state"], facts["metadata"], facts["step"])


def _empty(entry: Mapping[str, Any]) -> np.ndarray:
    """Where an array is read to; the data of keys has the shape that is on disk, whatever is asked for."""
    dtype = "uint32" if entry["dtype"].startswith("key<") else entry["dtype"]
    return np.empty(entry["shape"], jax.numpy.dtype(dtype))


def _items(state: TrainState) -> dict[str, PyTree]:
    model = {"params": state.params, "state": state.state, "step": state.step, "key": state.key}
    return {"model": model, "opt": {"opt_state": state.opt_state, "finite": state.finite}}


def _manifest(directory: Path, step: int) -> dict[str, Any]:
    manifest = storage.read_manifest(directory / str(step))
    require_layout(manifest["facts"], str(directory / str(step)))
    if manifest["facts"]["step"] != step:
        raise storage.DamagedError(f"it is a checkpoint of step {manifest['facts']['step']}")
    return manifest


def _rank(metrics: Mapping[str, Any], best: str | None) -> float:
    """The metric to rank by; minus infinity where it is missing or not finite."""
    value = metrics.get(best) if best else None
    return value if isinstance(value, float) and math.isfinite(value) else -math.inf


def _recorded_rank(directory: Path, step: int) -> float:
    try:
        facts = storage.read_manifest(directory / str(step))["facts"]
    except storage.DamagedError:
        return -math.inf
    return _rank(facts["metrics"], facts["best"])


class _LatestAndBest:
    """Orbax's ``PreservationPolicy``; with its own, a damaged file of metrics stops it from opening."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.values: dict[int, float] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        preserved = self.preserved([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in preserved for checkpoint in checkpoints]

    def preserved(self, existing: Sequence[int]) -> set[int]:
        preserved = set(sorted(existing)[-self._keep :])
        ranked = [step for step in existing if self.values.get(step, -math.inf) > -math.inf]
        if ranked:
            preserved.add(max(ranked, key=lambda step: (self.values[step], step)))
        return preserved


def _warn(directory: Path, step: int, reason: str) -> None:
    warnings.warn(f"checkpoint {step} in {directory} is damaged and passed over: {reason}", stacklevel=3)


def _unusable(directory: Path, damaged: Mapping[int, str]) -> NoUsableCheckpointError:
    reasons = "".join(f"\n  {step}: {reason}" for step, reason in damaged.items())
    return NoUsableCheckpointError(
        f"no usable checkpoint in {directory}:{reasons}\nTo start again, remove these or go elsewhere"
    )


def _set_aside(directory: Path, damaged: Mapping[int, str]) -> None:
    for step in damaged:
        aside = directory / f"{step}.damaged"
        remove_tree(aside)
        (directory / str(step)).rename(aside)
