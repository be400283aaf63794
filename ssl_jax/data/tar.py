"""Tar shards, on disk or behind URLs, in WebDataset's convention, with random access to every image.

The samples are in the order in which the shards are given (sorted by name where a folder stands for them) and, in a shard,
in that of its members. An index of every shard is made in one pass and kept (`ssl_jax.data.tar_index`), so that an image
is one read of a range, and the stream of a run is the same function of (seed, step) as for any other source.
"""

import bisect
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ssl_jax.data.encoded import EncodedSource, read_piece
from ssl_jax.data.file_cache import SIZE, data_cache, key_of
from ssl_jax.data.files import counted, printable
from ssl_jax.data.label_column import Column, number_classes, one_sided_classes, read_labels
from ssl_jax.data.shard_order import BUFFER, ShardOrder
from ssl_jax.data.sources import CorruptImage, Source, parse_split, take_part
from ssl_jax.data.split_files import files_by_split
from ssl_jax.data.stores import (
    StoredFile,
    base_name,
    download,
    find_files,
    is_url,
    read_range,
    redact,
    stat_file,
)
from ssl_jax.data.tar_index import TarIndex, index_shards
from ssl_jax.data.values import MAX_IMAGE_MIB, Values

CLASS_NAMES = "classnames.txt"
"""File beside the shards that names the labels 0, 1, ..., one a line."""
_MOST_NAMES = 2**24  # bytes of it


def open_tar(
    shards: str | os.PathLike[str],
    split: str = "train",
    *,
    image: str | None = None,
    label: str | None = None,
    channels: int | None = None,
    dtype: str | None = None,
    splits: Collection[str] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    max_value: float | None = None,
    percentiles: tuple[float, float] | None = None,
    max_image_mib: float = MAX_IMAGE_MIB,
) -> Source:
    """Open tar shards, each image by a read of its range.

    Args:
      shards: a tar file, a folder of them at any depth, a pattern with braces (``train-{000..127}.tar``) or asterisks, or
        several of these joined by ``::``; on disk or ``http(s)://``, ``gs://``, ``s3://``, ``hf://``.
      split: split, or part of one. Shards belong to a split where their path has its name, such as ``val-000.tar``; where
        none has, all are ``train``. A part such as ``train[:90%]`` is a fixed pseudo-random choice of the samples.
      image: extension of the images in a sample, such as ``jpg`` or ``left.png``; None: the first that is one.
      label: extension of the labels, or the name of an entry of ``.json``; None: ``cls``, else the entry ``label``;
        ``""``: the images are opened without labels. `ssl_jax.data.label_column.read_labels` says what may be stored;
        numbers have the names of ``classnames.txt``, a line each, where that lies beside the shards.
      channels, dtype: of the elements; None: from a sample of the headers, as for folders.
      splits: names of splits beside the usual ones, which paths of shards may have too.
      cache_dir: for the indices; None: ``ssl_jax/tar`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
      max_value, percentiles, max_image_mib: how stored values are read, and how large an image may be, see
        :class:`ssl_jax.data.values.Values`.

    Raises:
      ValueError: no shard, split, image, or none that can be read, a compressed shard, labels that are no classes; says
        what to do.
      ImportError: the package of a kind of URL is not installed; names it.
      OSError: a shard that does not exist, or a store that cannot be reached.
    """
    values = Values(max_value, percentiles, max_image_mib)
    source = _open(shards, split, image, label, splits=splits, cache_dir=cache_dir, values=values)
    source.infer(channels=channels, dtype=dtype)
    return take_part(source, split, scattered=True)


