"""Config files: ``simclr:cifar10,short``, or ``configs/simclr.py:cifar10,short``, and what overrides it."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config.find import find_config, load_module
from ssl_jax.config.make import Entry
from ssl_jax.config.overrides import apply_overrides, choices_of
from ssl_jax.config.ranges import check_config
from ssl_jax.config.weights import require_start


def load_config(
    spec: str, overrides: Mapping[str, Any] = {}, *, recorded: Mapping[str, Any] = {}
) -> ConfigDict:
    """Make the config that a file and its arguments describe, with other values at dotted names.

    Args:
      spec: name of a method, or path of a config file, and, after a colon, its arguments.
      overrides: from dotted names to values, or to texts of them. Where one is on what other options depend
        (``optimizer.name``), the others are those of the new one.
      recorded: config of a run that goes on, whose images are not counted and measured again.

    Raises:
      ValueError: a file that is no config file, an argument, option or value that does not exist, or a value outside of its
        range (:data:`ssl_jax.config.ranges.RANGES`).
    """
    name, _, arguments = spec.partition(":")
    require_start(overrides)
    config = load_entry(name)(arguments, choices_of(overrides), recorded).lock()
    apply_overrides(config, overrides)
    check_config(config.to_dict())
    return config


def load_entry(name: str) -> Entry:
    """Load the ``get_config`` of a config file.

    Args:
      name: name of a method, or the path of a file, see :func:`ssl_jax.config.find.find_config`.

    Raises:
      ValueError: there is no such file, it cannot be run, or it has no ``get_config`` of :func:`ssl_jax.config.entry`.
    """
    get_config = getattr(load_module(find_config(name)), "get_config", None)
    if not isinstance(get_config, Entry):
        raise ValueError(f"config={name!r}: it has no get_config = entry(...), see ssl_jax.config")
    return get_config
