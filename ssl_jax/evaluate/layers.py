"""Which layer, and which pooling: features of every block of an encoder for probes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.data.sources import take_evenly
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject, probe_arrays
from ssl_jax.evaluate.ridge import ridge
from ssl_jax.train.features import AnyArray

IMAGES = 10_000
"""Training images at most that the probes of each layer are fitted to."""


def pool_layers(outputs: Mapping[str, AnyArray], prefix: int = 0) -> dict[str, Array]:
    """Pool the features of every layer in every way, for probes.

    ``mean`` and ``max`` over the positions of a map, or over the patch tokens; ``class`` is the first token.

    Args:
      outputs: layers as ``apply(..., output="layers")`` gives them: maps ``[b, h, w, c]`` or tokens
        ``[b, prefix + n, width]`` with n of 1 or more, by name of the layer; any float type.
      prefix: number of tokens before the patches: class token and registers. With 0 there is no ``class``.

    Returns:
      ``{"layer1/mean": [b, c], "layer1/max": [b, c], ...}``, with ``prefix`` also ``"blocks_2/class"``;
      float32 or wider, layers in the order of ``outputs``.

    Raises:
      ValueError: a layer that is neither map nor tokens, a prefix below 0, or no patch behind it.

    >>> pooled = pool_layers({"blocks_0": jnp.arange(6.0).reshape(1, 3, 2)}, prefix=1)
    >>> {name: feature.tolist() for name, feature in pooled.items()}
    {'blocks_0/mean': [[3.0, 4.0]], 'blocks_0/max': [[4.0, 5.0]], 'blocks_0/class': [[0.0, 1.0]]}

    Reference: Caron et al., DINO (2021), which probes class token and mean of the patches together; Chen et
      al., Generative Pretraining from Pixels (2020), whose best layer for a probe lies in the middle.
    """
    check.require(prefix >= 0, "prefix", prefix, "an integer of 0 or more")
    pooled = {}
    for name, output in outputs.items():
        allowed = "maps [b, h, w, c] or tokens [b, length, width]"
        check.require(output.ndim in (3, 4), f"outputs[{name!r}]", f"shape {output.shape}", allowed)
        positions = at_least_float32(jnp.asarray(output).reshape(output.shape[0], -1, output.shape[-1]))
        skip = prefix if output.ndim == 3 else 0
        check.require(positions.shape[1] > skip, "prefix", prefix, f"less than the length {output.shape[1]}")
        pooled[f"{name}/mean"] = jnp.mean(positions[:, skip:], axis=1)
        pooled[f"{name}/max"] = jnp.max(positions[:, skip:], axis=1)
        if skip:
            pooled[f"{name}/class"] = positions[:, 0]
    return pooled


def _measure(subject: Subject) -> Row:
    """kNN and ridge accuracy of every layer and pooling."""
    method = subject.encoder.method
    size, channels = method.views[0].size, subject.sources[0].channels
    prefix = sum(int(method.encoder.config.get(tokens, 0)) for tokens in ("class_token", "registers"))

    def pool(params: Any, state: Any, images: Array) -> dict[str, Array]:
        variables = method.encoder_variables(params, state)
        outputs, _ = method.encoder.apply(*variables, images, output="layers")
        return pool_layers(outputs, prefix)

    def encode(params: Any, state: Any, images: Array) -> Array:
        return jnp.concatenate(list(pool(params, state, images).values()), axis=-1)

    # Names from the shapes alone; a jitted dict would come back in the order of its keys.
    widths: dict[str, int] = {}

    def note(params: Any, state: Any, images: Array) -> None:
        pooled = pool(params, state, images)
        widths.update({name: features.shape[-1] for name, features in pooled.items()})

    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    jax.eval_shape(note, subject.encoder.params, subject.encoder.state, image)
    train = subject.encode(take_evenly(subject.sources[0], IMAGES), encode)
    test = subject.encode(subject.sources[1], encode)
    rows, start, classes = [], 0, subject.classes
    for name, width in widths.items():
        columns = slice(start, start + width)
        fitted, judged = (part._replace(features=part.features[:, columns]) for part in (train, test))
        arrays = probe_arrays(fitted, judged, subject.sources[0].classes)
        knn = knn_accuracy(*arrays, classes=classes, k=min(subject.options.k, len(arrays[1])))
        accuracy = ridge(*arrays, classes=classes).accuracy
        rows.append({"layer": name, "dims": width, "knn": knn, "ridge": accuracy})
        start += width
    return {"layers": rows}


MEASURE = Measure(
    "layers",
    frozenset({"encoder", "labels"}),
    (
        Column("layer", "layer and pooling"),
        Column("dims", "dims"),
        Column("knn", "kNN"),
        Column("ridge", "ridge"),
    ),
    _measure,
    own_table=True,
)
