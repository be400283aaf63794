"""Several runs of one shape as lanes of one program: what ``experiments.sweep`` compiles once."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import pretrain
from ssl_jax.cli.search_space import SEED, Run
from ssl_jax.config import build
from ssl_jax.core.check import require
from ssl_jax.core.types import Batch, PyTree
from ssl_jax.data.labels import with_all_labels
from ssl_jax.data.loader import Stream, stream
from ssl_jax.data.place import local_share, prefetch
from ssl_jax.train.checkpoint import Checkpoints, steps
from ssl_jax.train.loop import sample_batch
from ssl_jax.train.progress import Progress
from ssl_jax.train.sharding import AXES, batch_sharding, replicated
from ssl_jax.train.signals import StopRequest
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import make_init, make_train_step
from ssl_jax.train.workdir import INCIDENTAL, Workdir

TRACED = ("method.", "optimizer.")
"""Parts of a config whose float options may be traced."""


class NotTraceableError(ValueError):
    """An option decides about shapes or about which code runs."""


class Trained(NamedTuple):
    """How the training of lanes ended.

    Attributes:
      stopped_by: the signal that ended it early; empty if it is complete.
      finite: of each lane, whether every step so far was finite.
    """

    stopped_by: str
    finite: list[bool]


class Program(NamedTuple):
    """The lanes, compiled together.

    Attributes:
      init: ``() -> TrainState``, every array with an axis of lanes in front.
      step: ``(state, batches) -> (state, metrics)`` of all lanes; the batches have an axis of distinct seeds in front.
      abstract: shapes, dtypes and shardings of the state.
    """

    init: Any
    step: Any
    abstract: PyTree


def obstacle(config: build.Config, point: Mapping[str, Any]) -> str:
    """Why runs that differ in these options cannot be lanes of one program; empty if they can."""
    if config.get("refresh_every", 0):
        return f"{config['method']['name']} looks at all images between steps"
    for path in point:
        part, _, name = path.partition(".")
        traced = path.startswith(TRACED) and isinstance(config[part].get(name), float)
        if path != SEED and not traced:
            return f"{path} is neither the seed nor a number with decimals of method or optimizer"
    return ""


def make_lanes(lanes: Sequence[Run], rows: Batch, mesh: Mesh) -> Program:
    """Jit initialisation and step of all lanes; options in which they differ are traced.

    Args:
      lanes: of one shape: :func:`obstacle` finds nothing.
      rows: a raw batch of one example, for its shapes.
      mesh: over which every lane's batch is split.

    Raises:
      NotTraceableError: a single run could have these options, lanes cannot.
    """
    config = lanes[0].config
    names = [name for name in lanes[0].point if name != SEED]
    values = {name: np.array([lane.point[name] for lane in lanes], np.float32) for name in names}
    seeds, which = distinct([lane.config[SEED] for lane in lanes])
    loop_views = None if mesh.size == 1 else False

    def parts(point: Mapping[str, Any]) -> tuple[Any, Any]:
        own = build.changed(config, point)
        return build.method(own), build.optimizer(own)

    def init_one(point: Mapping[str, Any], seed: Any) -> PyTree:
        return make_init(*parts(point), rows)(seed)

    def step_one(point: Mapping[str, Any], state: PyTree, batch: Batch) -> Any:
        options = {name: config[name] for name in ("accumulate", "cached_gradients")}
        return make_train_step(*parts(point), **options, loop_views=loop_views)(state, batch)

    def init() -> PyTree:
        return jax.vmap(init_one)(values, np.array(seeds)[which])

    def step(state: PyTree, batches: Batch) -> Any:
        if len(seeds) == 1:
            return jax.vmap(step_one, (0, 0, None))(values, state, jax.tree.map(lambda x: x[0], batches))
        return jax.vmap(step_one)(values, state, jax.tree.map(lambda x: x[which], batches))

    whole = replicated(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(seeds), config["batch_size"], *x.shape[1:]), x.dtype), rows
    )
    try:
        abstract = jax.eval_shape(init)
        jax.eval_shape(step, abstract, batch)
    except jax.errors.JAXTypeError as error:
        raise NotTraceableError(
            f"{', '.join(names)} cannot be traced by {config['method']['name']}"
        ) from error
    return Program(
        jax.jit(init, out_shardings=whole),
        jax.jit(step, donate_argnums=0, out_shardings=(whole, None)),
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract),
    )


def distinct(seeds: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """The different seeds, and for each lane the place of its own among them.

    >>> distinct([3, 5, 3])
    ([3, 5], array([0, 1, 0]))
    """
    found = list(dict.fromkeys(seeds))
    return found, np.array([found.index(seed) for seed in seeds])


class _Together(Iterator[Batch]):
    """Batches of several seeds, along a new axis in front."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams

    def __next__(self) -> Batch:
        return jax.tree.map(lambda *x: np.stack(x), *(next(each) for each in self._streams))

    def close(self) -> None:
        for each in self._streams:
            each.close()


