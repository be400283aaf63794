"""Config files: ``configs/simclr.py:cifar10,short`` and what overrides it."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config.make import Entry
from ssl_jax.config.overrides import apply_overrides, choices_of
from ssl_jax.config.ranges import check_config
from ssl_jax.core.check import did_you_mean, shorten


def load_config(
    spec: str, overrides: Mapping[str, Any] = {}, *, recorded: Mapping[str, Any] = {}
) -> ConfigDict:
    """Make the config that a file and its arguments describe, with other values at dotted names.

    Args:
      spec: path of a config file and, after a colon, its arguments.
      overrides: from dotted names to values, or to texts of them. Where one is on what other options depend
        (``optimizer.name``), the others are those of the new one.
      recorded: config of a run that goes on, whose images are not counted and measured again.

    Raises:
      ValueError: a file that is no config file, an argument, option or value that does not exist, or a value outside of its
        range (:data:`ssl_jax.config.ranges.RANGES`).
    """
    path, _, arguments = spec.partition(":")
    config = load_entry(path)(arguments, choices_of(overrides), recorded).lock()
    apply_overrides(config, overrides)
    check_config(config.to_dict())
    return config


def load_entry(path: str) -> Entry:
    """Load the ``get_config`` of a config file.

    Raises:
      ValueError: there is no such file, it cannot be run, or it has no ``get_config`` of :func:`ssl_jax.config.entry`.
    """
    file = Path(path)
    if not os.path.isfile(path):  # Unlike Path.is_file also False for a name that is too long.
        raise ValueError(f"config={shorten(repr(path))}: {_where_configs_are(file)}")
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"config={path!r}: allowed is a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever is wrong with a file of the user's
        raise ValueError(f"config={path!r} cannot be run: {type(error).__name__}: {error}") from error
    get_config = getattr(module, "get_config", None)
    if not isinstance(get_config, Entry):
        raise ValueError(f"config={path!r}: it has no get_config = entry(...), see ssl_jax.config")
    return get_config


def _where_configs_are(missing: Path) -> str:
    """Say where a config file was looked for, and where the nearest one is.

    Args:
      missing: path of no file.
    """
    if not missing.name:
        return "allowed is the path of a file, such as configs/simclr.py"
    looked = f"there is no such file in {shorten(str(missing.absolute().parent))}"
    committed = importlib.util.find_spec("configs")
    folder = Path(committed.origin).parent if committed and committed.origin else None
    if folder is None:
        return (
            f"{looked}; the configs are in the folder configs of a clone: start there, or give the whole path"
        )
    names = [path.stem for path in folder.glob("[a-z]*.py")]
    if missing.stem not in names:
        return f"{looked}, nor a config of this name in {folder}: {did_you_mean(missing.stem, names)}"
    # From the clone itself as short as it is always written.
    here = Path("configs") if Path("configs").absolute() == folder else folder
    return f"{looked}: give --config={here / missing.stem}.py"
