"""Where config files are: those of the package by the name of their method, any other by its path."""

import functools
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

from ssl_jax.core.check import did_you_mean, shorten
from ssl_jax.core.commands import folder_of

NAME = re.compile(r"[A-Za-z]\w*")
"""What can be the name of a method; all else is a path."""


def config_names() -> list[str]:
    """List the methods that have a config in the package, sorted."""
    return sorted(path.stem for path in folder_of("configs").glob("[a-z]*.py"))


def find_config(name: str) -> Path:
    """Find a config file.

    A bare name is that of a method, whatever files the current folder has: ``simclr`` is the package's ``simclr.py``, while
    ``./simclr`` and ``simclr.py`` are files here.

    Args:
      name: name of a method, or the path of a file.

    Raises:
      ValueError: there is none; says where it was looked for, and what the nearest is called.

    >>> find_config("simclr").name
    'simclr.py'
    """
    if NAME.fullmatch(name) and name in config_names():
        return folder_of("configs") / f"{name}.py"
    if os.path.isfile(name):  # Unlike Path.is_file also False for a name that is too long.
        return Path(name)
    raise ValueError(f"config={shorten(repr(name))}: {_where_configs_are(Path(name))}")


def load_module(path: Path) -> ModuleType:
    """Run a config file and return what it defines.

    Raises:
      ValueError: it is no Python file, or cannot be run; says why.
    """
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"config={str(path)!r}: allowed is a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever is wrong with a file of the user's
        raise ValueError(f"config={str(path)!r} cannot be run: {type(error).__name__}: {error}") from error
    return module


@functools.cache
def import_config(method: str) -> ModuleType:
    """Load the package's config of a method, once.

    Args:
      method: its name.

    Raises:
      ValueError: there is none.

    >>> sorted(import_config("simclr").RECIPES)
    ['cifar10', 'color32', 'color64', 'fashion_mnist', 'folder', 'imagenet']
    """
    if method not in config_names():
        raise ValueError(f"there is no config of {method!r}: {did_you_mean(method, config_names())}")
    return load_module(folder_of("configs") / f"{method}.py")


def _where_configs_are(missing: Path) -> str:
    """Say where a config file was looked for, and what the nearest one is called.

    Args:
      missing: path of no file.
    """
    if not missing.name:
        return "allowed is the name of a method, such as simclr, or the path of a file, such as configs/simclr.py"
    looked = f"there is no such file in {shorten(str(missing.absolute().parent))}"
    names = config_names()
    if missing.stem not in names:
        return f"{looked}, nor a method of this name: {did_you_mean(missing.stem, names)}"
    return f"{looked}: --config={missing.stem} is the one of ssl_jax"
