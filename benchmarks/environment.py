"""The process that measures: the tuned environment of the launchers, and thread pools that do not spin."""

import itertools
import os
import sys

from ssl_jax.cli import cpu

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""Idle OpenMP threads sleep. Spinning ones (the default) would take cores from the other side."""

SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""JAX leaves memory of an accelerator to the other side."""

DONE = "SSL_JAX_BENCHMARK_READY"
"""Set in a process that was started again."""

SHOWN = (*cpu.MALLOC, "XLA_FLAGS", *PASSIVE, *SHARED)
"""Variables that a result file records."""


def prepared(environment: dict[str, str], *, accelerated: bool) -> dict[str, str]:
    """The environment to measure in, from the one found: what ``python -m experiments.<verb>`` sets, and
    ``PASSIVE``.

    Variables that are set already are left alone. An accelerator gets ``PASSIVE`` and ``SHARED``.

    >>> prepared({}, accelerated=True)["KMP_BLOCKTIME"]
    '0'
    """
    wanted = dict(environment, **{DONE: "1", "SSL_JAX_TUNE_CPU": "0"})
    for name, value in {**PASSIVE, **(SHARED if accelerated else cpu.MALLOC)}.items():
        wanted.setdefault(name, value)
    flags = wanted.get("XLA_FLAGS", "")
    known = not accelerated and cpu.jaxlib_knows(b"xla_cpu_experimental_ynn_fusion_type")
    if known and "ynn_fusion_type" not in flags:
        wanted["XLA_FLAGS"] = f"{flags} {cpu.CONVOLUTIONS}".strip()
    return wanted


def restart() -> None:
    """Start a ``python -m benchmarks.<name>`` again, once, with the tuned environment; leave others alone."""
    launched = any(a == "-m" and b.startswith("benchmarks.") for a, b in itertools.pairwise(sys.orig_argv))
    if not launched or DONE in os.environ or not sys.platform.startswith("linux"):
        return
    sys.stdout.flush()
    wanted = prepared(dict(os.environ), accelerated=cpu.accelerated())
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def describe_environment() -> dict[str, str]:
    """The variables of this process that bear on speed."""
    return {name: os.environ[name] for name in SHOWN if name in os.environ}


def one_core() -> set[int]:
    """Pin this thread, and the threads that it starts from now on, to one core; returns the cores it had.

    Pools that exist already keep theirs: call this before JAX starts its backend where JAX is measured.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    return cores


def on_cores(cores: set[int]) -> None:
    """Give this thread, and those that it starts from now on, other cores."""
    os.sched_setaffinity(0, cores)
