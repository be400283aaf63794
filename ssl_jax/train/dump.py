"""Dump of a step that went wrong: what is needed to run it again, exactly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ssl_jax.core.files import remove_tree
from ssl_jax.core.types import Batch
from ssl_jax.train import storage
from ssl_jax.train.state import TrainState


def write_dump(
    directory: str | Path, *, state: TrainState, batch: Batch, metrics: Mapping[str, Any], command: str = ""
) -> Path:
    """Write the state before a step and the batch of the step, complete or not at all.

    ``PATH/manifest/manifest.json`` tells a human the step, the metrics and the command. No pickle is
    involved. Called by every process of a run.

    Args:
      directory: where dumps go; created.
      state: before the step; its key and step give the step's randomness.
      batch: what the step was given: dicts, tuples and lists of arrays, numpy or on devices.
      metrics: scalars that the step returned.
      command: what to type to run the step again.

    Returns:
      ``directory/step_<number of updates made>``. An earlier dump of that step is replaced.
    """
    step = int(state.step)
    path = storage.resolve_directory(directory) / f"step_{step}"
    scalars = {name: float(value) for name, value in metrics.items()}
    facts = {"step": step, "metrics": scalars, "command": command, "batch": _skeleton(batch)}
    storage.on_first_process(lambda: remove_tree(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    items = {"state": state, "batch": batch}
    with storage.patient(path):
        ocp.save_checkpointables(storage.orbax_path(path), storage.packed(items, facts))
    return path


def read_dump(path: str | Path, abstract_state: TrainState) -> tuple[TrainState, Batch]:
    """Read a dump back, bit for bit.

    Args:
      path: from :func:`write_dump`.
      abstract_state: state of ``jax.ShapeDtypeStruct`` with the shardings to restore to.

    Returns:
      The state before the step, and the step's global batch as numpy arrays, in the containers it came in.

    Raises:
      ValueError: not a dump, a damaged one, or one of another configuration.
    """
    path = storage.resolve_directory(path)
    try:
        manifest = storage.read_manifest(path)
        items = {"state": abstract_state}
        storage.require_fit(path, {"items": {"state": manifest["items"]["state"]}}, items)
        batch = _fill(manifest["facts"]["batch"], manifest["items"]["batch"])
        loaded = storage.load(path, manifest, {**items, "batch": batch})
    except storage.DamagedError as error:
        raise ValueError(f"{path} is not a whole dump: {error}") from error
    return loaded["state"], loaded["batch"]


def _skeleton(tree: Any, path: str = "") -> Any:
    """Containers as JSON, which has no tuples; at each leaf its path."""
    if isinstance(tree, Mapping):
        return {"dict": {name: _skeleton(entry, f"{path}/{name}") for name, entry in tree.items()}}
    if isinstance(tree, (tuple, list)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_skeleton(entry, f"{path}/{index}") for index, entry in enumerate(tree)]}
    return path.removeprefix("/")


def _fill(skeleton: Any, described: Mapping[str, Any]) -> Any:
    """The tree again, with an empty array at each leaf."""
    if isinstance(skeleton, str):
        entry = described[skeleton]
        return np.empty(entry["shape"], jax.numpy.dtype(entry["dtype"]))
    ((kind, entries),) = skeleton.items()
    if kind == "dict":
        return {name: _fill(entry, described) for name, entry in entries.items()}
    filled = [_fill(entry, described) for entry in entries]
    return tuple(filled) if kind == "tuple" else filled
