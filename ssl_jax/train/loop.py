"""The loop: batches in, state out, and in between logging, hooks, checkpoints and a stop that loses nothing."""

import logging

import jax
from jax.sharding import Mesh

from ssl_jax.core.check import require
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.input import Batches, open_stream
from ssl_jax.train.program import Program, make_program, sample_batch
from ssl_jax.train.refresh import Refresher
from ssl_jax.train.run import Fitted, Host, Run, Watch
from ssl_jax.train.session import Session
from ssl_jax.train.sharding import batch_sharding, make_mesh
from ssl_jax.train.signals import Stopped
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import StepFn

_log = logging.getLogger(__name__)

HERE = Host()
"""All devices along ``data``."""
UNWATCHED = Watch()
"""Progress is shown; nothing is kept."""


def fit(run: Run, host: Host = HERE, watch: Watch = UNWATCHED) -> Fitted:
    """Train a method on the images of a source.

    The data stream and all randomness are functions of ``(seed, step)``: a run that was killed and goes on from its last
    checkpoint ends in the same bits as one that was not.

    Args:
      run: what decides the result.
      host: where it happens.
      watch: what looks at it and saves it, and changes nothing.

    Returns:
      The state, and the signal that stopped the run, if one did. On SIGINT and SIGTERM the step under way is
      finished and saved. Waiting for data, a refresh and hooks are broken off; a run that goes on makes up for them.

    Raises:
      NonFiniteError: loss or gradient not finite; what is needed to replay the step has been dumped.
      ValueError: a batch size that the devices do not divide, or too many unreadable images.
    """
    mesh = make_mesh() if host.mesh is None else host.mesh
    _check(run, mesh)
    program = _program_of(run, mesh, host)
    refresher = Refresher(
        run.method,
        run.source,
        init=program.init,
        every=run.refresh_every,
        shardings=program.shardings,
        max_corrupt_fraction=run.max_corrupt_fraction,
    )
    batches = Batches(
        lambda step, among: open_stream(run, mesh, step, among, workers=host.workers), batch_sharding(mesh)
    )
    session = Session(
        _first_state(run, program, watch.checkpoints),
        steps=run.steps,
        images_per_step=run.batch_size,
        batches=batches,
        refresher=refresher,
        watch=watch,
        source=run.source.name,
    )
    return train_steps(session, program.step)


def train_steps(session: Session, train_step: StepFn) -> Fitted:
    """Make the steps of a run that are left.

    Args:
      session: holds the state, and does what happens around the steps.
      train_step: ``(state, batch) -> (state, metrics)``, the state donated. ``metrics["finite"]`` False ends the run with an
        error.

    Returns:
      How it ended.
    """
    stopped_by = ""
    with session:
        try:
            session.run_pending_hooks()
            for step in range(session.start, session.steps):
                batch = session.prepare(step)
                session.advance(step + 1, train_step, batch)
                session.observe(step + 1)
            session.finish()
        except Stopped as stopped:
            stopped_by = str(stopped)
    return Fitted(session.state, stopped_by, session.failures)


def _check(run: Run, mesh: Mesh) -> None:
    devices = mesh.devices.size
    divides = run.batch_size % devices == 0 and run.batch_size > 0
    require(divides, "batch_size", run.batch_size, f"a multiple of {devices} devices")
    require(run.steps >= 1, "steps", run.steps, "an integer of 1 or more")
    check_sizes(run)


def check_sizes(run: Run) -> None:
    """Check the batch and the number of images of a run, and warn where a batch holds images several times.

    Raises:
      ValueError: sizes for which the method means nothing, see :class:`ssl_jax.methods.method.Limits`.
    """
    images = len(run.source)
    parts = 1 if run.cached_gradients else run.accumulate
    run.method.limits.require(batch_size=run.batch_size, accumulate=parts, images=images)
    if run.batch_size > images:
        least = run.method.limits.least_batch * parts
        remedy = f"set {images} or less" if images >= least else f"this method needs {least} images or more"
        _log.warning(
            "batch_size=%d is more than the %s of %s: every batch holds some of them several times, which methods that "
            "compare images take for different ones; %s",
            *(run.batch_size, f"{images} image{'s' * (images > 1)}", run.source.name, remedy),
        )


def _program_of(run: Run, mesh: Mesh, host: Host) -> Program:
    if host.program is not None:
        return host.program
    sample = sample_batch(run.source, run.method, crop_on=run.crop_on)
    return make_program(
        run.method,
        run.optimizer,
        sample,
        mesh,
        rules=host.rules,
        accumulate=run.accumulate,
        cached_gradients=run.cached_gradients,
    )


def _first_state(run: Run, program: Program, checkpoints: Checkpoints | None) -> TrainState:
    """The last checkpoint, or the initialised state."""
    state = checkpoints.restore(program.abstract) if checkpoints else None
    if state is not None:
        return state
    state = program.init(run.seed)
    return state if run.init_state is None else jax.device_put(run.init_state(state), program.shardings)