def open_tar_in_order(
    shards: str | os.PathLike[str],
    split: str = "train",
    *,
    shuffle_buffer: int = BUFFER,
    image: str | None = None,
    label: str | None = None,
    channels: int | None = None,
    dtype: str | None = None,
    splits: Collection[str] = (),
    max_value: float | None = None,
    percentiles: tuple[float, float] | None = None,
    max_image_mib: float = MAX_IMAGE_MIB,
) -> Source:
    """Open tar shards that training reads one after the other: for stores where reads of ranges are slow.

    The elements are those of :func:`open_tar`. Training takes them in another order, that of
    :class:`ssl_jax.data.shard_order.ShardOrder`: the shards shuffled, each sample delayed by a random number of places. It
    is a function of (seed, step) too. A shard behind a URL is fetched whole, once an epoch at most, into the cache of the
    user.

    Args:
      shards: as in :func:`open_tar`.
      split: whole split.
      shuffle_buffer: largest delay, in samples.
      image, label, channels, dtype, splits, max_value, percentiles, max_image_mib: as in :func:`open_tar`.

    Raises:
      ValueError: as in :func:`open_tar`; a part of a split; a cache that does not hold the shards that are read together.
      OSError: as in :func:`open_tar`.
    """
    if parse_split(split)[1:] != (None, None):
        raise ValueError(f"split={split!r}: tar_in_order: takes whole splits, tar: also parts of them")
    values = Values(max_value, percentiles, max_image_mib)
    source = _open(shards, split, image, label, splits=splits, cache_dir=None, values=values)
    source.read_in_order(shuffle_buffer)
    source.infer(channels=channels, dtype=dtype)
    return source


def _open(
    shards: str | os.PathLike[str],
    split: str,
    image: str | None,
    label: str | None,
    *,
    splits: Collection[str],
    cache_dir: str | os.PathLike[str] | None,
    values: Values,
) -> "TarSource":
    pattern, base = os.fspath(shards), parse_split(split)[0]
    place = redact(pattern)
    try:
        files, names, root = find_files(pattern, ".tar")
    except FileNotFoundError as error:
        raise ValueError(f"tar:{place}: {_spoken(error)}") from error
    by_split, notes = files_by_split(names, base, {s.lower() for s in splits}, kind="tar", where=place)
    wanted = [name.lower() for name in base.split("+")]
    class_names = _class_names(root) if label != "" else ()
    # With names of the classes, or without labels, other splits have nothing to say.
    read = wanted if class_names or label == "" else sorted(by_split, key=lambda s: (s != "train", s))
    folder = None if cache_dir is None else Path(cache_dir).expanduser()
    indices = dict(
        zip(
            [(name, i) for name in read for i in by_split[name]],
            index_shards(
                [files[i] for name in read for i in by_split[name]], image=image, label=label, folder=folder
            ),
            strict=True,
        )
    )
    chosen = [(name, i) for name in wanted for i in by_split[name]]
    source = TarSource(
        [files[i] for _, i in chosen],
        [
            base_name(names[i]) if len(set(map(base_name, names))) == len(names) else names[i]
            for _, i in chosen
        ],
        [indices[each] for each in chosen],
        name=f"tar:{place}/{base}",
        values=values,
    )
    source.splits = tuple(sorted(name for name in by_split if name)) if len(by_split) > 1 else ()
    source.notes = (*notes, *source.notes)
    columns = {
        f"{name}": _column(
            [indices[each] for each in indices if each[0] == name], f"tar:{place}/{name}", class_names
        )
        for name in read
    }
    source.number_labels(columns, wanted)
    return source


def _spoken(error: FileNotFoundError) -> str:
    return f"{printable(error.filename)} does not exist" if error.filename else str(error)


def _class_names(root: str) -> tuple[str, ...]:
    """The names beside the shards; () where there are none, or their server does not say so in a way that is understood."""
    try:
        file = stat_file(f"{root}{CLASS_NAMES}")
        if not 0 < file.size <= _MOST_NAMES:
            return ()
        lines = read_range(file, 0, file.size).decode("utf-8").splitlines()
    except (FileNotFoundError, PermissionError, CorruptImage, UnicodeDecodeError):
        return ()
    return tuple(line.strip() for line in lines if line.strip())


def _column(indices: Sequence[TarIndex], where: str, class_names: tuple[str, ...]) -> Column:
    labels = [label for index in indices for label in index.labels]
    numbers = all(label is None or isinstance(label, int) for label in labels)
    try:
        return read_labels(labels, where=f"label of {where}", names=class_names if numbers else ())
    except ValueError as error:
        raise ValueError(f"{error}; --config.data.label_column names another, an empty name none") from error


