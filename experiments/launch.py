"""What every launcher needs: flags read with one-line errors, a CPU set up for speed, errors that speak to the user."""

import importlib.util
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

_DEBUG = flags.DEFINE_bool("debug", False, "Show where an error was raised.")

# Keep freed memory instead of handing gigabytes back to the kernel after every step (docs/guides/cpu.md has the gain).
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
# XLA's default kernels for single convolutions take 3 to 5 times as long for the weight gradient.
CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
USER_ERRORS = (ValueError, FileNotFoundError, NotADirectoryError, PermissionError, FloatingPointError, ImportError)


def run(main: Callable[[], None]) -> None:
    """Run a launcher: tune the CPU, read the flags, call ``main()``, turn what the user can mend into one message.

    Exit codes: 0 done (or stopped and saved by a signal), 1 failed, 2 the command line or config is wrong.
    """
    tune_cpu()
    logging.use_absl_handler()
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parse flags; a misspelt or ill-typed one ends the program with one line that says what is allowed."""
    try:
        rest = flags.FLAGS(list(argv))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, FileNotFoundError) as error:
        _fail(error, 2)
    if len(rest) > 1:
        _fail(ValueError(f"unexpected argument {rest[1]!r}: flags start with --"), 2)
    return rest


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except USER_ERRORS as error:
        if _DEBUG.value:
            raise
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped before the step was finished; the last checkpoint is whole\n")
        sys.exit(130)


def _fail(error: BaseException, code: int) -> None:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    hint = "" if code == 2 else "\n(--debug shows where)"
    sys.stderr.write(f"error: {text}{hint}\n")
    sys.exit(code)


def tune_cpu() -> None:
    """On a Linux CPU, start this process again once with settings that roughly halve the time of a step.

    They have to stand in the environment before the process starts. ``SSL_JAX_TUNE_CPU=0`` turns this off; variables that
    are set already are left alone; accelerators are not affected.
    """
    if os.environ.get("SSL_JAX_TUNE_CPU", "1") == "0" or not sys.platform.startswith("linux") or _accelerated():
        return
    environment = dict(os.environ, SSL_JAX_TUNE_CPU="0")
    for name, value in MALLOC.items():
        environment.setdefault(name, value)
    known = environment.get("XLA_FLAGS", "")
    if "ynn_fusion_type" not in known and _jaxlib_knows(b"xla_cpu_experimental_ynn_fusion_type"):
        environment["XLA_FLAGS"] = f"{known} {CONVOLUTIONS}".strip()
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _accelerated() -> bool:
    """Whether JAX would use something other than the CPU, as far as can be told without starting a backend."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return not platforms.startswith("cpu")
    names = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
    return any(importlib.util.find_spec(name) for name in names)


def _jaxlib_knows(flag: bytes) -> bool:
    """Whether this jaxlib has an XLA flag; an unknown one in XLA_FLAGS would abort the process."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        return False
    for library in sorted(Path(spec.origin).parent.glob("*.so")):
        if library.stat().st_size > 2**24:
            with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(flag) >= 0:
                    return True
    return False
