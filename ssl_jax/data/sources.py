"""What the pipeline reads from: the `Source` protocol, sources of arrays, and parts of sources.

An element is ``{"image": [h, w, c] uint8 | uint16 | float32 in [0, 1], "label": int}``; the label is -1
where there is none.
A source is pickled to the workers of the loader, so it holds paths and small tables, never open files.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ssl_jax.core import check
from ssl_jax.data.image_array import notes_on_array, read_images
from ssl_jax.data.label_column import Classes, number_labels
from ssl_jax.data.values import Values, require_range

_log = logging.getLogger(__name__)

Element = dict[str, Any]
"""``{"image": np.ndarray [h, w, c], "label": int}``."""

DTYPES = ("uint8", "uint16", "float32")


class CorruptImage(Exception):
    """An element whose image cannot be read; the loader counts it, names it once and takes another.

    Args:
      name: name of the file or record.
      reason: defect, in one line.

    >>> raise CorruptImage("cats/7.jpg", "truncated")
    Traceback (most recent call last):
    ...
    ssl_jax.data.sources.CorruptImage: cats/7.jpg: truncated
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@runtime_checkable
class Source(Protocol):
    """Random access to labelled or unlabelled images.

    Attributes:
      name: name for people, such as ``embedded/train``.
      shape: ``(h, w, c)`` where every image has it, None where sizes vary or are not known without a look at
        every file.
      channels: c of every image.
      dtype: ``"uint8"``, ``"uint16"`` or ``"float32"`` (in [0, 1]) of every image.
      classes: names of the labels 0, 1, ...; () where there are no labels or they have no names.
    """

    name: str
    shape: tuple[int, int, int] | None
    channels: int
    dtype: str
    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Element:
        """The element; raises `CorruptImage` where the image cannot be read, and nothing else."""

    def file_name(self, index: int, /) -> str:
        """Name of the element that is unique in the source and stays the same from run to run."""


class ArraySource:
    """A source over arrays in memory (or memory-mapped ones).

    The axes, dtype and range of the images are checked, the range on a sample and again wherever an image is read: a float
    image outside of [0, 1] is a `CorruptImage`.

    Args:
      images: ``[n, h, w, c]`` or ``[n, h, w]`` (one channel) of uint8 (0 to 255), uint16 (0 to 65535), bool (False black, True
        white), or floats in [0, 1]; of any real numbers with ``max_value`` or ``percentiles``.
      labels: ``[n]`` integers of 0 or more, strings, one-hot rows ``[n, k]`` and other forms that
        `ssl_jax.data.label_column.read_labels` knows; -1, None and NaN are no label. None: no labels.
      classes: names of the labels 0, 1, ...; (): integers are named by their number, from 0 to the largest, and
        strings are sorted. Give it where train and test images are two sources.
      name: name for people.
      start: number of the first image in ``file_name``.
      axes: layout of ``images``, such as ``nchw`` where channels come first or ``hwc`` of one image, of
        :data:`ssl_jax.data.image_array.AXES`. None: as above, and what looks like another layout is refused.
      max_value, percentiles: how values are scaled to [0, 1], see :class:`ssl_jax.data.values.Values`.

    Attributes:
      images: ``[n, h, w, c]``, not scaled yet.
      notes: sentences about what is odd about labels and values; those about values are logged as warnings too.

    Raises:
      ValueError: no image, another rank, layout, dtype or range, two classes of one name, or another number of labels;
        says what to do.

    >>> source = ArraySource(np.zeros([3, 8, 8], np.uint8), [0, 1, 1])
    >>> len(source), source.shape, source[2]["label"], source.file_name(2)
    (3, (8, 8, 1), 1, 'array/000002')
    """

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        *,
        classes: Sequence[str] = (),
        name: str = "array",
        start: int = 0,
        axes: str | None = None,
        max_value: float | None = None,
        percentiles: tuple[float, float] | None = None,
    ):
        self.values = Values(max_value, percentiles)
        self.images = read_images(images, axes=axes, values=self.values, labeled=labels is not None)
        numbered = _number_labels(labels, classes, len(self.images))
        odd = notes_on_array(self.images, self.values, axes=axes)
        for note in odd:
            _log.warning("%s: %s", name, note)
        (self.labels,) = numbered.labels
        self.name = name
        self.start = start
        self.classes = numbered.classes
        self.notes = (*numbered.notes, *odd)
        self.shape: tuple[int, int, int] | None = self.images.shape[1:]
        self.channels = int(self.images.shape[3])
        self.dtype = "float32" if self.values.scaled else str(self.images.dtype)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Element:
        image = self.images[index]
        try:
            if self.values.scaled:
                image = self.values.scale(image)
            require_range(image)
        except ValueError as error:
            raise CorruptImage(self.file_name(index), str(error)) from error
        return {"image": image, "label": int(self.labels[index])}

    def file_name(self, index: int, /) -> str:
        return f"{self.name}/{self.start + index:06d}"


def _number_labels(labels: Any, classes: Sequence[str], count: int) -> Classes:
    check.require(len(set(classes)) == len(classes), "classes", classes, "different names, one a class")
    if labels is None:
        return Classes(tuple(classes), (np.full(count, -1, np.int32),), ())
    numbered = number_labels(labels, classes, where="labels")
    shape = numbered.labels[0].shape
    check.require(shape == (count,), "labels.shape", shape, f"({count},)")
    return numbered


