"""What an encoder knows of each place in an image: segmentation, and other targets that are given for every pixel."""

from typing import Any

from ssl_jax.core.lazy import load_public, public_names


def __getattr__(name: str) -> Any:
    return load_public(__name__, name)


def __dir__() -> list[str]:
    return sorted(public_names(__name__))
