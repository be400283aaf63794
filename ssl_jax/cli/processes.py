"""One run on several processes: how they find each other, and how they end."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from absl import flags

from ssl_jax.cli import launch

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes that find each other by themselves: TPU pod, SLURM, GKE, Open MPI.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, for several processes elsewhere; with --processes, --process.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many there are.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat",
    60,
    "Seconds without a sign of life of one process after which the others stop.",
    lower_bound=5,
)

LOST = (
    "another process of this run ended or cannot be reached; the first error that one of them printed says why. "
    "Start all of them again: the run goes on from its last checkpoint"
)


@contextmanager
def joined() -> Iterator[None]:
    """Be one of several processes if the flags say so; to be entered before anything asks for devices.

    All of them run the same program, each loads its part of every batch, and process 0 alone writes. A process that ends with
    an error ends at once, for the others wait for it in the step; these then stop with an error too: at once where the
    network tells them, after ``--heartbeat`` seconds otherwise.

    Raises:
      ValueError: flags that do not fit together, or processes that do not find each other by themselves.
    """
    _initialize()
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):
            launch.say(RuntimeError(f"{LOST} ({str(error).splitlines()[0][:200]})"))
        elif isinstance(error, launch.USER_ERRORS):
            launch.say(error)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # Leaving by the front door would wait for the others.
        os._exit(1)


def _initialize() -> None:
    address, count, index = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
    patience = _HEARTBEAT.value
    if address is not None and count is not None and index is not None:
        if index >= count:
            raise ValueError(f"--process={index}: allowed is 0 to {count - 1}")
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=patience)
    elif (address, count, index) != (None, None, None):
        raise ValueError("--coordinator, --processes and --process go together: give all three")
    elif _DISTRIBUTED.value:
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=patience)
        except ValueError as error:
            raise ValueError(
                f"--distributed: there is no TPU pod, SLURM, GKE or Open MPI job here that JAX knows of ({error}); give "
                "--coordinator=HOST:PORT --processes=N --process=K"
            ) from error
