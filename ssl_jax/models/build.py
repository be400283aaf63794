"""Encoders by name."""

from collections.abc import Callable
from typing import Any

from ssl_jax.core import check
from ssl_jax.models import convnet, dvae, ladder, perceptron, resnet, vit
from ssl_jax.models.network import Network

BUILDERS: dict[str, Callable[..., Network]] = {
    **convnet.BUILDERS,
    **dvae.BUILDERS,
    **ladder.BUILDERS,
    **perceptron.BUILDERS,
    **resnet.BUILDERS,
    **vit.BUILDERS,
}


def build(name: str, **options: Any) -> Network:
    """Build an encoder by name.

    Args:
      name: a key of ``BUILDERS``.
      **options: the options of that builder.

    Returns:
      The network; ``build(**network.config)`` builds the same again, also after a round trip through JSON.

    Raises:
      ValueError: unknown name or option; the error names the nearest right one.

    >>> build("convnet", widths=(8, 16), grid=1).features
    16
    >>> build("convnet", widht=8)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: convnet.widht is not an option: did you mean 'widths'? allowed: dtype, grid, ..., widths
    """
    builder = BUILDERS[check.choice("name", name, BUILDERS)]
    return check.call(builder, where=name, options=options)


def without_drop_path(encoder: Network) -> Network:
    """Build the same architecture without stochastic depth, as teachers have it."""
    if not encoder.config.get("drop_path"):
        return encoder
    return build(**{**encoder.config, "drop_path": 0.0})
