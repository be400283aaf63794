"""Weights of others, in and out: files and hubs to networks of ``ssl_jax.models``, and back to other libraries."""

from typing import Any

from ssl_jax.core.lazy import load_public, public_names


def __getattr__(name: str) -> Any:
    return load_public(__name__, name)


def __dir__() -> list[str]:
    return sorted(public_names(__name__))
