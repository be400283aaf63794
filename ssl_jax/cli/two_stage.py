"""Runs in stages, each of which learns from the encoder of the one before, every stage a launcher of its own."""

import json
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


def run_stages(first: Stage, later: Stage, root: Path, *, option: str, stages: int) -> Path:
    """Make what is missing, stage by stage.

    A stage that repeats the config of the one before gets the seed after that one's, so that its student starts anew.

    Args:
      first: the run that teaches.
      later: the runs that learn, each from the one before.
      root: folder of all runs.
      option: option of the later config that takes the file with the encoder of the run before.
      stages: number of runs, the first among them.

    Returns:
      The folder of the last run.

    Raises:
      ValueError: an argument out of range, or a launcher that failed; it has said why.
    """
    require(stages >= 2, "stages", stages, "an integer of 2 or more")
    folder = root / stage_folder(1)
    run_launcher("pretrain", f"--config={first.config}", f"--workdir={folder}", *first.options)
    for number in range(2, stages + 1):
        options = [*later.options, f"--config.{option}={export_encoder(folder)}"]
        if number > 2 or later.config == first.config:
            options.append(f"--config.seed={seed_of(folder) + 1}")
        folder = root / stage_folder(number)
        run_launcher("pretrain", f"--config={later.config}", f"--workdir={folder}", *options)
    return folder


def stage_folder(number: int) -> str:
    """Name the folder of a stage, counted from 1.

    >>> [stage_folder(number) for number in (1, 2, 3)]
    ['first', 'second', 'stage_3']
    """
    return {1: "first", 2: "second"}.get(number, f"stage_{number}")


def seed_of(folder: Path) -> int:
    """Read the seed of a run."""
    return int(json.loads((folder / "config.json").read_text())["seed"])


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
