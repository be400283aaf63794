"""Which layer, and which pooling: features of every block of an encoder for probes."""

from collections.abc import Mapping

import jax.numpy as jnp

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.train.features import AnyArray


def pooled(outputs: Mapping[str, AnyArray], prefix: int = 0) -> dict[str, Array]:
    """Features of every layer under every pooling, for probes.

    ``mean`` and ``max`` over the positions of a map, or over the patch tokens; ``class`` is the first token.

    Args:
      outputs: what ``apply(..., output="layers")`` gives: maps ``[b, h, w, c]`` or tokens
        ``[b, prefix + n, width]`` with n of 1 or more, by name of the layer; any float type.
      prefix: tokens before the patches: class token and registers. With 0 there is no ``class``.

    Returns:
      ``{"layer1/mean": [b, c], "layer1/max": [b, c], ...}``, with ``prefix`` also ``"blocks_2/class"``;
      float32 or wider, layers in the order of ``outputs``.

    Raises:
      ValueError: a layer that is neither map nor tokens, a prefix below 0, or no patch behind it.

    >>> found = pooled({"blocks_0": jnp.arange(6.0).reshape(1, 3, 2)}, prefix=1)
    >>> {name: feature.tolist() for name, feature in found.items()}
    {'blocks_0/mean': [[3.0, 4.0]], 'blocks_0/max': [[4.0, 5.0]], 'blocks_0/class': [[0.0, 1.0]]}

    Reference: Caron et al., DINO (2021), which probes class token and mean of the patches together; Chen et
      al., Generative Pretraining from Pixels (2020), whose best layer for a probe lies in the middle.
    """
    check.require(prefix >= 0, "prefix", prefix, "an integer of 0 or more")
    found = {}
    for name, output in outputs.items():
        allowed = "maps [b, h, w, c] or tokens [b, length, width]"
        check.require(output.ndim in (3, 4), f"outputs[{name!r}]", f"shape {output.shape}", allowed)
        positions = at_least_float32(jnp.asarray(output).reshape(output.shape[0], -1, output.shape[-1]))
        skip = prefix if output.ndim == 3 else 0
        check.require(positions.shape[1] > skip, "prefix", prefix, f"less than the length {output.shape[1]}")
        found[f"{name}/mean"] = jnp.mean(positions[:, skip:], axis=1)
        found[f"{name}/max"] = jnp.max(positions[:, skip:], axis=1)
        if skip:
            found[f"{name}/class"] = positions[:, 0]
    return found
