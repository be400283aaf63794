"""A folder of image files, of any depth and in any mixture of formats."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssl_jax.data.decode import decode
from ssl_jax.data.files import (
    SUFFIXES,
    UNREAD_FORMATS,
    decode_element,
    describe_unreadable,
    identify_file,
    infer_format,
    notes_on_values,
    open_file,
    printable,
    require_promised_shape,
    sample_indices,
    sampled_headers,
)
from ssl_jax.data.listing import (
    ClassTable,
    Layout,
    Listing,
    class_table,
    describe_left_out,
    describe_listing,
    find_splits,
    list_files,
    outline,
    outline_of_names,
)
from ssl_jax.data.remote_folder import open_remote_folder
from ssl_jax.data.sources import CorruptImage, Element, Source, parse_split, take_part
from ssl_jax.data.stores import is_url
from ssl_jax.data.values import AS_STORED, MAX_IMAGE_MIB, Values


def open_folder(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    channels: int | None = None,
    dtype: str | None = None,
    splits: Collection[str] = (),
    max_value: float | None = None,
    percentiles: tuple[float, float] | None = None,
    max_image_mib: float = MAX_IMAGE_MIB,
) -> Source:
    """Open a folder of images.

    JPEG, PNG, BMP, GIF (first frame), TIFF, WebP, PPM and .npy ``[h, w]`` or ``[h, w, c]``; see ``decode.py``
    for what becomes of palettes, alpha and depths. Hidden files, files of the system and files with other suffixes are left
    out, counted and named in ``notes``. The order is that of the names, whatever the file system says.

    Labels: where every image lies in one of two or more sub-folders, these are the classes, in the order of
    their names; all splits share one table of classes (:func:`ssl_jax.data.listing.class_table`). Splits: where all
    sub-folders are named train, test, val and so on, and no image lies beside them, they are splits; elsewhere ``train`` is the
    whole folder. A part such as ``train[:90%]`` is a fixed pseudo-random choice of the files, so that it has
    every class.

    Args:
      path: the folder, or its URL (:func:`ssl_jax.data.remote_folder.open_remote_folder`).
      split: split, or part of one.
      channels: channels of the elements; None: 1 where all of a sample of headers are gray, 3 where any has colour, N
        where all have N.
      dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``; None: uint16 (float32) where all of the sample have
        16 bits (floats), else uint8.
      splits: names of splits beside the usual ones, where other sub-folders are splits too.
      max_value, percentiles, max_image_mib: how stored values are read, and how large an image may be, see
        :class:`ssl_jax.data.values.Values`.

    Raises:
      ValueError: no such folder, no such split, no image, or none that can be read; says what to do.
    """
    if is_url(path):
        return open_remote_folder(
            os.fspath(path),
            split,
            channels=channels,
            dtype=dtype,
            splits=splits,
            max_value=max_value,
            percentiles=percentiles,
            max_image_mib=max_image_mib,
        )
    values = Values(max_value, percentiles, max_image_mib)
    root = Path(path).expanduser()
    if not root.exists():
        raise ValueError(f"folder:{path} does not exist (looked in {root.absolute()})")
    if not root.is_dir():
        raise ValueError(
            f"folder:{path} is a file: give the folder that holds the images, here folder:{root.parent}"
        )
    layout = find_splits(root, parse_split(split)[0], splits=splits)
    listing = list_files(root, layout.start, beside=layout.beside)
    if not listing.names:
        raise ValueError(_no_image(root, layout.start, listing))
    table = shared_classes(root, layout, listing)
    source = FolderSource(
        root,
        listing.names,
        start=layout.start,
        ignored=listing.counts,
        classes=table.classes,
        notes=all_notes(root, layout, listing, table),
        channels=channels,
        dtype=dtype,
        values=values,
    )
    source.splits = layout.splits
    return take_part(source, split, scattered=True)


class FolderSource:
    """Image files under a folder. Made by `open_folder`.

    Args:
      root: the folder that names are relative to.
      names: names of the files, with ``/``, in their order.
      start: the sub-folder that is the split, ``""`` for the whole; classes are the sub-folders in it.
      ignored: number of files left out, by suffix or reason.
      classes: names of the sub-folders that are classes, sorted; a file in another has no label.
      depth: how deep in a class's folder its images lie at least.
      notes: what was found at opening, one sentence each.
      channels, dtype: of the elements, None to infer them.
      values: how stored values are read, and how large an image may be.

    Attributes:
      labels: int32 ``[n]``, -1 where there is none.
      splits: names of the splits of the folder; () where it has none.
      ignored, notes: as above.
    """

    splits: tuple[str, ...] = ()

    def __init__(
        self,
        root: Path,
        names: list[str],
        *,
        start: str = "",
        ignored: dict[str, int] | None = None,
        classes: Sequence[str] = (),
        depth: int = 1,
        notes: Sequence[str] = (),
        channels: int | None = None,
        dtype: str | None = None,
        values: Values = AS_STORED,
    ):
        self.root = str(root)
        self.name = f"folder:{root / start}"
        self.ignored = dict(ignored or {})
        self._names = names
        self.classes = tuple(printable(name) for name in classes)
        self.labels = _labels(names, start, classes, depth)
        sample = sample_indices(len(names))
        files = {self.file_name(i): os.path.join(self.root, names[i]) for i in sample}
        headers, damaged = sampled_headers(files.items(), values=values)
        if not headers:
            raise ValueError(
                f"{self.name}: none of the {len(sample)} images looked at can be read: {damaged[0]}"
            )
        self.values = values
        self.channels, self.dtype = infer_format(
            headers, channels=channels, dtype=dtype, where=self.name, values=values
        )
        sizes = {header.shape[:2] for header in headers}
        whole = len(sample) == len(names) and len(sizes) == 1
        self.shape: tuple[int, int, int] | None = (*sizes.pop(), self.channels) if whole else None
        self.notes = (*notes, *_unreadable(damaged, files), *notes_on_values(self, headers, values, damaged))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> Element:
        name = self.file_name(index)
        with open_file(self.path(index), name=name) as file:
            image = decode(file, name=name, channels=self.channels, dtype=self.dtype, values=self.values)
        return {
            "image": require_promised_shape(image, self.shape, name=name),
            "label": int(self.labels[index]),
        }

    def read_reduced(self, index: int, most: Callable[[int, int], float]) -> Element:
        """Read an element for crops, see :func:`ssl_jax.data.files.decode_element`."""
        name, label = self.file_name(index), int(self.labels[index])
        with open_file(self.path(index), name=name) as file:
            return decode_element(file, name=name, source=self, label=label, most=most)

    def file_name(self, index: int, /) -> str:
        return printable(self._names[index])

    def read_encoded(self, index: int, /) -> bytes:
        """Read a file as it is stored; raises `CorruptImage` where it cannot be opened."""
        with open_file(self.path(index), name=self.file_name(index)) as file:
            return file.read()

    def path(self, index: int, /) -> str:
        """Where the file of an element lies: its name, below ``root``."""
        return os.path.join(self.root, self._names[index])


def shared_classes(root: Path, layout: Layout, listing: Listing, *, depth: int = 1) -> ClassTable:
    """Make the table of classes that all splits of a folder share.

    Args:
      root: the folder.
      layout: its splits.
      listing: files of the split that is opened.
      depth: how deep in a class's folder its images lie at least.
    """
    if not layout.splits:
        return class_table({"": outline_of_names(listing.names, "", depth=depth)})
    # The same look at every split, whichever is opened: so all openings agree.
    return class_table({split: outline(root, split, depth=depth) for split in layout.splits})


def all_notes(root: Path, layout: Layout, listing: Listing, table: ClassTable) -> tuple[str, ...]:
    """Say what opening a folder has found: its splits, what was left out, what is odd about its classes."""
    found = (f"splits: {', '.join(map(printable, layout.splits))}",) if layout.splits else ()
    return (*found, *layout.notes, *describe_listing(root, listing, start=layout.start), *table.notes)


def _labels(names: Sequence[str], start: str, classes: Sequence[str], depth: int) -> np.ndarray:
    if not classes:
        return np.full(len(names), -1, np.int32)
    begin = len(start) + 1 if start else 0
    numbers = {name: number for number, name in enumerate(classes)}
    labels = [
        numbers.get(name[begin:].split("/", 1)[0], -1) if name.count("/", begin) >= depth else -1
        for name in names
    ]
    return np.array(labels, np.int32)


def _unreadable(damaged: Sequence[CorruptImage], files: Mapping[str, str]) -> list[str]:
    kinds = {error.name: identify_file(files[error.name]) for error in damaged}
    foreign = [error for error in damaged if kinds[error.name] in UNREAD_FORMATS]
    hint = f" ({kinds[foreign[0].name]} by content: convert to JPEG or PNG)" if foreign else ""
    return [f"{note}{hint}" for note in describe_unreadable([*foreign, *damaged][: len(damaged)], len(files))]


def _no_image(root: Path, start: str, listing: Listing) -> str:
    count = sum(listing.counts.values())
    found = f"it has {count} other files: {_counts(listing.counts)}" if count else "it is empty"
    if listing.unreadable:
        name, reason = listing.unreadable[0]
        found += f"; {printable(name) or 'it'} cannot be read: {reason}"
    hints = f". Left out: {describe_left_out(root, listing)}" if count else ""
    return (
        f"folder:{root / start} has no image, {found}. Image files end in {' '.join(sorted(SUFFIXES))}{hints}"
    )


def _counts(ignored: dict[str, int]) -> str:
    most = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))[:5]
    return ", ".join(f"{count} {suffix}" for suffix, count in most)
