"""Frozen features of every example, counted once."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax.augment import color, views
from ssl_jax.core import check
from ssl_jax.core.types import Array, Batch
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.device_put import local_share, put_batch
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source

AnyArray = Array | np.ndarray


class NothingToEncode(ValueError):
    """There is no example, or none that can be read."""


class Features(NamedTuple):
    """Features of the n examples that can be read, in the order in which they came.

    Row i belongs to example ``index[i]`` of the source, not to example i: unreadable images have no row. The three go together;
    what counts examples as the source does, such as a draw of labels, wants :meth:`labels_in`.

    Attributes:
      features: float32 ``[n, d]``.
      labels: int32 ``[n]``, -1 where there is none.
      index: int32 ``[n]``, position in the source; every one at most once.
    """

    features: np.ndarray
    labels: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index

    def labels_in(self, source: Source) -> np.ndarray:
        """Return the labels in the order of the source: int32 ``[len(source)]``, -1 where an image cannot be read too.

        Args:
          source: whose features these are.

        >>> from ssl_jax.data.sources import ArraySource
        >>> readable = Features(np.zeros([2, 4]), np.array([7, 8]), np.array([0, 2]))
        >>> readable.labels_in(ArraySource(np.zeros([3, 2, 2], np.uint8))).tolist()
        [7, -1, 8]
        """
        labels = np.full(len(source), -1, np.int32)
        labels[self.index] = self.labels
        return labels


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
      batches: dicts as ``data.epoch`` makes them: ``image`` ``[b, s, s, c]`` (uint8, uint16 or float in [0, 1]),
        ``label``, ``index`` and ``mask`` (True = a real example), all ``[b]``. The host decodes a batch while
        the device encodes the one before.
      view: gives the mean and std of the normalisation; nothing random is applied.
      variables: parameters and state for ``encode``: as arguments they may change without another
        compilation.
      sharding: where the images go; ``None``: the default device. If it spans several processes, ``batches`` are this process's
        part of them, and every process gets the features of all.

    Returns:
      ``Features`` of the rows with ``mask``.

    Raises:
      ValueError: no example at all, an example that came twice, or float images far outside of [0, 1].

    >>> import numpy as np
    >>> batch = {"image": np.zeros((2, 4, 4, 1), np.uint8), "label": np.array([3, -1]),
    ...          "index": np.array([0, 0]), "mask": np.array([True, False])}
    >>> extracted = extract(lambda images: images.reshape(len(images), -1), [batch], view=views.View())
    >>> extracted.features.shape, extracted.labels.tolist()
    ((1, 16), [3])
    """
    parts: list[tuple[Any, Any, Any]] = []
    everywhere = None
    if sharding is not None and not sharding.is_fully_addressable:
        assert isinstance(sharding, NamedSharding)
        everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    late: Any = None
    for batch in batches:
        images, rows = batch["image"], tuple(batch[name] for name in ("label", "index", "mask"))
        color.require_unit_range(images, "batch['image']")
        if sharding is not None:
            images, rows = put_batch((images, rows), sharding)
        encoded = _encode(encode, view, everywhere, variables, images, rows)
        if late is not None:
            parts.append(_fetch(*late))  # one batch late, so that device and host overlap
        late = encoded
    check.require(late is not None, "batches", "nothing", "one batch or more")
    parts.append(_fetch(*late))
    features, labels, index = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(index) == 0:
        raise NothingToEncode("batches='only padding': allowed is at least one example")
    positions, counts = np.unique(index, return_counts=True)
    repeated = positions[counts > 1].tolist()
    check.require(not repeated, "batches", f"index {repeated[:5]} more than once", "every example once")
    return Features(features, labels.astype(np.int32), index.astype(np.int32))


def extract_source(
    encode: Callable[..., Array],
    source: Source,
    *,
    view: views.View,
    variables: tuple[Any, ...] = (),
    sharding: jax.sharding.Sharding | None = None,
    batch_size: int = 256,
    crop_ratio: float = 1.0,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> Features:
    """Apply :func:`extract` to all images of a source. With several processes each reads its part of every batch.

    Args:
      encode: as for :func:`extract`.
      source: the images.
      view: gives their size too.
      variables: as for :func:`extract`.
      sharding: over which devices; ``None``: the default device.
      batch_size: images at a time; rounded up to a multiple of the devices.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.
      max_corrupt_fraction: see :func:`ssl_jax.data.loader.epoch`.

    Returns:
      ``Features`` of the readable images, in the order of the source.

    Raises:
      NothingToEncode: no image can be read; a ``ValueError``.
      TooManyCorrupt: more than the share cannot.
    """
    devices = 1 if sharding is None else len(sharding.device_set)
    batch_size = -(-batch_size // devices) * devices
    share = (0, 1) if sharding is None else local_share(sharding, batch_size)
    with epoch(
        source,
        batch_size=batch_size,
        size=view.size,
        crop_ratio=crop_ratio,
        max_corrupt_fraction=max_corrupt_fraction,
        share=share,
    ) as batches:
        try:
            return extract(encode, batches, view=view, variables=variables, sharding=sharding)
        except NothingToEncode as error:
            some = "; ".join(f"{name}: {reason}" for name, reason in list(batches.corrupt.items())[:3])
            raise NothingToEncode(
                f"{source.name}: none of the {len(source)} images can be read: {some}"
            ) from error


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _encode(
    encode: Callable[..., Array],
    view: views.View,
    everywhere: jax.sharding.Sharding | None,
    variables: tuple[Any, ...],
    images: AnyArray,
    rows: tuple[AnyArray, ...],
) -> tuple[Array, tuple[AnyArray, ...]]:
    """Features and rows of a batch; on every device all of them, if ``everywhere`` says how."""
    features = encode(*variables, views.normalize_for_evaluation(images, view)).astype(jnp.float32)
    if everywhere is None:
        return features, rows
    return jax.lax.with_sharding_constraint((features, rows), everywhere)


def _fetch(encoded: Any, rows: tuple[Any, Any, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, index, mask = (np.asarray(x) for x in rows)
    return np.asarray(encoded)[mask], labels[mask], index[mask]
