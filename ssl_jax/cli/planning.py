"""What a run needs, from its compiled step: the body of ``experiments.plan``. :mod:`ssl_jax.cli.plan_text` writes it out."""

import importlib.metadata
import importlib.util
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from ssl_jax.augment.views import groups
from ssl_jax.cli import hardware
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core.check import require
from ssl_jax.core.flops import matmul_flops
from ssl_jax.core.hlo import Collective, collectives, traffic
from ssl_jax.core.types import Batch, PyTree
from ssl_jax.methods.method import Method
from ssl_jax.train.program import Program, make_program, sample_batch
from ssl_jax.train.sharding import batch_sharding

AHEAD = 2
"""Batches that the loop places on the devices while a step runs."""
RESOURCES = ("compute", "memory", "interconnect")
Plan = dict[str, Any]


class Target(NamedTuple):
    """The devices that a plan is for.

    Attributes:
      topology: name on the command line.
      devices: devices of JAX.
      chip: published numbers of a device; ``None``: not known, so that times are not estimated.
      capacity: bytes of memory of a device.
    """

    topology: str
    devices: Sequence[Any]
    chip: hardware.Chip | None
    capacity: float


def find_target(topology: str) -> Target:
    """Find the devices of a topology, at hand or not.

    Raises:
      ValueError: an unknown one; lists what is allowed.
      ImportError: the TPU compiler is not installed.
    """
    if topology == hardware.LOCAL:
        devices = jax.devices()
        limit = (devices[0].memory_stats() or {}).get("bytes_limit")
        return Target(
            topology,
            devices,
            hardware.local_chip(devices[0].device_kind),
            limit or _physical_memory(len(devices)),
        )
    chip = hardware.slice_chip(topology)
    if not os.environ.get("TPU_LIBRARY_PATH") and importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            f"topology={topology!r} needs the TPU compiler: pip install -e '.[tpu]' (no TPU is needed)"
        )
    # No TPU is looked for or held: several plans may be made at a time, next to a run.
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    # It can write programs for devices that are not there, but not read them.
    jax.config.update("jax_enable_compilation_cache", False)
    _, _, shape = topology.partition(":")
    sides = [int(side) for side in shape.split("x")]
    host = [min(side, 2) for side in sides] + [1] * (3 - len(sides))
    host[2] = 1
    description = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, chips_per_host_bounds=host
    )
    return Target(topology, description.devices, chip, chip.memory)


