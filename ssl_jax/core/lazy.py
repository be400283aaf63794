"""Public names of a package reached as its attributes, imported when they are first asked for."""

import functools
import importlib
import re
import sys
from pathlib import Path
from typing import Any

DEFINITION = re.compile(r"^(?:def|class) ([A-Za-z]\w*)", re.MULTILINE)


@functools.cache
def public_names(package: str) -> dict[str, str]:
    """Map each public function and class that the modules of a package define to its module, and packages in it to themselves.

    A module hides what has its own name: ``koleo`` is the module, ``koleo.koleo`` the function in it. Nothing is imported.

    >>> public_names("ssl_jax.losses")["nt_xent"]
    'ssl_jax.losses.contrastive'
    """
    (folder,) = sys.modules[package].__path__
    files = [path for path in sorted(Path(folder).glob("*.py")) if path.stem != "__init__"]
    modules = {path.stem: f"{package}.{path.stem}" for path in files}
    names = {
        name: modules[path.stem] for path in files for name in DEFINITION.findall(path.read_text("utf-8"))
    }
    packages = {
        path.parent.name: f"{package}.{path.parent.name}" for path in Path(folder).glob("*/__init__.py")
    }
    return {**names, **modules, **packages}


def load_public(package: str, name: str) -> Any:
    """Import and return a public name of a package: its ``__getattr__``.

    Raises:
      AttributeError: none of its modules defines the name.

    >>> load_public("ssl_jax.losses", "nt_xent").__module__
    'ssl_jax.losses.contrastive'
    """
    module = None if name.startswith("_") else public_names(package).get(name)
    if module is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    loaded = importlib.import_module(module)
    return loaded if module == f"{package}.{name}" else getattr(loaded, name)
