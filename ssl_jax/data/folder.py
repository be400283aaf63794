"""A folder of image files, of any depth and in any mixture of formats."""

import collections
import logging
import os
from pathlib import Path

import numpy as np

from ssl_jax.data.decode import decode
from ssl_jax.data.files import (
    SUFFIXES,
    infer_format,
    open_file,
    printable,
    require_promised_shape,
    sample_indices,
    sampled_headers,
)
from ssl_jax.data.sources import Element, Source, parse_split, take_part

SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "unlabeled"})
"""Sub-folders with these names (in any case) are splits, not classes."""

_log = logging.getLogger(__name__)


def open_folder(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    channels: int | None = None,
    dtype: str | None = None,
) -> Source:
    """Open a folder of images.

    JPEG, PNG, BMP, GIF (first frame), TIFF, WebP, PPM and .npy ``[h, w]`` or ``[h, w, c]``; see ``decode.py``
    for what becomes of palettes, alpha and depths. Hidden files and files with other suffixes are left out
    and counted. The order is that of the names, whatever the file system says.

    Labels: where every image lies in one of two or more sub-folders, these are the classes, in the order of
    their names. Splits: sub-folders named train, test, val and so on; where there are none, ``train`` is the
    whole folder. A part such as ``train[:90%]`` is a fixed pseudo-random choice of the files, so that it has
    every class.

    Args:
      path: the folder.
      split: split, or part of one.
      channels: channels of the elements; None: 1 where all of a sample of headers are gray, 3 where any has colour, N
        where all have N.
      dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``; None: uint16 (float32) where all of the sample have
        16 bits (floats), else uint8.

    Raises:
      ValueError: no such folder, no such split, no image, or none that can be read; says what to do.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise ValueError(f"folder:{path} does not exist (looked in {root.absolute()})")
    if not root.is_dir():
        raise ValueError(
            f"folder:{path} is a file: give the folder that holds the images, here folder:{root.parent}"
        )
    name = parse_split(split)[0]
    start = split_folder(root, name)
    names, ignored = list_images(root, start)
    if not names:
        raise ValueError(_no_image(root / start, ignored))
    source = FolderSource(root, names, start=start, ignored=ignored, channels=channels, dtype=dtype)
    if ignored:
        _log.info("%s: left out %d files: %s", source.name, sum(ignored.values()), _counts(ignored))
    return take_part(source, split, scattered=True)


class FolderSource:
    """Image files under a folder. Made by `open_folder`.

    Args:
      root: the folder that names are relative to.
      names: names of the files, with ``/``, in their order.
      start: the sub-folder that is the split, ``""`` for the whole; classes are the sub-folders in it.
      ignored: number of files left out, by suffix.
      channels, dtype: of the elements, None to infer them.

    Attributes:
      ignored: as above.
    """

    def __init__(
        self,
        root: Path,
        names: list[str],
        *,
        start: str = "",
        ignored: dict[str, int] | None = None,
        channels: int | None = None,
        dtype: str | None = None,
    ):
        self.root = str(root)
        self.name = f"folder:{root / start}"
        self.ignored = dict(ignored or {})
        self._names = names
        self.classes, self.labels = _labels(names, start)
        sample = sample_indices(len(names))
        files = ((self.file_name(i), os.path.join(self.root, names[i])) for i in sample)
        headers, damaged = sampled_headers(files)
        if not headers:
            raise ValueError(
                f"{self.name}: none of the {len(sample)} images looked at can be read: {damaged[0]}"
            )
        self.channels, self.dtype = infer_format(headers, channels=channels, dtype=dtype, where=self.name)
        sizes = {header.shape[:2] for header in headers}
        whole = len(sample) == len(names) and len(sizes) == 1
        self.shape: tuple[int, int, int] | None = (*sizes.pop(), self.channels) if whole else None

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> Element:
        name = self.file_name(index)
        with open_file(os.path.join(self.root, self._names[index]), name=name) as file:
            image = decode(file, name=name, channels=self.channels, dtype=self.dtype)
        return {
            "image": require_promised_shape(image, self.shape, name=name),
            "label": int(self.labels[index]),
        }

    def file_name(self, index: int, /) -> str:
        return printable(self._names[index])


def list_images(root: Path, start: str = "") -> tuple[list[str], dict[str, int]]:
    """List the image files under a folder, sorted, and count other files by suffix.

    Follows links to folders, each real folder once; leaves out what is hidden (its name begins with a dot).

    Args:
      root: the names are relative to this.
      start: the sub-folder to look in.
    """
    names: list[str] = []
    ignored: collections.Counter[str] = collections.Counter()
    top = os.path.join(root, start) if start else os.fspath(root)
    seen: set[str] = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for file in files:
            suffix = os.path.splitext(file)[1].lower()
            if file.startswith("."):
                ignored["hidden"] += 1
            elif suffix in SUFFIXES:
                names.append(os.path.relpath(os.path.join(folder, file), root).replace(os.sep, "/"))
            else:
                ignored[suffix or "no suffix"] += 1
    return sorted(names), dict(sorted(ignored.items()))


def split_folder(root: Path, name: str) -> str:
    """Return the sub-folder of a split: ``""`` where the folder has no splits."""
    splits = sorted(
        entry.name
        for entry in root.iterdir()
        if entry.is_dir() and entry.name.lower() in {*SPLITS, name.lower()}
    )
    if name in splits:
        return name
    if not any(split.lower() in SPLITS for split in splits):
        if name == "train":
            return ""
        raise ValueError(
            f"split={name!r}: folder:{root} has no splits. Put the images of each into a sub-folder "
            f"({root / 'train'}, {root / name}), or take parts of the whole: train[:90%] and train[90%:]"
        )
    found = ", ".join(splits)
    raise ValueError(
        f"split={name!r}: folder:{root} has {found}; give one of these, or a part such as train[:90%]"
    )


def _labels(names: list[str], start: str) -> tuple[tuple[str, ...], np.ndarray]:
    begin = len(start) + 1 if start else 0
    folders = [name[begin:].split("/", 1)[0] if "/" in name[begin:] else None for name in names]
    classes = sorted({folder for folder in folders if folder is not None})
    if None in folders or len(classes) < 2:
        return (), np.full(len(names), -1, np.int32)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[folder] for folder in folders if folder is not None], np.int32)
    return tuple(printable(name) for name in classes), labels


def _counts(ignored: dict[str, int]) -> str:
    most = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))[:5]
    return ", ".join(f"{count} {suffix}" for suffix, count in most)


def _no_image(folder: Path, ignored: dict[str, int]) -> str:
    found = f"it has {sum(ignored.values())} other files: {_counts(ignored)}" if ignored else "it is empty"
    return f"folder:{folder} has no image, {found}. Image files end in {' '.join(sorted(SUFFIXES))}"
