"""A Linux CPU set up for speed, before anything heavy is imported."""

import importlib.util
import itertools
import mmap
import os
import sys
from pathlib import Path

from ssl_jax.core.commands import started_by_command

# Keep freed memory instead of handing gigabytes back to the kernel after every step.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
# A smoke run compiles much and computes little.
UNOPTIMISED = "--xla_backend_optimization_level=0"
# XLA's default kernels for single convolutions take 3 to 5 times as long for the weight gradient.
CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"


def tune() -> None:
    """On a Linux CPU, start this process again once with settings that roughly halve the time of a step.

    They have to stand in the environment before the process starts. ``SSL_JAX_TUNE_CPU=0`` turns this off; variables that
    are set already are left alone; accelerators are not affected.
    """
    wanted = os.environ.get("SSL_JAX_TUNE_CPU", "1") != "0" and sys.platform.startswith("linux")
    if not wanted or not _is_launcher() or accelerated():
        return
    environment = dict(os.environ, SSL_JAX_TUNE_CPU="0")
    for name, value in MALLOC.items():
        environment.setdefault(name, value)
    known = environment.get("XLA_FLAGS", "")
    if "ynn_fusion_type" not in known and jaxlib_knows(b"xla_cpu_experimental_ynn_fusion_type"):
        environment["XLA_FLAGS"] = f"{known} {CONVOLUTIONS}".strip()
    if "optimization_level" not in known and jaxlib_knows(b"xla_backend_optimization_level") and _is_smoke():
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {UNOPTIMISED}".strip()
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _is_launcher() -> bool:
    """Whether this process is a launcher's (:mod:`ssl_jax.core.commands`); tests and notebooks are left alone."""
    arguments = sys.orig_argv
    return started_by_command() or any(
        a == "-m" and b.startswith("experiments.") for a, b in itertools.pairwise(arguments)
    )


def _is_smoke() -> bool:
    """Whether ``--config=...:smoke`` stands on the command line."""
    configs = [a for a in sys.orig_argv if a.startswith(("--config=", "-config="))]
    return any("smoke" in config.partition(":")[2].split(",") for config in configs)


def accelerated() -> bool:
    """Whether JAX would use something other than the CPU, as far as can be told without starting a backend."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return not platforms.startswith("cpu")
    names = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
    return any(importlib.util.find_spec(name) for name in names)


def jaxlib_knows(flag: bytes) -> bool:
    """Whether this jaxlib has an XLA flag; an unknown one in XLA_FLAGS would abort the process.

    Flags that it has stand in the library as C strings, which end in a zero byte; names of removed ones are left over in
    message descriptions, where no zero byte follows.
    """
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        return False
    for library in sorted(Path(spec.origin).parent.glob("*.so")):
        if library.stat().st_size > 2**24:
            with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(flag + b"\0") >= 0:
                    return True
    return False