def train(lanes: Sequence[Run], scratch: Path) -> Trained:
    """Train all lanes to their end; each leaves in its folder what ``experiments.pretrain`` would.

    A lane whose loss or gradient is not finite stands still from there on, the others go on. The same call again goes on from
    the last checkpoint of the lanes.

    Args:
      lanes: of one shape.
      scratch: folder for the checkpoints of all lanes together, removed at the end.

    Returns:
      How it ended.

    Raises:
      NotTraceableError: the lanes cannot be one program.
      ValueError: arrays are to be sharded.
    """
    config = lanes[0].config
    mesh = build.mesh(config)
    require(mesh.shape["fsdp"] == 1, "host.fsdp", mesh.shape["fsdp"], "1 for lanes; --mode=processes shards")
    method = build.method(config)
    data, batch_size = config["data"], config["batch_size"]
    seeds, which = distinct([lane.config[SEED] for lane in lanes])
    # The seed says which labels are there, of sources where most are hidden.
    sources = [build.parts(lanes[int(np.argmax(which == k))].config).source for k in range(len(seeds))]
    program = make_lanes(lanes, sample_batch(sources[0], method, crop_on=data["crop_on"]), mesh)
    hooks = pretrain.hooks(config, method, with_all_labels(sources[0]))
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        for lane in lanes:
            workdir = stack.enter_context(Workdir(lane.folder))
            workdir.configure(lane.config, allowed=INCIDENTAL)
        saving = {
            "every": config["watch"]["checkpoint"]["every"],
            "keep": config["watch"]["checkpoint"]["keep"],
        }
        points = [dict(lane.point) for lane in lanes]
        checkpoints = stack.enter_context(Checkpoints(scratch, metadata={"points": points}, **saving))
        state = checkpoints.restore(program.abstract)
        state = program.init() if state is None else state
        start = int(np.max(state.step))
        writers = [
            pretrain.open_writer(lane.folder, lane.config, build.method(lane.config), start) for lane in lanes
        ]
        for writer in writers:
            stack.callback(writer.close)
        index, count = local_share(batch_sharding(mesh), batch_size)
        streams = [
            stream(
                source,
                views=method.views,
                crop_on=data["crop_on"],
                seed=seed,
                batch_size=batch_size,
                start_step=start,
                workers=config["host"]["workers"],
                max_corrupt_fraction=data["max_corrupt_fraction"],
                process_index=index,
                process_count=count,
                labeled_fraction=build.labeled_fraction(config),
            )
            for seed, source in zip(seeds, sources, strict=True)
        ]
        batches = stack.enter_context(
            prefetch(_Together(streams), NamedSharding(mesh, PartitionSpec(None, AXES)))
        )
        progress = Progress(config["steps"], start, batch_size * len(lanes))
        stack.callback(progress.close)

        def due(step: int, every: int) -> bool:
            return step % every == 0 or step == config["steps"]

        for step in range(start + 1, config["steps"] + 1):
            state, metrics = program.step(state, next(batches))
            if due(step, config["watch"]["log"]["every"]):
                metrics = jax.device_get(metrics)
                progress.report(step, {"loss": float(np.mean(metrics["loss"]))})
                for number, writer in enumerate(writers):
                    writer.write(step, {name: x[number] for name, x in metrics.items() if name != "finite"})
            for hook in (hook for hook in hooks if due(step, hook.every)):
                for number, writer in enumerate(writers):
                    writer.write(step, hook(step, lane_of(state, number)))
            if due(step, checkpoints.every):
                checkpoints.save(step, state)
            if stop.requested:
                checkpoints.save(step, state)
                return Trained(stop.requested, state.finite.tolist())
        checkpoints.wait()
        for number, lane in enumerate(lanes):
            keep(lane, lane_of(state, number))
    shutil.rmtree(scratch, ignore_errors=True)
    return Trained("", state.finite.tolist())


def lane_of(state: PyTree, number: int) -> PyTree:
    """The state of one lane."""
    return jax.tree.map(lambda x: x[number], state)


def keep(lane: Run, state: TrainState) -> None:
    """The checkpoint that a run of its own would leave at its end; of a lane that diverged, that before the bad step."""
    folder, step = lane.folder / "checkpoints", int(state.step)
    if step not in steps(folder):
        with Checkpoints(folder, every=step or 1, metadata=lane.config) as checkpoints:
            checkpoints.save(step, state)
