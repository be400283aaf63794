"""Frozen features of every example, counted once."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.augment import views
from ssl_jax.core import check
from ssl_jax.core.types import Array, Batch

AnyArray = Array | np.ndarray


class Features(NamedTuple):
    """Features of n examples in the order in which they came.

    Attributes:
      features: float32 ``[n, d]``.
      labels: int32 ``[n]``, -1 where there is none.
      index: int32 ``[n]``, position in the source; every one at most once.
    """

    features: np.ndarray
    labels: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index


def extract(
    encode: Callable[..., Array],
    batches: Iterable[Batch],
    *,
    view: views.View,
    variables: tuple[Any, ...] = (),
    sharding: jax.sharding.Sharding | None = None,
) -> Features:
    """Encode every example of ``batches`` once; rows of padding are dropped.

    Args:
      encode: ``(*variables, images) -> features``: float32 ``[b, s, s, c]`` normalised images to ``[b, d]``,
        deterministic; such as ``method.encode``. It is compiled once as long as the same function object
        comes back.
      batches: dicts as ``data.epoch`` makes them: ``image`` ``[b, s, s, c]`` (uint8, uint16 or float),
        ``label``, ``index`` and ``mask`` (True = a real example), all ``[b]``. The host decodes a batch while
        the device encodes the one before.
      view: gives the mean and std of the normalisation; nothing random is applied.
      variables: parameters and state for ``encode``: as arguments they may change without another
        compilation.
      sharding: where the images go; ``None``: the default device.

    Returns:
      ``Features`` of the rows with ``mask``.

    Raises:
      ValueError: no example at all, or an example that came twice.

    >>> import numpy as np
    >>> batch = {"image": np.zeros((2, 4, 4, 1), np.uint8), "label": np.array([3, -1]),
    ...          "index": np.array([0, 0]), "mask": np.array([True, False])}
    >>> found = extract(lambda images: images.reshape(len(images), -1), [batch], view=views.View())
    >>> found.features.shape, found.labels.tolist()
    ((1, 16), [3])
    """
    parts: list[tuple[Any, np.ndarray, np.ndarray, np.ndarray]] = []
    for batch in batches:
        images = batch["image"] if sharding is None else jax.device_put(batch["image"], sharding)
        encoded = _encode(encode, view, variables, images)
        if parts:
            parts[-1] = _fetch(*parts[-1])  # one batch late, so that device and host overlap
        parts.append((encoded, *(np.asarray(batch[name]) for name in ("label", "index", "mask"))))
    check.require(bool(parts), "batches", "nothing", "one batch or more")
    parts[-1] = _fetch(*parts[-1])
    features, labels, index = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:3])
    check.require(len(index) > 0, "batches", "only padding", "at least one example")
    positions, counts = np.unique(index, return_counts=True)
    repeated = positions[counts > 1].tolist()
    check.require(not repeated, "batches", f"index {repeated[:5]} more than once", "every example once")
    return Features(features, labels.astype(np.int32), index.astype(np.int32))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    encode: Callable[..., Array], view: views.View, variables: tuple[Any, ...], images: AnyArray
) -> Array:
    features = encode(*variables, views.normalize_for_evaluation(images, view))
    return features.astype(jnp.float32)


def _fetch(encoded: Any, labels: np.ndarray, index: np.ndarray, mask: np.ndarray):
    return np.asarray(encoded)[mask], labels[mask], index[mask], mask
