"""What sources have in common whose images are encoded files that are read as bytes, wherever they lie."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np

from ssl_jax.data.decode import decode
from ssl_jax.data.file_cache import data_cache, key_of
from ssl_jax.data.files import (
    decode_element,
    describe_unreadable,
    infer_format,
    notes_on_values,
    require_promised_shape,
    sample_indices,
    sampled_headers,
)
from ssl_jax.data.sources import CorruptImage, Element
from ssl_jax.data.stores import StoredFile, is_url, read_range, redact
from ssl_jax.data.values import Values

READERS = 32
"""Images that are read from a store at the same time by a process."""
_MOST_READ_AHEAD = 8192  # images of which the bytes are held


class EncodedSource:
    """Images that are files in some store, of which a subclass reads the bytes.

    A subclass has ``__len__``, ``file_name``, ``read_encoded``, and calls :meth:`infer` at the end of its ``__init__``.

    Attributes:
      name, shape, channels, dtype, classes: as :class:`ssl_jax.data.sources.Source` says.
      labels: int32 ``[n]``, -1 where there is none.
      values: how stored values are read, and how large an image may be.
      notes: sentences about what was found.
      files: name and size in bytes of the files that hold the images.
      splits: names of the splits; () where there are none.
    """

    name: str
    labels: np.ndarray
    values: Values
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    splits: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def file_name(self, index: int, /) -> str:
        """Name of the element that is unique in the source."""
        raise NotImplementedError

    def read_encoded(self, index: int, /) -> bytes:
        """Read the file of an image as it is stored; raises `CorruptImage` where it is damaged or gone."""
        raise NotImplementedError

    def infer(self, *, channels: int | None, dtype: str | None) -> None:
        """Set shape, channels, dtype and what is to be said of them, by a look at a sample of the images.

        Raises:
          ValueError: none of the sample can be read, or they do not go together.
        """
        sample = sample_indices(len(self))
        self.read_ahead(sample)
        headers, damaged = sampled_headers(map(self._named, sample), values=self.values)
        if not headers:
            raise ValueError(
                f"{self.name}: none of the {len(sample)} images looked at can be read: {damaged[0]}"
            )
        self.channels, self.dtype = infer_format(
            headers, channels=channels, dtype=dtype, where=self.name, values=self.values
        )
        sizes = {header.shape[:2] for header in headers}
        whole = len(sample) == len(self) and len(sizes) == 1
        self.shape: tuple[int, int, int] | None = (*sizes.pop(), self.channels) if whole else None
        self.notes += (
            *describe_unreadable(damaged, len(sample)),
            *notes_on_values(self, headers, self.values, damaged),
        )

    def __getitem__(self, index: int, /) -> Element:
        name = self.file_name(index)
        content = self._ahead.take(index)
        image = decode(content, name=name, channels=self.channels, dtype=self.dtype, values=self.values)
        return {
            "image": require_promised_shape(image, self.shape, name=name),
            "label": int(self.labels[index]),
        }

    def read_reduced(self, index: int, most: Callable[[int, int], float]) -> Element:
        """Read an element for crops, see :func:`ssl_jax.data.files.decode_element`."""
        name, label = self.file_name(index), int(self.labels[index])
        return decode_element(self._ahead.take(index), name=name, source=self, label=label, most=most)

    def read_ahead(self, indices: Sequence[int] | np.ndarray) -> None:
        """Begin to read images that are asked for next, many at a time; of those on disk nothing is read."""
        if self._is_remote():
            self._ahead.start([int(index) for index in indices])

    def _is_remote(self) -> bool:
        return False

    @property
    def _ahead(self) -> "ReadAhead":
        if "_reader" not in self.__dict__:
            self.__dict__.setdefault("_reader", ReadAhead(self.read_encoded))
        return self.__dict__["_reader"]

    def _named(self, index: int) -> tuple[str, Any]:
        try:
            return self.file_name(index), self._ahead.take(index)
        except CorruptImage as error:
            return self.file_name(index), error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_reader"}


class ReadAhead:
    """Bytes that are read by threads before they are asked for.

    Args:
      read: reads the bytes of an image.

    >>> ahead = ReadAhead(lambda index: bytes([index]))
    >>> ahead.start([1, 2])
    >>> ahead.take(2), ahead.take(7)
    (b'\\x02', b'\\x07')
    """

    def __init__(self, read: Callable[[int], bytes]):
        self._read = read
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()
        self._begun: OrderedDict[int, Future[bytes]] = OrderedDict()

    def start(self, indices: Sequence[int]) -> None:
        """Begin to read images; those that were begun longest ago are given up where there are too many."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="read_ahead")
            for index in indices:
                if index not in self._begun:
                    self._begun[index] = self._pool.submit(self._read, index)
            while len(self._begun) > _MOST_READ_AHEAD:
                self._begun.popitem(last=False)[1].cancel()

    def take(self, index: int) -> bytes:
        """Return the bytes of an image, waiting for them, or reading them now where they were not begun."""
        with self._lock:
            begun = self._begun.pop(index, None)
        return self._read(index) if begun is None or begun.cancelled() else begun.result()


def read_piece(file: StoredFile, start: int, stop: int) -> bytes:
    """Read a range of a file: of one on disk directly, of one behind a URL through the cache of the user.

    Raises:
      CorruptImage: a file that is gone, that cannot be opened, or that ends before.
      ConnectionError: a store that cannot be reached.
    """
    try:
        cache = data_cache() if is_url(file.location) else None
        if cache is None:
            content = read_range(file, start, stop)
        else:
            key = key_of(file.location, file.size, file.stamp, start, stop)
            content = cache.read(key, stop - start, lambda: read_range(file, start, stop))
    except FileNotFoundError as error:
        raise CorruptImage(redact(file.location), "it is gone") from error
    if len(content) != stop - start:
        raise CorruptImage(
            redact(file.location), f"it ends after {start + len(content)} bytes: changed since it was opened"
        )
    return content
