"""Several runs of one shape as one vmapped program: what ``experiments.sweep`` compiles once."""

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax.cli import pretrain
from ssl_jax.cli.search_space import SEED, Trial
from ssl_jax.config import build
from ssl_jax.core.check import require
from ssl_jax.core.files import remove_tree
from ssl_jax.core.types import Batch, PyTree
from ssl_jax.data.fingerprint import fingerprint
from ssl_jax.data.labels import with_all_labels
from ssl_jax.train import checkpoint
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.input import Batches, StackedStreams, open_stream
from ssl_jax.train.loop import check_sizes, train_steps
from ssl_jax.train.program import Program, sample_batch
from ssl_jax.train.refresh import Refresher
from ssl_jax.train.run import Hook, Run, Watch
from ssl_jax.train.session import Session
from ssl_jax.train.sharding import AXES, replicated
from ssl_jax.train.signals import StopRequest
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import make_init, make_train_step
from ssl_jax.train.workdir import INCIDENTAL, Workdir
from ssl_jax.train.writers import MultiWriter, Writer, call_all

TRACED = ("method.", "optimizer.")
"""Parts of a config whose float options may be traced."""


class NotTraceableError(ValueError):
    """An option decides about shapes or about which code runs."""


class Trained(NamedTuple):
    """How the training of vectorized runs ended.

    Attributes:
      stopped_by: the signal that ended it early; empty if it is complete.
      finite: of each run, whether every step so far was finite.
    """

    stopped_by: str
    finite: list[bool]


def obstacle(config: build.Config, overrides: Mapping[str, Any]) -> str:
    """Say why runs that differ in these options cannot be one program; empty if they can."""
    if config.get("refresh_every", 0):
        return f"{config['method']['name']} looks at all images between steps"
    if config["encoder"].get("weights"):
        return "they start from weights"
    for path in overrides:
        value = functools.reduce(lambda part, name: part[name], path.split("."), config)
        if path != SEED and not (path.startswith(TRACED) and isinstance(value, float)):
            return f"{path} is neither the seed nor a number with decimals of method or optimizer"
    return ""


def make_vectorized_program(trials: Sequence[Trial], rows: Batch, mesh: Mesh) -> Program:
    """Jit initialisation and step of all runs; options in which they differ are traced.

    Args:
      trials: of one shape: :func:`obstacle` finds nothing.
      rows: a raw batch of one example, for its shapes.
      mesh: over which every run's batch is split.

    Returns:
      A program whose state and metrics have an axis of runs in front, and whose batches one of distinct seeds. ``init`` takes
      the seed of each run. ``finite`` is always True of the whole: a run that is not finite stands still, the others go on.

    Raises:
      NotTraceableError: a single run could have these options, vectorized runs cannot.
    """
    config = trials[0].config
    if build.method(config).refresh is not None:
        raise NotTraceableError(f"{config['method']['name']} looks at all images before the first step")
    names = [name for name in trials[0].overrides if name != SEED]
    values = {name: np.array([trial.overrides[name] for trial in trials], np.float32) for name in names}
    seeds, which = distinct([trial.config[SEED] for trial in trials])
    loop_views = None if mesh.size == 1 else False

    def build_parts(overrides: Mapping[str, Any]) -> tuple[Any, Any]:
        varied = build.with_changes(config, overrides)
        return build.method(varied), build.optimizer(varied)

    def init_one(overrides: Mapping[str, Any], seed: Any) -> PyTree:
        return make_init(*build_parts(overrides), rows)(seed)

    def step_one(overrides: Mapping[str, Any], state: PyTree, batch: Batch) -> Any:
        options = {name: config[name] for name in ("accumulate", "cached_gradients")}
        return make_train_step(*build_parts(overrides), **options, loop_views=loop_views)(state, batch)

    def init(seeds: Any) -> PyTree:
        return jax.vmap(init_one)(values, seeds)

    def step(state: PyTree, batches: Batch) -> Any:
        if len(seeds) == 1:
            batch = jax.tree.map(lambda x: x[0], batches)
            state, metrics = jax.vmap(step_one, (0, 0, None))(values, state, batch)
        else:
            state, metrics = jax.vmap(step_one)(values, state, jax.tree.map(lambda x: x[which], batches))
        return state, {**metrics, "finite": True}

    batches = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(seeds), config["batch_size"], *x.shape[1:]), x.dtype), rows
    )
    try:
        abstract = jax.eval_shape(init, np.array(seeds)[which])
        jax.eval_shape(step, abstract, batches)
    except jax.errors.JAXTypeError as error:
        raise NotTraceableError(
            f"{', '.join(names)} cannot be traced by {config['method']['name']}"
        ) from error
    everywhere = replicated(mesh)
    return Program(
        jax.jit(init, out_shardings=everywhere),
        jax.jit(step, donate_argnums=0, out_shardings=(everywhere, None)),
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), abstract),
    )


