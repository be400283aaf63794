"""What a run needs, from its compiled step: the body of ``experiments.plan``."""

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
from ssl_jax.core.check import require
from ssl_jax.core.flops import matmul_flops
from ssl_jax.core.hlo import Collective, collectives, traffic
from ssl_jax.core.table import table
from ssl_jax.core.types import Batch, PyTree
from ssl_jax.methods.method import Method
from ssl_jax.train.program import Program, make_program, sample_batch
from ssl_jax.train.sharding import batch_sharding

AHEAD = 2
"""Batches that the loop places on the devices while a step runs."""
LIMITS = {"compute": "compute", "memory": "memory bandwidth", "interconnect": "interconnect"}
Plan = dict[str, Any]


class Target(NamedTuple):
    """The devices that a plan is for.

    Attributes:
      topology: as the command line calls it.
      devices: of JAX.
      chip: its published numbers; ``None``: not known, so that times are not estimated.
      capacity: bytes of memory of a device.
    """

    topology: str
    devices: Sequence[Any]
    chip: hardware.Chip | None
    capacity: float


def target(topology: str) -> Target:
    """The devices of a topology, there or not.

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
    described = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, chips_per_host_bounds=host
    )
    return Target(topology, described.devices, chip, chip.memory)


def _physical_memory(devices: int) -> float:
    """Of this machine, shared by its CPU devices."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices


def sample(config: build.Config, method: Method) -> tuple[Batch, str]:
    """Shapes of a raw batch of one example, and how they are known.

    From the images where they can be opened; else as for photographs, which vary in size and are cropped on the hosts.
    """
    data = config["data"]
    try:
        source = build.source(config, data["source"], data["split"])
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


def plan(config: build.Config, on: Target) -> Plan:
    """What a step of a config needs on some devices; compiles it.

    Args:
      config: plain.
      on: from :func:`target`.

    Returns:
      JSON-able; sizes in bytes and operations of one device, times in seconds. What the compiler says only of programs that fit
      is ``None`` for others.

    Raises:
      ValueError: a config that cannot run on so many devices.
    """
    method, optimizer = build.method(config), build.optimizer(config)
    rows, images = sample(config, method)
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
    memory, moved, found = _compile(traced.lower(), program, batch)
    sent = None if found is None else sum(each.sent for each in found)
    seconds = times(on.chip, flops=flops / devices, traffic=moved, sent=sent)
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
        "collectives": None if found is None else grouped(found),
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
        "parameters": held(state.params),
        "optimizer": held(state.opt_state),
        "state": held((state.state, state.step, state.key, state.finite)),
        "batch": held(batch),
    }
    arguments, ahead = sum(memory.values()), AHEAD * memory["batch"]
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = bytes_needed(str(error), arguments)
        if needed is None:
            raise
        return {**memory, "ahead": ahead, "activations": needed - arguments}, None, None
    found, program_text = compiled.memory_analysis(), compiled.as_text()
    memory |= {
        "padding": found.argument_size_in_bytes - arguments,
        "ahead": ahead,
        "activations": found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes,
        "program": found.generated_code_size_in_bytes,
    }
    return memory, traffic(program_text), collectives(program_text)


