"""Two runs of which the second learns from the encoder of the first, each stage a launcher of its own."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_jax.core import commands
from ssl_jax.core.check import require

ENCODER = "encoder.safetensors"


class Stage(NamedTuple):
    """A run of ``experiments.pretrain``.

    Attributes:
      config: ``<method>[:arguments]``, or the path of a config file with them.
      options: flags that override it, from :func:`config_flags`.
    """

    config: str
    options: Sequence[str] = ()


def run_stages(first: Stage, second: Stage, root: Path, *, option: str, rounds: int) -> Path:
    """Make what is missing, stage by stage.

    Args:
      first: the run that teaches.
      second: the run that learns from it.
      root: folder of all runs.
      option: option of the second config that takes the file with the encoder of the run before.
      rounds: runs of the second config, each after the first with the encoder of the one before.

    Returns:
      The folder of the last run.

    Raises:
      ValueError: an argument out of range, or a launcher that failed; it has said why.
    """
    require(rounds >= 1, "rounds", rounds, "an integer of 1 or more")
    folder = root / "first"
    run_launcher("pretrain", f"--config={first.config}", f"--workdir={folder}", *first.options)
    for number in range(1, rounds + 1):
        teacher = export_encoder(folder)
        folder = root / ("second" if number == 1 else f"round_{number}")
        options = [*second.options, f"--config.{option}={teacher}"]
        run_launcher("pretrain", f"--config={second.config}", f"--workdir={folder}", *options)
    return folder


def config_flags(flag: str, overrides: Sequence[str]) -> list[str]:
    """Write ``name=value`` as flags of the config.

    Args:
      flag: where they were given, for the message.
      overrides: options and their values.

    >>> config_flags("set_first", ["steps=5"])
    ['--config.steps=5']

    Raises:
      ValueError: a value without a name.
    """
    for override in overrides:
        require("=" in override, flag, override, "name=value, such as steps=500")
    return [f"--config.{override}" for override in overrides]


def export_encoder(folder: Path) -> Path:
    """Return the file with the encoder of a run, written if it is missing."""
    out = folder / "encoder"
    if not (out / ENCODER).exists():
        run_launcher("export", f"--workdir={folder}", f"--out={out}")
    return out / ENCODER


def run_launcher(verb: str, *options: str) -> None:
    """Run a launcher, its output as it comes.

    Raises:
      ValueError: it failed; it has said why.
    """
    print(f"{verb} {' '.join(options)}", flush=True)
    code = subprocess.run([*commands.launcher(verb), *options]).returncode
    if code:
        raise ValueError(
            f"experiments.{verb} ended with exit code {code}, see above; the same command goes on from there"
        )