class Subset:
    """Some elements of a source, in the given order.

    Args:
      source: the whole.
      indices: ``[n]`` which elements.
      name: name for people; None: the name of the whole.

    >>> part = Subset(ArraySource(np.zeros([9, 2, 2], np.uint8), range(9)), [4, 8])
    >>> len(part), part[1]["label"], part.file_name(1)
    (2, 8, 'array/000008')
    """

    def __init__(self, source: Source, indices: Any, *, name: str | None = None):
        indices = np.asarray(indices)
        check.require(indices.ndim == 1 and len(indices) > 0, "indices.shape", indices.shape, "(n,), n >= 1")
        self.source = source
        self.indices = indices
        self.name = source.name if name is None else name
        self.shape = source.shape
        self.channels = source.channels
        self.dtype = source.dtype
        self.classes = source.classes
        self.notes: tuple[str, ...] = tuple(getattr(source, "notes", ()))
        self.splits: tuple[str, ...] = tuple(getattr(source, "splits", ()))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Element:
        return self.source[int(self.indices[index])]

    def file_name(self, index: int, /) -> str:
        return self.source.file_name(int(self.indices[index]))


class Mapped:
    """A source whose images are those of another one after a function, all of one size.

    Args:
      source: the other one.
      function: ``image [h, w, c] -> [size, size, c]`` of the same dtype.
      size: side of its images in pixels.

    >>> half = Mapped(ArraySource(np.zeros([3, 8, 8], np.uint8)), lambda image: image[::2, ::2], 4)
    >>> half.shape, half[2]["image"].shape, half.file_name(2)
    ((4, 4, 1), (4, 4, 1), 'array/000002')
    """

    def __init__(self, source: Source, function: Callable[[np.ndarray], np.ndarray], size: int):
        self.source = source
        self.function = function
        self.name = source.name
        self.shape: tuple[int, int, int] | None = (size, size, source.channels)
        self.channels = source.channels
        self.dtype = source.dtype
        self.classes = source.classes
        self.notes: tuple[str, ...] = tuple(getattr(source, "notes", ()))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Element:
        element = self.source[index]
        return {**element, "image": self.function(element["image"])}

    def file_name(self, index: int, /) -> str:
        return self.source.file_name(index)


_SLICE = re.compile(r"(?P<name>[^\[\]]+?)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def parse_split(split: str) -> tuple[str, str | None, str | None]:
    """Take ``name[start:stop]`` apart, in TFDS's syntax; positions are numbers of examples or percents.

    Raises:
      ValueError: another form.

    >>> parse_split("train"), parse_split("train[:90%]"), parse_split("test[-100:]")
    (('train', None, None), ('train', None, '90%'), ('test', '-100', None))
    """
    match = _SLICE.fullmatch(split.strip())
    if match is None:
        raise ValueError(
            f"split={split!r}: allowed is a name such as train, a part such as train[:90%] or train[100:200]"
        )
    return match["name"], match["start"], match["stop"]


def slice_bounds(length: int, start: str | None, stop: str | None) -> tuple[int, int]:
    """Return the positions of a part of ``length`` examples; percents are rounded to the nearest example.

    A percentage between 0 and 100 leaves an example on both sides, where there are two: of 2 examples ``[:80%]`` has one and
    ``[80%:]`` the other.

    >>> slice_bounds(200, "50%", None), slice_bounds(200, None, "-10"), slice_bounds(3, None, "50%")
    ((100, 200), (0, 190), (0, 2))
    >>> slice_bounds(2, None, "80%"), slice_bounds(2, "80%", None), slice_bounds(3, "-10%", None)
    ((0, 1), (1, 2), (2, 3))
    """

    def position(text: str) -> int:
        percent = int(text[:-1]) if text.endswith("%") else 0
        value = round(length * percent / 100) if text.endswith("%") else int(text)
        value = min(max(value + length if value < 0 or percent < 0 else value, 0), length)
        return min(max(value, 1), length - 1) if 0 < abs(percent) < 100 and length > 1 else value

    return (0 if start is None else position(start)), (length if stop is None else position(stop))


def take_part(source: Source, split: str, *, scattered: bool = False) -> Source:
    """Return the part of a source that the brackets of ``split`` ask for; the source itself where there are none.

    Args:
      source: the whole split.
      split: split, such as ``train[:90%]``.
      scattered: take positions in an order given by a hash of the file names instead of the order of the
        source, so that a part of files that are sorted by class still has every class, and most files stay on
        their side when others are added. The part itself keeps the order of the source.

    Raises:
      ValueError: the part is empty.

    >>> source = ArraySource(np.zeros([200, 2, 2], np.uint8))
    >>> a, b = (take_part(source, s, scattered=True) for s in ("train[:90%]", "train[90%:]"))
    >>> len(a), len(b), len({*a.indices} | {*b.indices})
    (180, 20, 200)
    """
    _, first, last = parse_split(split)
    if first is None and last is None:
        return source
    start, stop = slice_bounds(len(source), first, last)
    if start >= stop:
        raise ValueError(f"split={split!r} has no example: the whole of {source.name} has {len(source)}")
    indices = np.arange(len(source))
    if scattered:
        names = (source.file_name(int(i)).encode("utf-8", "backslashreplace") for i in indices)
        hashes = [hashlib.blake2b(name, digest_size=8).digest() for name in names]
        indices = np.array(sorted(range(len(hashes)), key=hashes.__getitem__))
    return Subset(source, np.sort(indices[start:stop]), name=f"{source.name}[{first or ''}:{last or ''}]")


def take_evenly(source: Source, count: int) -> Subset:
    """Return at most ``count`` elements of a source, at even distances, the first and the last among them.

    >>> part = take_evenly(ArraySource(np.zeros([9, 2, 2], np.uint8), range(9)), 3)
    >>> [part[i]["label"] for i in range(3)]
    [0, 4, 8]
    """
    length = len(source)
    return Subset(source, np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)))
