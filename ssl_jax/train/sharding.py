"""Where arrays live: the mesh, the sharding of a batch, and sharding rules as data.

A run has one mesh with two axes. ``data`` splits the batch and replicates the state; ``fsdp`` splits the
batch too, and the big arrays of the state with it. Axis types are Auto: the compiler inserts the collectives,
no loss contains one.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_jax.core import check
from ssl_jax.core.trees import map_with_path
from ssl_jax.core.types import PyTree
from ssl_jax.train.state import TrainState

Rule = tuple[str, PartitionSpec]
"""Regular expression found in a path such as ``params/encoder/head/kernel`` -> how those arrays are split."""

AXES = ("data", "fsdp")
FSDP_MIN_SIZE = 2**16
"""Elements of an array below which splitting it is not worth the communication."""


def make_mesh(*, data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Make a mesh with the axes ``data`` and ``fsdp`` over all devices of all processes.

    Args:
      data: devices along ``data``; -1: what ``fsdp`` leaves.
      fsdp: devices along ``fsdp``, over which big arrays are split; -1: what ``data`` leaves.
      devices: ``jax.devices()`` by default.

    Returns:
      A mesh of ``data * fsdp == len(devices)`` devices with Auto axis types, in JAX's order for the network between them; where
      that would tear the rows that a process loads apart, process by process.

    Raises:
      ValueError: a size that is neither -1 nor positive, both -1, or a product that differs from
        the number of devices.

    >>> import jax
    >>> dict(make_mesh(devices=jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1}
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    for name, size in (("data", data), ("fsdp", fsdp)):
        check.require(size == -1 or size >= 1, name, size, "a number of devices, or -1 for what is left")
    check.require((data, fsdp) != (-1, -1), "data", data, "-1 for one of data and fsdp, not for both")
    known = math.prod(size for size in (data, fsdp) if size != -1)
    free = -1 in (data, fsdp)
    if (count % known if free else count != known) or count == 0:
        wanted = f"a multiple of {known}" if free else f"{data} * {fsdp} = {known}"
        raise ValueError(f"mesh data={data}, fsdp={fsdp} needs {wanted} devices, but there are {count}")
    shape = tuple(count // known if size == -1 else size for size in (data, fsdp))
    types = (AxisType.Auto, AxisType.Auto)
    mesh = jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    if len(list(itertools.groupby(d.process_index for d in mesh.devices.flat))) == len(
        {d.process_index for d in devices}
    ):
        return mesh
    in_turn = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(in_turn).reshape(shape), AXES, axis_types=types)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: the first axis split over every device of the mesh, whatever its axes are for.

    >>> import jax
    >>> batch_sharding(make_mesh(devices=jax.devices()[:1])).spec == PartitionSpec(("data", "fsdp"))
    True
    """
    return NamedSharding(mesh, PartitionSpec(AXES))


def batch_sharding_of(state: TrainState) -> NamedSharding | None:
    """Return the sharding of batches on the mesh that a state lives on; ``None`` if it lives on none."""
    sharding = state.step.sharding
    return batch_sharding(sharding.mesh) if isinstance(sharding, NamedSharding) else None  # type: ignore[arg-type]


def to_host(tree: PyTree) -> PyTree:
    """Copy the arrays of a tree to numpy, whole in every process, whatever devices of whatever process hold their parts.

    >>> import jax.numpy as jnp
    >>> to_host({"a": jnp.arange(2)})
    {'a': array([0, 1], dtype=int32)}
    """

    def gathered(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            x = multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(gathered, tree)


def state_shardings(
    abstract_state: PyTree, mesh: Mesh, *, rules: Sequence[Rule] = (), fsdp_min_size: int = FSDP_MIN_SIZE
) -> PyTree:
    """Choose the sharding of every array of a state.

    The first rule whose pattern is found in the array's path decides. Without one, an array of
    ``fsdp_min_size`` or more elements is split over ``fsdp`` along its largest axis that ``fsdp`` divides
    (the last of equals); all else, and typed keys always, is replicated.

    Args:
      abstract_state: tree of arrays or ``jax.ShapeDtypeStruct``, usually ``jax.eval_shape`` of the init.
      mesh: from :func:`make_mesh`.
      rules: pairs of pattern and ``PartitionSpec``. The paths of optimizer moments end as their parameter's
        does, so a pattern that is not anchored at the start serves both.
      fsdp_min_size: elements; smaller arrays are replicated.

    Returns:
      The same tree with a ``NamedSharding`` at each leaf.

    Raises:
      ValueError: a rule that does not fit an array; names its path, shape and the rule.

    >>> import jax, jax.numpy as jnp
    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> tree = {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}
    >>> shardings = state_shardings(tree, mesh, rules=[("kernel", PartitionSpec(None, "fsdp"))])
    >>> [tuple(shardings[name].spec) for name in ("kernel", "bias")]
    [(None, 'fsdp'), ()]
    """

    def sharding(path: str, leaf: Any) -> NamedSharding:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return replicated(mesh)
        for pattern, spec in rules:
            if re.search(pattern, path):
                problem = _misfit(spec, leaf.shape, mesh)
                if problem:
                    rule = f"sharding rule ({pattern!r}, {spec})"
                    raise ValueError(f"{rule} does not fit {path} {leaf.shape}: {problem}")
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, _fsdp_spec(leaf.shape, mesh.shape["fsdp"], fsdp_min_size))

    return map_with_path(sharding, abstract_state)


def _fsdp_spec(shape: tuple[int, ...], fsdp: int, min_size: int) -> PartitionSpec:
    fitting = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or math.prod(shape) < min_size or not fitting:
        return PartitionSpec()
    chosen = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * chosen, "fsdp")


def _misfit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> str:
    """Why ``spec`` cannot split an array of this shape; empty if it can."""
    if len(spec) > len(shape):
        return f"the rule names {len(spec)} axes, the array has {len(shape)}"
    for axis, names in enumerate(spec):
        names = () if names is None else (names,) if isinstance(names, str) else tuple(names)
        unknown = [name for name in names if name not in mesh.shape]
        if unknown:
            return f"{unknown[0]!r} is not an axis of the mesh: {check.did_you_mean(unknown[0], mesh.shape)}"
        parts = math.prod(mesh.shape[name] for name in names)
        if shape[axis] % parts:
            return f"axis {axis} of {shape[axis]} cannot be split in {parts} equal parts"
    return ""