def held(tree: PyTree) -> int:
    """Bytes of a tree of sharded shapes that one device holds.

    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> held(jax.ShapeDtypeStruct((4, 3), np.float32, sharding=batch_sharding(mesh)))
    48
    """
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_OUT_OF_MEMORY = (r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", r"HLO temporaries \(([\d.]+)([KMGT]?)\)")


def bytes_needed(message: str, arguments: int) -> int | None:
    """Bytes that a program would need, from the error with which the compiler refused it; ``None``: it was another error.

    Args:
      message: of the error.
      arguments: bytes of what goes into the program, which some messages leave out.

    >>> bytes_needed("RESOURCE_EXHAUSTED: ... Used 2.00K of 1.00K hbm. Exceeded hbm capacity by 1.00K.", 100)
    2048
    """
    for pattern, base in zip(_OUT_OF_MEMORY, (0, arguments), strict=True):
        found = re.search(pattern, message)
        if found:
            return base + round(float(found[1]) * UNITS[found[2]])
    return None


def times(
    chip: hardware.Chip | None, *, flops: float, traffic: float | None, sent: float | None
) -> dict[str, float | None]:
    """Seconds that each resource of a device is busy at its published speed; ``None`` where something is not known.

    >>> times(hardware.V5E, flops=197e12, traffic=819e9 / 2, sent=None)
    {'compute': 1.0, 'memory': 0.5, 'interconnect': None}
    """
    speeds = (chip.flops, chip.bandwidth, chip.interconnect) if chip else (None, None, None)
    amounts = zip(LIMITS, (flops, traffic, sent), speeds, strict=True)
    return {part: amount / speed if amount is not None and speed else None for part, amount, speed in amounts}


def grouped(found: Sequence[Collective]) -> list[dict[str, Any]]:
    """Communication by kind and number of devices: how often, bytes of the arrays, bytes that a device sends; most first.

    >>> grouped([Collective("all-reduce", 8, 4, 2)])
    [{'kind': 'all-reduce', 'group': 4, 'count': 2, 'bytes': 16, 'sent': 24.0}]
    """
    kinds = dict.fromkeys((each.kind, each.group) for each in found)
    rows: list[dict[str, Any]] = []
    for kind, group in kinds:
        same = [each for each in found if (each.kind, each.group) == (kind, group)]
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


def changes(config: build.Config, devices: int) -> Iterator[dict[str, Any]]:
    """What to try on a config that does not fit, the least intrusive first: dotted names and values.

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


def remedy(config: build.Config, on: Target) -> dict[str, Any] | None:
    """The first of :func:`changes` that fits, each compiled: what to change, and its memory; ``None``: none does."""
    for change in changes(config, len(on.devices)):
        follows = {"optimizer.batch_size": change["batch_size"]} if "batch_size" in change else {}
        found = plan(build.changed(config, change | follows), on)
        if found["fits"]:
            return {"change": change, **{name: found[name] for name in ("total", "seconds")}}
    return None


PURPOSES = {
    "parameters": "parameters",
    "optimizer": "optimizer",
    "state": "teacher and other state",
    "batch": "batch",
    "padding": "padding of these, less what is unused",
    "ahead": f"{AHEAD} batches ahead",
    "activations": "activations and temporaries",
    "program": "program",
}


def name(plan: Plan) -> str:
    """Name a plan by what it compiles and for what."""
    config = plan["config"]
    words = (
        config["method"]["name"],
        config["encoder"]["name"],
        config["batch_size"],
        plan["topology"].replace(":", "_"),
    )
    return "-".join(map(str, (*words, *(word.replace(" ", "") for word in _savings(plan)))))


def _savings(plan: Plan) -> list[str]:
    """What the config does to need less memory."""
    split, encoder = plan["mesh"]["fsdp"], plan["config"]["encoder"]
    keeps = encoder.get("remat_keeps", "nothing")
    remat = "remat" if keeps == "nothing" else f"remat-but-{keeps}"
    return [*([f"fsdp {split}"] if split > 1 else []), *([remat] if encoder.get("remat") else [])]


def bounds(plan: Plan) -> tuple[float, float] | None:
    """Seconds of a step: where all resources work at the same time, and where none does; ``None``: not known."""
    known = list(plan["seconds"].values())
    return None if None in known else (max(known), sum(known))


def limit(plan: Plan) -> str:
    """The resource that is busy longest."""
    seconds = plan["seconds"]
    return LIMITS[max(seconds, key=lambda resource: seconds[resource])] if bounds(plan) else "–"


def text(plan: Plan) -> str:
    """A plan to read."""
    config, mesh = plan["config"], plan["mesh"]
    lines = [
        f"{config['method']['name']}, {config['encoder']['name']}, batch {config['batch_size']}, {config['steps']} steps: "
        f"{plan['devices']} x {plan['chip']} ({plan['topology']}), mesh data={mesh['data']} fsdp={mesh['fsdp']}",
        f"images: {plan['images']}",
        "",
        table(
            [
                {"memory of a device": PURPOSES[part], "GB": size / 1e9}
                for part, size in plan["memory"].items()
            ],
            digits=3,
        ),
        f"total {plan['total'] / 1e9:.3f} of {plan['capacity'] / 1e9:.1f} GB: {verdict(plan)}",
        "",
        f"a step of a device: {plan['flops'] / 1e12:.3g} TFLOPs of matrix products and convolutions",
    ]
    if plan["traffic"] is not None:
        lines.append(f"its memory is read and written: {plan['traffic'] / 1e9:.3g} GB")
    if plan["collectives"]:
        rows = [
            {
                "communication": row["kind"],
                "devices": row["group"],
                "times": row["count"],
                "MB": row["bytes"] / 1e6,
                "MB sent": row["sent"] / 1e6,
            }
            for row in plan["collectives"]
        ]
        lines += ["", table(rows)]
    found = bounds(plan)
    if found:
        seconds = [f"{LIMITS[part]} {1e3 * value:.1f} ms" for part, value in plan["seconds"].items()]
        images = [config["batch_size"] / second for second in found]
        hours = [config["steps"] * second / 3600 for second in found]
        lines += [
            "",
            f"at published speeds: {', '.join(seconds)}; the limit is {limit(plan)}",
            f"a step takes {1e3 * found[0]:.1f} ms if all of this overlaps, {1e3 * found[1]:.1f} ms if nothing does: "
            f"{images[0]:,.0f} to {images[1]:,.0f} images/s, {hours[0]:.1f} to {hours[1]:.1f} hours",
        ]
    return "\n".join(lines) + "\n"


def verdict(plan: Plan) -> str:
    """Whether it fits, and else what would."""
    if plan["fits"]:
        return "fits"
    if "remedy" not in plan:
        return "does not fit"
    found = plan["remedy"]
    if found is None:
        return "does not fit, nor does anything that was tried"
    options = " ".join(f"--config.{path}={value}" for path, value in found["change"].items())
    return f"does not fit; {options} would, with {found['total'] / 1e9:.1f} GB"


def plans_table(plans: Sequence[Plan], *, markdown: bool = False) -> str:
    """One row a plan."""
    rows = []
    for plan in plans:
        config, memory, found = plan["config"], plan["memory"], bounds(plan)
        kept = sum(memory[part] for part in ("parameters", "optimizer", "state"))
        sent = None if plan["collectives"] is None else sum(row["sent"] for row in plan["collectives"])
        rows.append(
            {
                "run": f"{config['method']['name']}, {config['encoder']['name']}, batch {config['batch_size']}",
                "devices": ", ".join([plan["topology"], *_savings(plan)]),
                "kept, GB": kept / 1e9,
                "activations, GB": memory["activations"] / 1e9,
                "total, GB": f"{plan['total'] / 1e9:.1f} of {plan['capacity'] / 1e9:.0f}",
                "TFLOPs": plan["flops"] / 1e12,
                "traffic, GB": None if plan["traffic"] is None else plan["traffic"] / 1e9,
                "sent, GB": None if sent is None else f"{sent / 1e9:.2f}",
                "step, ms": None if found is None else f"{1e3 * found[0]:.0f} to {1e3 * found[1]:.0f}",
                "images/s": None
                if found is None
                else f"{config['batch_size'] / found[1]:,.0f} to {config['batch_size'] / found[0]:,.0f}",
                "hours": None
                if found is None
                else f"{config['steps'] * found[0] / 3600:.1f} to {config['steps'] * found[1] / 3600:.1f}",
                "limit": limit(plan) if found else None,
                "verdict": verdict(plan).replace("--config.", ""),
            }
        )
    return table(rows, markdown=markdown)
