"""What every launcher needs: flags read with one-line errors, and errors that speak to the user."""

import difflib
import functools
import logging as std_logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
from absl import app, flags, logging

from ssl_jax.cli.config_flag import NAME, ConfigError, gather_overrides
from ssl_jax.config.images import forget_descriptions
from ssl_jax.config.ranges import SEED
from ssl_jax.core.bucket import is_bucket
from ssl_jax.core.check import shorten
from ssl_jax.core.commands import spoken
from ssl_jax.data.batches import TooManyCorrupt
from ssl_jax.train.checkpoint import NoUsableCheckpointError
from ssl_jax.train.workdir import WorkdirInUseError, local_path, workdir_path

USER_ERRORS = (
    ValueError,
    OSError,
    FloatingPointError,
    ImportError,
    WorkdirInUseError,
    NoUsableCheckpointError,
    TooManyCorrupt,
)

DEBUG_HINT = "\n(--debug shows where)"


def run(main: Callable[..., None], *, words: int = 0) -> None:
    """Run a launcher: read the flags, call ``main()``, turn what the user can mend into one message.

    Args:
      main: function that does it, called with the words of the command line that are no flags.
      words: how many of those there may be.

    Exit codes: 0 done (or stopped and saved by a signal), 1 failed, 2 the command line or config is wrong.
    """
    flags.DEFINE_bool("debug", False, "Show where an error was raised.")
    logging.set_verbosity(logging.WARNING)
    # Orbax logs the traceback of each of its threads; the error itself is raised, and told in a line.
    logging.get_absl_logger().addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))
    show_messages()
    for module_name, defined in flags.FLAGS.flags_by_module_dict().items():
        if module_name.startswith("ssl_jax."):  # --help shows those that several launchers share too
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    module = sys.modules["__main__"]
    module.__doc__ = describe_launcher(module.__doc__ or "")
    app.run(
        lambda argv: _guarded(functools.partial(main, *argv[1:])),
        flags_parser=lambda argv: _parse(argv, words),
    )


def describe_launcher(text: str, *, installed: bool | None = None) -> str:
    """Write the description of a launcher, which ``--help`` shows, as this user starts it.

    Args:
      text: docstring of the launcher.
      installed: see :func:`ssl_jax.core.commands.spoken`.

    >>> describe_launcher("python -m experiments.show --config=configs/mae.py:imagenet", installed=True)
    'ssl-jax show --config=mae:imagenet'
    """
    said = spoken(text, installed=installed)
    return text if said == text else re.sub(r"(?<![\w/.])configs/([\w<>]+)\.py", r"\1", said)


class Messages(std_logging.Handler):
    """Writes what the package logs as plain lines on standard error, in the first of several processes."""

    def emit(self, record: std_logging.LogRecord) -> None:
        """Write one message."""
        text = spoken(record.getMessage())
        prefix = "warning: " if record.levelno >= std_logging.WARNING and "warning" not in text[:8] else ""
        if _is_first_process():
            sys.stderr.write(f"{prefix}{text}\n")
            sys.stderr.flush()


def show_messages() -> None:
    """Show what the package logs at the level INFO and above; what was said of images before is said again."""
    logger = std_logging.getLogger("ssl_jax")
    logger.setLevel(std_logging.INFO)
    logger.propagate = False  # absl's handler would write it once more
    if not any(isinstance(handler, Messages) for handler in logger.handlers):
        logger.addHandler(Messages())
    warnings.showwarning = _show_warning
    _SHOWN.clear()
    forget_descriptions()


