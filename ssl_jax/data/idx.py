"""The idx files of the MNIST family."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

LARGEST = 2**31
"""Bytes of a file of the family, inflated; the largest known has a third of that."""
FILES = {"train": "train", "test": "t10k"}
"""Split -> how its files begin."""


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of uint8, gzipped or not.

    Raises:
      ValueError: not such a file, or truncated.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            head = file.read(4)
            if head[:3] != b"\0\0\x08" or len(head) < 4:
                raise ValueError(f"{path} is not an idx file of uint8: starts with {head!r}")
            axes = file.read(4 * head[3])
            shape = [int(n) for n in np.frombuffer(axes[: len(axes) // 4 * 4], ">u4")]
            size = math.prod(shape)
            if size > LARGEST:
                raise ValueError(f"{path}: its head says {size} bytes, allowed are {LARGEST}")
            # Never more than the head says, however much a gzipped file inflates to.
            data = file.read(size + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    if len(data) != size or len(shape) != head[3]:
        found = "more" if len(data) > size else len(data)
        raise ValueError(f"{path} is damaged: {found} bytes of pixels or labels where its head says {size}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def has_idx(folder: Path) -> bool:
    """Tell whether a folder has the four files of a set, gzipped or not."""
    return all(_find(folder, split, kind) is not None for split in FILES for kind in ("images", "labels"))


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a split of a set in the form of MNIST.

    Returns:
      Images ``[n, h, w]`` uint8 and labels ``[n]`` uint8.

    Raises:
      ValueError: a missing or damaged file.
    """
    parts = []
    for kind, axes in (("images", 3), ("labels", 1)):
        path = _find(folder, split, kind)
        if path is None:
            raise ValueError(f"{folder} has no {_names(split, kind)[0]}")
        parts.append(read_idx(path))
        if parts[-1].ndim != axes:
            raise ValueError(f"{path} has {parts[-1].ndim} axes: {kind} have {axes}")
    images, labels = parts
    if len(images) != len(labels):
        raise ValueError(f"{folder}: {len(images)} images and {len(labels)} labels of {split}")
    return images, labels


def _names(split: str, kind: str) -> tuple[str, str]:
    name = f"{FILES[split]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    return f"{name}.gz", name


def _find(folder: Path, split: str, kind: str) -> Path | None:
    return next((folder / name for name in _names(split, kind) if (folder / name).is_file()), None)