def _physical_memory(devices: int) -> float:
    """Memory of this machine, shared by its CPU devices."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices


def sample_shapes(config: build.Config, method: Method) -> tuple[Batch, str]:
    """Find the shapes of a raw batch of one example, and say how they are known.

    From the images where they can be opened; else as for photographs, which vary in size and are cropped on the hosts.
    """
    data = config["data"]
    try:
        source = open_images(config, data["source"], data["split"])
        batch = sample_batch(source, method, crop_on=data["crop_on"])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch
        ), f"as in {data['source']}"
    except (ValueError, OSError, ImportError):
        channels, views = data["channels"] or 3, method.views
        sizes = [
            (1, len(group), views[group[0]].size, views[group[0]].size, channels) for group in groups(views)
        ]
        one = jax.ShapeDtypeStruct((1,), np.int32)
        crops = tuple(jax.ShapeDtypeStruct(size, np.uint8) for size in sizes)
        return {"crops": crops, "label": one, "index": one}, "8-bit colour images, cropped on the hosts"


def make_plan(config: build.Config, on: Target) -> Plan:
    """Compile the train step of a config for some devices and measure what it needs.

    Args:
      config: config of the run.
      on: devices, from :func:`find_target`.

    Returns:
      JSON-able; sizes in bytes and operations of one device, times in seconds. What the compiler says only of programs that fit
      is ``None`` for others.

    Raises:
      ValueError: a config that cannot run on so many devices.
    """
    method, optimizer = build.method(config), build.optimizer(config)
    rows, images = sample_shapes(config, method)
    devices, size = len(on.devices), config["batch_size"]
    require(size % devices == 0, "batch_size", size, f"a multiple of {devices} devices")
    mesh = build.mesh(config, devices=on.devices)
    parts = {name: config[name] for name in ("accumulate", "cached_gradients")}
    program = make_program(method, optimizer, rows, mesh, **parts)
    sharding = batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=sharding), rows
    )
    started = time.perf_counter()
    step: Any = program.step
    traced = step.trace(program.abstract, batch)
    flops = matmul_flops(traced.jaxpr)
    memory, moved, communication = _compile(traced.lower(), program, batch)
    sent = None if communication is None else sum(each.sent for each in communication)
    seconds = estimate_seconds(on.chip, flops=flops / devices, traffic=moved, sent=sent)
    total = sum(memory.values())
    return {
        "config": config,
        "topology": on.topology,
        "chip": on.chip.name if on.chip else on.devices[0].device_kind,
        "devices": devices,
        "mesh": dict(mesh.shape),
        "images": images,
        "memory": memory,
        "total": total,
        "capacity": on.capacity,
        "fits": moved is not None and total <= on.capacity,
        "flops": flops / devices,
        "traffic": moved,
        "collectives": None if communication is None else group_collectives(communication),
        "seconds": seconds,
        "compile_seconds": round(time.perf_counter() - started, 1),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("jax", "libtpu")
            if importlib.util.find_spec(name)
        },
    }


def _compile(
    lowered: Any, program: Program, batch: Batch
) -> tuple[dict[str, int], int | None, list[Collective] | None]:
    """Bytes by purpose, bytes read and written, and communication; the latter two are ``None`` where it does not fit."""
    state = program.abstract
    memory = {
        "parameters": bytes_per_device(state.params),
        "optimizer": bytes_per_device(state.opt_state),
        "state": bytes_per_device((state.state, state.step, state.key, state.finite)),
        "batch": bytes_per_device(batch),
    }
    arguments, ahead = sum(memory.values()), AHEAD * memory["batch"]
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = required_bytes(str(error), arguments)
        if needed is None:
            raise
        return {**memory, "ahead": ahead, "activations": needed - arguments}, None, None
    analysis, program_text = compiled.memory_analysis(), compiled.as_text()
    memory |= {
        "padding": analysis.argument_size_in_bytes - arguments,
        "ahead": ahead,
        "activations": analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }
    return memory, traffic(program_text), collectives(program_text)


def bytes_per_device(tree: PyTree) -> int:
    """Count the bytes of a tree of sharded shapes that one device holds.

    >>> from ssl_jax.train.sharding import make_mesh
    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> bytes_per_device(jax.ShapeDtypeStruct((4, 3), np.float32, sharding=batch_sharding(mesh)))
    48
    """
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_OUT_OF_MEMORY = (r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", r"HLO temporaries \(([\d.]+)([KMGT]?)\)")


def required_bytes(message: str, arguments: int) -> int | None:
    """Read the bytes that a program would need from the compiler's refusal; ``None``: it was another error.

    Args:
      message: message of the error.
      arguments: bytes of what goes into the program, which some messages leave out.

    >>> required_bytes("RESOURCE_EXHAUSTED: ... Used 2.00K of 1.00K hbm. Exceeded hbm capacity by 1.00K.", 100)
    2048
    """
    for pattern, base in zip(_OUT_OF_MEMORY, (0, arguments), strict=True):
        match = re.search(pattern, message)
        if match:
            return base + round(float(match[1]) * UNITS[match[2]])
    return None


def estimate_seconds(
    chip: hardware.Chip | None, *, flops: float, traffic: float | None, sent: float | None
) -> dict[str, float | None]:
    """Estimate the seconds that each resource of a device is busy at its published speed; ``None``: not known.

    >>> estimate_seconds(hardware.V5E, flops=197e12, traffic=819e9 / 2, sent=None)
    {'compute': 1.0, 'memory': 0.5, 'interconnect': None}
    """
    speeds = (chip.flops, chip.bandwidth, chip.interconnect) if chip else (None, None, None)
    amounts = zip(RESOURCES, (flops, traffic, sent), speeds, strict=True)
    return {part: amount / speed if amount is not None and speed else None for part, amount, speed in amounts}


def group_collectives(communication: Sequence[Collective]) -> list[dict[str, Any]]:
    """Add up communication by kind and number of devices: times, bytes of the arrays, bytes that a device sends; most first.

    >>> group_collectives([Collective("all-reduce", 8, 4, 2)])
    [{'kind': 'all-reduce', 'group': 4, 'count': 2, 'bytes': 16, 'sent': 24.0}]
    """
    kinds = dict.fromkeys((each.kind, each.group) for each in communication)
    rows: list[dict[str, Any]] = []
    for kind, group in kinds:
        same = [each for each in communication if (each.kind, each.group) == (kind, group)]
        rows.append(
            {
                "kind": kind,
                "group": group,
                "count": sum(each.times for each in same),
                "bytes": sum(each.times * each.size for each in same),
                "sent": sum(each.sent for each in same),
            }
        )
    return sorted(rows, key=lambda row: -row["sent"])


def propose_changes(config: build.Config, devices: int) -> Iterator[dict[str, Any]]:
    """Propose what to try on a config that does not fit, the least intrusive first: dotted names and values.

    Recomputation and sharding leave the numbers of the run as they are; smaller batches, last, do not.
    """
    encoder, least = config["encoder"], {"remat": True, "remat_keeps": "nothing"}
    remat = {f"encoder.{option}": v for option, v in least.items() if encoder.get(option, v) != v}
    sharded = config["host"]["fsdp"] in (-1, devices)
    fsdp = {} if sharded else {"host.data": 1, "host.fsdp": devices}
    yield from (change for change in (remat, fsdp) if change)
    if remat and fsdp:
        yield remat | fsdp
    size = config["batch_size"] // 2
    while size >= devices and size % devices == 0:
        yield remat | fsdp | {"batch_size": size}
        size //= 2


def find_remedy(config: build.Config, on: Target) -> dict[str, Any] | None:
    """Find the first of :func:`propose_changes` that fits, each compiled: the change, and its memory; ``None``: none does."""
    for change in propose_changes(config, len(on.devices)):
        follows = {"optimizer.batch_size": change["batch_size"]} if "batch_size" in change else {}
        plan = make_plan(build.with_changes(config, change | follows), on)
        if plan["fits"]:
            return {"change": change, **{name: plan[name] for name in ("total", "seconds")}}
    return None