_SHOWN: set[str] = set()
"""Warnings so far: an image that cannot be read is met by training, health and evaluation, and named once."""


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line for what is said to the user; where in the program it was said is of no use to them."""
    user = category is UserWarning
    text = (
        f"warning: {spoken(str(message))}\n"
        if user
        else f"{filename}:{lineno}: {category.__name__}: {message}\n"
    )
    if text not in _SHOWN:
        _SHOWN.add(text)
        sys.stderr.write(text)


def _is_first_process() -> bool:
    """Tell it also before the processes have found each other, without waking the devices."""
    if jax.distributed.is_initialized():
        return jax.process_index() == 0
    values = flags.FLAGS.flag_values_dict() if flags.FLAGS.is_parsed() else {}
    by_themselves = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
    ranks = [os.environ.get(name, "0") for name in by_themselves] if values.get("distributed") else []
    return not values.get("process") and all(rank == "0" for rank in ranks)


def require_flag(name: str, value: Any, example: str) -> Any:
    """Return the value of a flag that has no default.

    Raises:
      ValueError: it was not given.
    """
    if not value:
        raise ValueError(f"--{name} is missing: give --{name}={example}")
    return value


def require_path(name: str, value: Any, example: str, *, local: bool = False) -> Path:
    """Return the path of a flag that has no default, see :func:`ssl_jax.train.workdir.workdir_path`.

    Args:
      name: of the flag.
      value: of the flag.
      example: a value, for the message.
      local: whether it has to be of this file system.

    Raises:
      ValueError: it was not given, or is no path.
    """
    return (local_path if local else workdir_path)(require_flag(name, value, example))


def parse_folders(name: str, values: Sequence[str] | None) -> list[Path]:
    """Return the folders of a flag that is repeated for several: a comma is part of a path.

    Raises:
      ValueError: there is no such folder, but there are some with the names between its commas.

    >>> parse_folders("beside", ["runs/a=1,b=2", ""])
    [PosixPath('runs/a=1,b=2')]
    """
    folders = [workdir_path(value) for value in values or [] if value]
    for folder in folders:
        if is_bucket(folder):
            continue
        parts = str(folder).split(",")
        if len(parts) > 1 and not folder.exists() and any(part and Path(part).exists() for part in parts):
            again = " ".join(f"--{name}={part}" for part in parts)
            raise ValueError(
                f"--{name}={folder}: there is no such folder; repeat the flag for several: {again}"
            )
    return folders


def parse_seeds(values: Sequence[str]) -> list[int]:
    """Parse the integers of a flag ``--seeds``.

    Raises:
      ValueError: there is none, or one is outside of the range of ``config.seed``.

    >>> parse_seeds(["0", " 1"])
    [0, 1]
    """
    words = [value.strip() for value in values]
    seeds = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= 10]
    if not words or len(seeds) < len(words) or not all(map(SEED.accepts, seeds)):
        given = shorten(",".join(values))
        raise ValueError(f"--seeds={given}: allowed is {SEED.allowed}, or several, such as 0,1,2")
    return seeds


def _parse(argv: Sequence[str], words: int = 0) -> list[str]:
    """Parse flags; a misspelt or ill-typed one ends the program with one line that says what is allowed."""
    try:
        rest = flags.FLAGS(gather_overrides(argv) if NAME in flags.FLAGS else list(argv))
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname.split(".")[0], list(flags.FLAGS), n=1)
        hint = f": did you mean --{near[0]}?" if near else ""
        _fail(ValueError(f"unknown flag --{error.flagname}{hint}"), 2)
    except flags.IllegalFlagValueError as error:
        _fail(ValueError(_describe_illegal(error)), 2)
    except (flags.Error, OSError) as error:
        _fail(error, 2)
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            _fail(ValueError(f"--{name}={value}: allowed is {_describe_flag(name)}"), 2)
    if len(rest) > 1 + words:
        _fail(ValueError(f"unexpected argument {rest[1 + words]!r}: flags start with --"), 2)
    return rest


def _describe_illegal(error: flags.IllegalFlagValueError) -> str:
    """Say which flag has which value, and what is allowed in its place."""
    text, reason = str(error), f": {error.__context__}"
    name = next((name for name in flags.FLAGS if text.startswith(f"flag --{name}=")), "")
    if not name or not text.endswith(reason):
        return " ".join(text.split())
    given = shorten(text.removeprefix("flag ").removesuffix(reason))
    return f"{given}: allowed is {_describe_flag(name)}"


def _describe_flag(name: str) -> str:
    """Say what values a flag may have."""
    parser = flags.FLAGS[name].parser
    if isinstance(parser, flags.EnumParser):
        return ", ".join(parser.enum_values[:-1]) + f" or {parser.enum_values[-1]}"
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    return parser.syntactic_help or "another value"


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except ConfigError as error:
        _fail(error, 2)
    except USER_ERRORS as error:
        if flags.FLAGS.debug:
            raise
        _fail(error, 1)
    except (RuntimeError, AssertionError, MemoryError) as error:
        explained = "" if flags.FLAGS.debug else _explain(error)
        if not explained:
            raise
        _fail(ValueError(explained), 1)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped before the step was finished; the last checkpoint is whole\n")
        sys.exit(130)


def _explain(error: BaseException) -> str:
    """Say in one line what no line of this library raised: no such device, or not enough memory; else ``""``."""
    said = (str(error).splitlines() or [""])[0][:200]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said:
        return (
            f"out of memory ({said or type(error).__name__}): a smaller config.batch_size, config.accumulate, "
            "config.host.fsdp and config.encoder.remat need less; python -m experiments.plan says what fits"
        )
    asked = getattr(jax.config, "jax_platforms", None)
    if not asked:
        return ""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        jax.config.update("jax_platforms", None)
        here = ", ".join(sorted({device.platform for device in jax.devices()} | {"cpu"}))
        return (
            f"JAX_PLATFORMS={asked}: JAX finds no such device, or lacks what drives it; allowed here: {here}"
        )
    return ""


def _fail(error: BaseException, code: int) -> None:
    print_error(error, hint="" if code == 2 else DEBUG_HINT)
    sys.exit(code)


def print_error(error: BaseException, *, hint: str = DEBUG_HINT) -> None:
    """Print an error as one message."""
    sys.stderr.write(f"error: {spoken(str(error))}{hint}\n")
