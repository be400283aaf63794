"""Self-supervised learning for vision in functional JAX.

    import ssl_jax

    method = ssl_jax.methods.simclr.build(ssl_jax.models.build("convnet"), views=ssl_jax.augment.presets.simclr(32))
    features = ssl_jax.load("runs/first").embed("photos/")

One import is enough: packages, and the names in them, are loaded when they are first used. Importing starts no JAX backend.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

PACKAGES = (
    "augment",
    "cli",
    "config",
    "core",
    "data",
    "evaluate",
    "interop",
    "losses",
    "methods",
    "models",
    "ops",
    "optim",
    "report",
    "train",
)
NAMES = {
    "fit": "train.loop",
    "Run": "train.run",
    "Host": "train.run",
    "Watch": "train.run",
    "load": "model",
    "Model": "model",
}
"""Names that stand here too, and the modules that they come from."""


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in NAMES:
        return getattr(importlib.import_module(f"{__name__}.{NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*PACKAGES, *NAMES, "__version__"))