class TarSource(EncodedSource):
    """Images in tar files. Made by `open_tar`.

    Args:
      files: the shards.
      names: what they are called, each differently.
      indices: their samples.
      name: name for people.
      values: how stored values are read, and how large an image may be.

    Attributes:
      ends: int64 ``[shards]``, number of samples in all shards up to each.
      order: in which order training takes the samples; None: any at random.

    Raises:
      ValueError: no sample with an image.
    """

    order: ShardOrder | None = None

    def __init__(
        self,
        files: Sequence[StoredFile],
        names: Sequence[str],
        indices: Sequence[TarIndex],
        *,
        name: str,
        values: Values,
    ):
        self.name, self.values = name, values
        self._files = list(files)
        self._shards = [printable(each) for each in names]
        self._members = [member for index in indices for member in index.names]
        self._starts = np.concatenate([np.zeros(0, np.int64), *(index.starts for index in indices)])
        self._sizes = np.concatenate([np.zeros(0, np.int64), *(index.sizes for index in indices)])
        self.ends = np.cumsum([len(index.names) for index in indices])
        self.files = tuple((shard, file.size) for shard, file in zip(self._shards, files, strict=True))
        self.labels = np.full(len(self._members), -1, np.int32)
        self.notes = tuple(_notes(self._shards, indices))
        if not self._members:
            found = f": {'; '.join(self.notes)}" if self.notes else ""
            raise ValueError(f"{name} has no sample with an image{found}")

    def number_labels(self, columns: dict[str, Column], wanted: Sequence[str]) -> None:
        """Number the labels of the source by the classes of all splits."""
        numbered = number_classes(columns, where=f"label of {self.name}")
        labels = dict(zip(columns, numbered.labels, strict=True))
        self.classes = numbered.classes
        self.labels = np.concatenate([labels[name] for name in wanted])
        self.notes += (*numbered.notes, *one_sided_classes(self.classes, labels))

    def read_in_order(self, shuffle_buffer: int) -> None:
        """Take the samples in the order of the shards when training, and fetch these whole.

        Raises:
          ValueError: a buffer below 1, or a cache that does not hold the shards that are read together.
        """
        self.order = ShardOrder(self.ends, shuffle_buffer)
        cache = data_cache()
        if not self._is_remote():
            return
        # A window of the buffer lies in so many shards, and one more at either end.
        fewest = int(np.diff(self.ends, prepend=0).min())
        together = sorted((file.size for file in self._files), reverse=True)
        need = sum(together[: shuffle_buffer // max(fewest, 1) + 2])
        if cache is None or cache.max_bytes < need:
            raise ValueError(
                f"{SIZE}: tar_in_order: reads shards of {need / 2**30:.3g} GiB together, and the cache may have "
                f"{(cache.max_bytes if cache else 0) / 2**30:.3g} GiB: allow more, or a smaller shuffle_buffer"
            )

    def file_name(self, index: int, /) -> str:
        return f"{self._shards[self._shard_of(index)]}/{printable(self._members[index])}"

    def read_encoded(self, index: int, /) -> bytes:
        """Read the file of an image as it is stored; raises `CorruptImage` where its shard is gone or damaged."""
        file = self._files[self._shard_of(index)]
        start = int(self._starts[index])
        stop = start + int(self._sizes[index])
        try:
            if self.order is not None and is_url(file.location):
                return self._read_from_copy(file, start, stop)
            return read_piece(file, start, stop)
        except CorruptImage as error:
            raise CorruptImage(self.file_name(index), error.reason) from error

    def _read_from_copy(self, file: StoredFile, start: int, stop: int) -> bytes:
        cache = data_cache()
        if cache is None:
            return read_piece(file, start, stop)

        def write(target: BinaryIO) -> None:
            download(file, target)

        try:
            with cache.open(key_of(file.location, file.size, file.stamp), file.size, write) as copy:
                copy.seek(start)
                return copy.read(stop - start)
        except FileNotFoundError as error:
            raise CorruptImage(redact(file.location), "it is gone") from error

    def _shard_of(self, index: int) -> int:
        return bisect.bisect_right(self.ends, index)

    def _is_remote(self) -> bool:
        return any(is_url(file.location) for file in self._files)


def _notes(shards: Sequence[str], indices: Sequence[TarIndex]) -> list[str]:
    """Say what was met in the shards that is no sample with one image."""
    notes = []
    kinds: dict[str, list[tuple[str, int]]] = {}
    for shard, index in zip(shards, indices, strict=True):
        for what, count in index.odd.items():
            kinds.setdefault(what, []).append((shard, count))
    for what, found in sorted(kinds.items()):
        count, shard = sum(number for _, number in found), found[0][0]
        if what.startswith(("an end", "damage")):
            notes.append(f"warning: {what} of {counted(len(found), 'shard')}, such as {shard}: copy it again")
        else:
            notes.append(f"{count} {what}, such as in {shard}")
    return notes
