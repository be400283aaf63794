"""One run on several processes: how they find each other, and how they end."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
from absl import flags

from ssl_jax.cli import launch


class Cluster(NamedTuple):
    """How the processes of a run find each other; the defaults are one process alone.

    Attributes:
      distributed: they find each other by themselves: TPU pod, SLURM, GKE, Open MPI.
      coordinator: ``HOST:PORT`` of process 0, for several processes elsewhere.
      processes: how many there are.
      process: which of them this is, from 0.
      heartbeat: seconds without a sign of life of one process after which the others stop.
    """

    distributed: bool = False
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    heartbeat: int = 60


def define_flags() -> Callable[[], Cluster]:
    """Define a flag for each field of :class:`Cluster`; what is returned reads them."""
    by_themselves = flags.DEFINE_bool(
        "distributed",
        False,
        "One of several processes that find each other by themselves: TPU pod, SLURM, GKE, Open MPI.",
    )
    coordinator = flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, for several processes elsewhere; with --processes, --process.",
    )
    processes = flags.DEFINE_integer("processes", None, "How many there are.", lower_bound=1)
    process = flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
    heartbeat = flags.DEFINE_integer(
        "heartbeat",
        60,
        "Seconds without a sign of life of one process after which the others stop.",
        lower_bound=5,
    )
    return lambda: Cluster(
        by_themselves.value, coordinator.value, processes.value, process.value, heartbeat.value
    )


LOST = (
    "another process of this run ended or cannot be reached; the first error that one of them printed says why. "
    "Start all of them again: the run goes on from its last checkpoint"
)


@contextmanager
def distributed(cluster: Cluster) -> Iterator[None]:
    """Be one of several processes if there are several; to be entered before anything asks for devices.

    All of them run the same program, each loads its part of every batch, and process 0 alone writes. A process that ends with
    an error ends at once, for the others wait for it in the step; these then stop with an error too: at once where the
    network tells them, after ``cluster.heartbeat`` seconds otherwise.

    Raises:
      ValueError: fields that do not fit together, or processes that do not find each other by themselves.
    """
    _initialize(cluster)
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):
            launch.print_error(RuntimeError(f"{LOST} ({str(error).splitlines()[0][:200]})"))
        elif isinstance(error, launch.USER_ERRORS):
            launch.print_error(error)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # Leaving by the front door would wait for the others.
        os._exit(1)


def print_once(text: str) -> None:
    """Print a line at once, by the first process only."""
    if jax.process_index() == 0:
        print(text, flush=True)


def _initialize(cluster: Cluster) -> None:
    address, count, index = cluster.coordinator, cluster.processes, cluster.process
    if address is not None and count is not None and index is not None:
        if index >= count:
            raise ValueError(f"--process={index}: allowed is 0 to {count - 1}")
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 2**16):
            raise ValueError(
                f"--coordinator={address}: allowed is HOST:PORT, a port from 1 to 65535, such as 10.0.0.1:1234"
            )
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=cluster.heartbeat)
    elif (address, count, index) != (None, None, None):
        raise ValueError("--coordinator, --processes and --process go together: give all three")
    elif cluster.distributed:
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=cluster.heartbeat)
        except ValueError as error:
            raise ValueError(
                f"--distributed: there is no TPU pod, SLURM, GKE or Open MPI job here that JAX knows of ({error}); give "
                "--coordinator=HOST:PORT --processes=N --process=K"
            ) from error
