"""Self-supervised methods: one file a method, in a folder a family. ``ssl_jax.methods.simclr.build(...)``."""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    registry = importlib.import_module("ssl_jax.methods.registry")
    if name not in registry.names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return registry.method_module(name)


def __dir__() -> list[str]:
    return sorted(importlib.import_module("ssl_jax.methods.registry").names())