def distinct(seeds: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """List the different seeds, and for each run the position of its own among them.

    >>> distinct([3, 5, 3])
    ([3, 5], array([0, 1, 0]))
    """
    different = list(dict.fromkeys(seeds))
    return different, np.array([different.index(seed) for seed in seeds])


class EachRun:
    """A hook that calls another one with the state of each run; scalars become lists."""

    def __init__(self, hook: Hook, count: int) -> None:
        self.every, self._hook, self._count = hook.every, hook, count
        self.name = getattr(hook, "name", type(hook).__name__)

    def __call__(self, step: int, state: TrainState) -> dict[str, list[float]]:
        """Return the scalars of all runs."""
        rows = [self._hook(step, state_of(state, number)) for number in range(self._count)]
        return {name: [row[name] for row in rows] for name in rows[0]}


class SplitWriter(MultiWriter):
    """Hands to each writer its own of lists of scalars; what there is one of for all runs, such as speed, is left out."""

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Record the scalars of one step, those of each run with its writer."""
        lists = {name: values for name, values in scalars.items() if isinstance(values, list)}
        call_all(
            functools.partial(writer.write, step, {name: values[number] for name, values in lists.items()})
            for number, writer in enumerate(self.writers)
        )


def train(trials: Sequence[Trial], scratch: Path) -> Trained:
    """Train all runs to their end; each leaves in its folder what ``experiments.pretrain`` would.

    A run whose loss or gradient is not finite stands still from there on, the others go on. The same call again goes on from
    the last checkpoint of them together.

    Args:
      trials: of one shape.
      scratch: folder for the checkpoints of all runs together, removed at the end.

    Returns:
      How it ended.

    Raises:
      NotTraceableError: the runs cannot be one program.
      ValueError: arrays are to be sharded.
    """
    config = trials[0].config
    mesh = build.mesh(config)
    sharded = mesh.shape["fsdp"]
    require(sharded == 1, "host.fsdp", sharded, "1 for vectorized runs; --mode=processes shards")
    runs = runs_of_seeds(trials)
    check_sizes(runs[0])
    sample = sample_batch(runs[0].source, runs[0].method, crop_on=runs[0].crop_on)
    program = make_vectorized_program(trials, sample, mesh)
    images = fingerprint(runs[0].source)
    with ExitStack() as stack:
        stack.enter_context(StopRequest())
        for trial in trials:
            workdir = stack.enter_context(Workdir(trial.folder))
            workdir.configure(trial.config, allowed=INCIDENTAL)
            workdir.record_images(images, ties=pretrain.ties_of(trial.config, runs[0].method))
        checkpoints = stack.enter_context(_open_checkpoints(trials, scratch))
        state = checkpoints.restore(program.abstract)
        if state is None:
            state = program.init(np.array([trial.config[SEED] for trial in trials]))
        session = _open_session(trials, runs, program, mesh, state, checkpoints)
        del state
        fitted = train_steps(session, program.step)
        finite = fitted.state.finite.tolist()
        if fitted.stopped_by:
            return Trained(fitted.stopped_by, finite)
        for number, trial in enumerate(trials):
            save_last(trial, state_of(fitted.state, number))
    remove_tree(scratch)
    return Trained("", finite)


def runs_of_seeds(trials: Sequence[Trial]) -> list[Run]:
    """Make one run for each distinct seed, which says what images come, and which labels are there if most are hidden."""
    seeds, which = distinct([trial.config[SEED] for trial in trials])
    configs = [trials[int(np.argmax(which == k))].config for k in range(len(seeds))]
    return [build.run(config, build.run_objects(config)) for config in configs]


def _open_checkpoints(trials: Sequence[Trial], scratch: Path) -> Checkpoints:
    options = trials[0].config["watch"]["checkpoint"]
    metadata = {"trials": [dict(trial.overrides) for trial in trials]}
    return Checkpoints(scratch, every=options["every"], keep=options["keep"], metadata=metadata)


def _open_session(
    trials: Sequence[Trial],
    runs: Sequence[Run],
    program: Program,
    mesh: Mesh,
    state: TrainState,
    checkpoints: Checkpoints,
) -> Session:
    config, run = trials[0].config, runs[0]
    workers = config["host"]["workers"]

    def open_streams(step: int, among: np.ndarray | None) -> StackedStreams:
        return StackedStreams([open_stream(each, mesh, step, among, workers=workers) for each in runs])

    def open_writers(step: int) -> Writer:
        return SplitWriter(
            [
                pretrain.open_writer(trial.folder, trial.config, build.method(trial.config), step)
                for trial in trials
            ]
        )

    hooks = pretrain.make_hooks(config, run.method, with_all_labels(run.source))
    return Session(
        state,
        steps=run.steps,
        images_per_step=run.batch_size * len(trials),
        batches=Batches(open_streams, NamedSharding(mesh, PartitionSpec(None, AXES))),
        refresher=Refresher(run.method, run.source, init=program.init, every=0, shardings=program.shardings),
        watch=Watch(
            writer=open_writers,
            hooks=[EachRun(hook, len(trials)) for hook in hooks],
            checkpoints=checkpoints,
            log_every=config["watch"]["log"]["every"],
            stall_seconds=config["watch"]["log"]["stall_seconds"],
        ),
        source=run.source.name,
    )


def state_of(state: PyTree, number: int) -> PyTree:
    """Pick the state of one run."""
    return jax.tree.map(lambda x: x[number], state)


def save_last(trial: Trial, state: TrainState) -> None:
    """Save what a run of its own would at its end; of one that diverged, the state before the bad step."""
    folder, step = trial.folder / "checkpoints", int(state.step)
    if step not in checkpoint.steps(folder):
        with Checkpoints(folder, every=step or 1, metadata=trial.config) as checkpoints:
            checkpoints.save(step, state)
