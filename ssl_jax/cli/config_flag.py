"""The flag ``--config=simclr:cifar10`` (or ``configs/simclr.py:cifar10``) and its overrides, ``--config.steps=500``."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from ssl_jax.config.load import load_config
from ssl_jax.config.overrides import parse_overrides

NAME = "config"
OVERRIDE = "config_override"


class ConfigError(ValueError):
    """The command line asks for a config that there is not."""


class ConfigFlag(NamedTuple):
    """The flags of a config, from :func:`define_config`.

    Attributes:
      file: config file and its arguments.
      overrides: other values, ``name=value``.
    """

    file: flags.FlagHolder[str | None]
    overrides: flags.FlagHolder[list[str]]

    def load(self, changes: Mapping[str, Any] = {}, *, recorded: Mapping[str, Any] = {}) -> ConfigDict:
        """Make the config that the command line asks for.

        Args:
          changes: further values at dotted names.
          recorded: config of a run that goes on, whose images are not counted and measured again.

        Raises:
          ConfigError: there is no such config, option or value.
        """
        spec, overrides = self.parse()
        with config_errors():
            return load_config(spec, {**overrides, **changes}, recorded=recorded)

    def parse(self) -> tuple[str, dict[str, str]]:
        """Parse the config file with its arguments, and the overrides.

        Raises:
          ValueError: no config was given.
          ConfigError: an override that is none.
        """
        if self.file.value is None:
            raise ValueError(f"--{NAME} is missing: give --{NAME}=simclr, or another method or file")
        with config_errors():
            return self.file.value, parse_overrides(self.overrides.value)


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Turn what is wrong with a config into an error of the command line."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


def define_config() -> ConfigFlag:
    """Define the flags of a launcher that takes a config."""
    file = flags.DEFINE_string(
        NAME,
        None,
        "Name of a method or path of a config file[:dataset,backbone,budget]; --config.NAME=VALUE overrides.",
    )
    return ConfigFlag(file, flags.DEFINE_multi_string(OVERRIDE, [], "Another value, NAME=VALUE."))


def gather_overrides(argv: Sequence[str]) -> list[str]:
    """Rewrite ``--config.NAME=VALUE`` as a flag that absl knows beforehand.

    >>> gather_overrides(["pretrain", "--config=configs/byol.py", "--config.steps=5"])
    ['pretrain', '--config=configs/byol.py', '--config_override=steps=5']
    >>> gather_overrides(["pretrain", "--config.seed", "1", "--config.watch.log.tensorboard"])
    ['pretrain', '--config_override=seed=1', '--config_override=watch.log.tensorboard=True']
    """
    words = list(argv)
    gathered = []
    while words:
        word = words.pop(0)
        match = re.fullmatch(rf"--?(no)?{NAME}\.([^=]+)(=.*)?", word, re.DOTALL)
        if not match:
            gathered.append(word)
            continue
        no, name, value = match.groups()
        if value is None:
            separate = not no and words and not words[0].startswith("-")
            value = f"={words.pop(0)}" if separate else f"={not no}"
        gathered.append(f"--{OVERRIDE}={name}{value}")
    return gathered
