"""Examples of a source with their features, for the parts of a report that show pictures."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_jax.augment.color import to_float
from ssl_jax.augment.host import host_crops
from ssl_jax.augment.views import View, groups, make_views
from ssl_jax.core import check
from ssl_jax.core.types import Batch, Key, Params, State
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import CorruptImage, Source, take_evenly
from ssl_jax.methods.method import Method
from ssl_jax.report.pictures import raw, shrink
from ssl_jax.train.features import extract

THUMBNAIL = 40
"""Largest side of a small picture, pixels."""
ORIGINAL = 512
"""Largest side of a picture of an image as it is, pixels; larger ones are shrunk for the page."""


class Sample(NamedTuple):
    """Examples at even distances from a source.

    Attributes:
      features: features, float32 ``[n, d]``.
      labels: labels, int32 ``[n]``, -1: none.
      thumbnails: small pictures, uint8 ``[n, h, w, c]``, c 1 or 3, at most ``THUMBNAIL`` pixels wide.
      names: file names.
      images: ``[m, s, s, c]`` some of them as the encoder gets them but for the normalisation, in the source's dtype.
    """

    features: np.ndarray
    labels: np.ndarray
    thumbnails: np.ndarray
    names: list[str]
    images: np.ndarray


def encode_sample(
    method: Method,
    params: Params,
    state: State,
    source: Source,
    *,
    count: int = 2000,
    num_images: int = 8,
    crop_ratio: float = 1.0,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> Sample:
    """Encode ``count`` examples; unreadable images are left out.

    Args:
      method: method that gives ``encode`` and the size and normalisation of the images.
      params: parameters of the method.
      state: state of the method.
      source: examples.
      count: number of examples at most, at even distances.
      num_images: number of images to return in full, at even distances too.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.
      max_corrupt_fraction: see there too.

    Raises:
      ValueError: a count below 3, or no readable image.
      TooManyCorrupt: more unreadable images than that.
    """
    check.require(count >= 3, "count", count, "3 or more examples")
    part = take_evenly(source, count)
    view = method.views[0]
    thumbnails: list[np.ndarray] = []
    full: list[np.ndarray] = []
    selected = set(np.linspace(0, len(part) - 1, num_images).round().astype(int).tolist())

    def collect(batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            for image, index, real in zip(batch["image"], batch["index"], batch["mask"], strict=True):
                if real:
                    thumbnails.append(shrink(np.asarray(image), THUMBNAIL))
                    if int(index) in selected:
                        full.append(np.asarray(image))
            yield batch

    with epoch(
        part,
        batch_size=250,
        size=view.size,
        crop_ratio=crop_ratio,
        max_corrupt_fraction=max_corrupt_fraction,
    ) as batches:
        encoded = extract(method.encode, collect(batches), view=view, variables=(params, state))
    names = [part.file_name(int(i)) for i in encoded.index]
    images = np.stack(full or [np.zeros((view.size, view.size, source.channels), np.uint8)])
    return Sample(encoded.features, encoded.labels, np.stack(thumbnails), names, images)


class Views(NamedTuple):
    """An image and what training sees of it: the original and its views in [0, 1], in the order of the method's views.

    A large original is shrunk to `ORIGINAL` pixels.
    """

    original: np.ndarray
    views: list[np.ndarray]


def draw_views(key: Key, source: Source, views: tuple[View, ...], *, count: int = 5) -> list[Views]:
    """Draw views of some images as training draws them, crops made on the host.

    Args:
      key: random key, used once.
      source: images; unreadable ones are passed over.
      views: views of the method.
      count: number of images, at even distances.

    Returns:
      At most ``count`` examples.

    >>> from ssl_jax.data.sources import ArraySource
    >>> source = ArraySource(np.zeros([2, 8, 8, 1], np.uint8))
    >>> drawn = draw_views(jax.random.key(0), source, (View(size=4), View(size=2)), count=2)
    >>> [view.shape for view in drawn[0].views]
    [(4, 4, 1), (2, 2, 1)]
    """
    crop_key, view_key = jax.random.split(key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(crop_key)).ravel().tolist())
    originals: list[np.ndarray] = []
    crops: list[Any] = []
    part = take_evenly(source, count)
    for i in range(len(part)):
        try:
            image = part[i]["image"]
        except CorruptImage:
            continue
        large = max(image.shape[:2]) > ORIGINAL
        originals.append(np.asarray(to_float(shrink(np.asarray(image), ORIGINAL) if large else image)))
        crops.append(host_crops(rng, image, views))
    if not originals:
        return []
    batch = {"crops": tuple(np.stack(group) for group in zip(*crops, strict=True))}
    made = make_views(view_key, batch, views)
    ordered: dict[int, np.ndarray] = {}
    for array, indices in zip(made, groups(views), strict=True):
        for position, index in enumerate(indices):
            ordered[index] = raw(np.asarray(array[:, position]), views[index])
    return [
        Views(original, [ordered[v][i] for v in range(len(views))]) for i, original in enumerate(originals)
    ]
