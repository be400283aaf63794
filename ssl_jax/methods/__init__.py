"""Self-supervised methods: one file a method, in a folder a family. ``ssl_jax.methods.simclr.build(...)``."""

import importlib
from types import ModuleType

SHARED = ("method", "parts", "registry")
"""What stands beside the families."""


def __getattr__(name: str) -> ModuleType:
    if name in SHARED:
        return importlib.import_module(f"{__name__}.{name}")
    registry = importlib.import_module(f"{__name__}.registry")
    if name not in registry.names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return registry.method_module(name)


def __dir__() -> list[str]:
    return sorted((*SHARED, *importlib.import_module(f"{__name__}.registry").names()))
