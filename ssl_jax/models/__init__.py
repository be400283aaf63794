"""Encoders, heads and decoders as pairs of pure functions. The only place that imports flax."""

from typing import Any

from ssl_jax.core.lazy import load_public, public_names
from ssl_jax.models.build import BUILDERS, build
from ssl_jax.models.network import Network, grouped_apply

__all__ = ["BUILDERS", "Network", "build", "grouped_apply"]


def __getattr__(name: str) -> Any:
    return load_public(__name__, name)


def __dir__() -> list[str]:
    return sorted({*public_names(__name__), *__all__})
