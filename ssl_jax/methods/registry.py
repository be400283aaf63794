"""Methods by name: the module path is the registry."""

import importlib
import pkgutil
from types import ModuleType

import ssl_jax.methods as package
from ssl_jax.core.check import choice


def names() -> dict[str, str]:
    """Method name to module path, for every ``ssl_jax/methods/<family>/<name>.py``.

    >>> names()["simclr"]
    'ssl_jax.methods.contrastive.simclr'
    """
    found = {}
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        parts = module.name.split(".")
        if len(parts) == 4 and parts[2] != "parts" and not module.ispkg:
            found[parts[-1]] = module.name
    return dict(sorted(found.items()))


def method_module(name: str) -> ModuleType:
    """The module of a method, which has ``build(encoder, *, ...) -> Method``.

    Raises:
      ValueError: no method has that name; names the nearest.

    >>> method_module("byol").__name__
    'ssl_jax.methods.distillation.byol'
    """
    modules = names()
    return importlib.import_module(modules[choice("method", name, modules)])
