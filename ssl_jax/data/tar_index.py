"""Which samples a tar file has, and where: found in one pass over its headers, and kept.

WebDataset's convention: files that follow each other and share a key are one sample. The key is the path up to the first
dot of the file's name, the extension what follows it: ``dogs/007.jpg`` and ``dogs/007.cls`` are the sample ``dogs/007``.
"""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.core.files import write_atomically
from ssl_jax.data.file_cache import cache_root, key_of
from ssl_jax.data.files import SUFFIXES
from ssl_jax.data.stores import RangeFile, StoredFile, is_url, redact

IMAGES = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
"""Extensions that are images."""
LABEL = "cls"
"""Extension of a file with a label."""
FIELD = "label"
"""Entry of a json file that is the label where there is no file with one."""
_MOST_LABEL = 2**12  # bytes of a file with a label
_MOST_JSON = 2**20
_SEVERAL = 8  # shards that are looked through at the same time
_VERSION = 1


class TarIndex(NamedTuple):
    """The samples of a tar file that have an image, in its order.

    Attributes:
      names: member with the image, such as ``dogs/007.jpg``; unique.
      starts: int64 ``[n]``, position of its first byte in the file.
      sizes: int64 ``[n]``, its bytes.
      labels: what is stored as the label: a text, a number, a truth value, a list of numbers, or None.
      odd: what was met that is no sample, and how often.
    """

    names: tuple[str, ...]
    starts: np.ndarray
    sizes: np.ndarray
    labels: tuple[Any, ...]
    odd: dict[str, int]


def index_shards(
    files: Sequence[StoredFile], *, image: str | None, label: str | None, folder: Path | None = None
) -> list[TarIndex]:
    """Find the samples of tar files, several at a time; what was found before of a file that has not changed is not sought
    again.

    Args:
      files: the tar files.
      image: extension of the images; None: any that is one.
      label: extension of the labels, or the name of an entry of the json files; None: ``cls``, else ``label`` in json;
        ``""``: none are read.
      folder: where the indices are kept; None: ``ssl_jax/tar`` in the user's cache.

    Raises:
      ValueError: a file that is no tar file, or is compressed; names it.
      OSError: a file that cannot be read.
    """
    kept = folder or cache_root() / "tar"
    with ThreadPoolExecutor(_SEVERAL) as pool:
        return list(pool.map(lambda file: _index(file, image, label, kept), files))


def _index(file: StoredFile, image: str | None, label: str | None, folder: Path) -> TarIndex:
    location = file.location if is_url(file.location) else os.path.abspath(file.location)
    kept = folder / f"{key_of(_VERSION, location, str(image), str(label))}.npz"
    index = _read(kept, file)
    if index is None:
        index = scan(file, image=image, label=label)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, _pack(index, file))
        except OSError:
            pass  # a home that may not be written: it is made again the next time
    return index


def scan(file: StoredFile, *, image: str | None = None, label: str | None = None) -> TarIndex:
    """Look through a tar file; the bytes of images are skipped where that is possible.

    Args:
      file: the tar file.
      image, label: as in :func:`index_shards`.

    Raises:
      ValueError: no tar file, or a compressed one.
      OSError: it cannot be read.
    """
    found = _Found(image, label)
    with io.BufferedReader(RangeFile(file)) if is_url(file.location) else open(file.location, "rb") as opened:
        _require_plain(opened, file)
        try:
            with tarfile.open(fileobj=opened, mode="r:") as archive:
                known: list[tarfile.TarInfo] = vars(archive)["members"]
                while (member := archive.next()) is not None:
                    known.clear()  # not needed again: a million take a gigabyte
                    found.add(member, opened)
                opened.seek(archive.offset)
                if any(opened.read(tarfile.BLOCKSIZE)):  # the module takes any damage for the end
                    found.count("damage, behind which nothing is read")
        except tarfile.TarError as error:
            if not found.names and not found.sample:
                raise ValueError(f"{redact(file.location)} is no tar file: {error}") from error
            found.count("an end in the middle of a file")
        found.finish(file.size)
    starts, sizes = np.array(found.places, np.int64).reshape(-1, 2).T
    return TarIndex(tuple(found.names), starts, sizes, tuple(found.labels), found.odd)


class _Found:
    """What was found of a tar file so far, and the sample that is not complete yet."""

    def __init__(self, image: str | None, label: str | None):
        self.image, self.label = image, label
        self.names: list[str] = []
        self.places: list[tuple[int, int]] = []
        self.labels: list[Any] = []
        self.odd: dict[str, int] = {}
        self.sample: dict[str, tarfile.TarInfo] = {}
        self._texts: dict[str, bytes] = {}
        self._key = ""
        self._times: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.odd[what] = self.odd.get(what, 0) + 1

    def add(self, member: tarfile.TarInfo, opened: Any) -> None:
        """Take the next member, of which the file is at the first byte."""
        if member.isdir():
            return
        stem, dot, extension = _split(member.name)
        if not member.isreg() or member.issparse():
            self.count("links and special files")
        elif not dot or stem.rpartition("/")[2].startswith("__"):
            self.count("files without a key or an extension")
        else:
            if stem != self._key or extension in self.sample:
                self.finish()
                self._key = stem
            self.sample[extension] = member
            most = _MOST_JSON if extension == "json" else _MOST_LABEL
            if self.label != "" and extension in (self.label or LABEL, "json") and member.size <= most:
                self._texts[extension] = opened.read(member.size)

    def finish(self, size: int | None = None) -> None:
        """End the sample; of the last one the size of the tar file says whether it is there whole."""
        sample, texts, self.sample, self._texts = self.sample, self._texts, {}, {}
        if not sample:
            return
        if size is not None and max(each.offset_data + each.size for each in sample.values()) > size:
            self.odd.setdefault("an end in the middle of a file", 1)
            return
        able = [name for name in sample if (name == self.image if self.image else name in IMAGES)]
        if not able:
            self.count("samples without an image")
            return
        if len(able) > 1:
            self.count(f"samples with several images, of which .{able[0]} is read")
        member = sample[able[0]]
        times = self._times[member.name] = self._times.get(member.name, 0) + 1
        self.names.append(member.name if times == 1 else f"{member.name}#{times}")
        self.places.append((member.offset_data, member.size))
        self.labels.append(_read_label(texts, self.label))


def _require_plain(opened: Any, file: StoredFile) -> None:
    head = opened.read(6)
    opened.seek(0)
    kinds = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstandard"}
    for magic, kind in kinds.items():
        if head.startswith(magic):
            raise ValueError(
                f"{redact(file.location)} is compressed by {kind}, so that it can be read in order only: unpack it to a plain "
                ".tar; images are compressed already"
            )
    if not head:
        raise ValueError(f"{redact(file.location)} is empty: a tar file has 1,024 bytes or more")


def _split(name: str) -> tuple[str, str, str]:
    """Key, dot and extension of a member, the extension in lower case.

    >>> _split("a.b/7.seg.PNG")
    ('a.b/7', '.', 'seg.png')
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".")
    return f"{folder}{slash}{stem}", dot if stem else "", extension.lower()


def _read_label(texts: dict[str, bytes], label: str | None) -> Any:
    """The label that a sample stores; None: nothing that can be read.

    >>> _read_label({"cls": b"7"}, None), _read_label({"json": b'{"label": "cat"}'}, None)
    (7, 'cat')
    """
    wanted = label or LABEL
    try:
        if wanted in texts and wanted != "json":
            text = texts[wanted].decode("utf-8", "replace").strip()
            return int(text) if text.lstrip("-").isdecimal() and len(text) < 20 else text or None
        content = json.loads(texts["json"]) if "json" in texts else None
        value = content.get(label or FIELD) if isinstance(content, dict) else None
        return value if _is_label(value) else None
    except (ValueError, RecursionError):
        return None


def _is_label(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(entry, int | float) for entry in value) and len(value) <= _MOST_LABEL
    return isinstance(value, int | float | bool) or (isinstance(value, str) and len(value) <= _MOST_LABEL)


def _pack(index: TarIndex, file: StoredFile) -> bytes:
    text = json.dumps(
        {
            "version": _VERSION,
            "size": file.size,
            "stamp": file.stamp,
            "names": index.names,
            "labels": index.labels,
            "odd": index.odd,
        }
    )
    target = io.BytesIO()
    np.savez_compressed(
        target,
        text=np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8),
        starts=index.starts,
        sizes=index.sizes,
    )
    return target.getvalue()


def _read(kept: Path, file: StoredFile) -> TarIndex | None:
    """The index that was kept of a file; None where there is none, it is damaged, or the file has changed."""
    try:
        with open(kept, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
            text = json.loads(stored["text"].tobytes().decode("utf-8", "surrogatepass"))
            starts, sizes = stored["starts"], stored["sizes"]
        if (text["version"], text["size"], text["stamp"]) != (_VERSION, file.size, file.stamp):
            return None
        names, labels = tuple(text["names"]), tuple(text["labels"])
        if not len(names) == len(labels) == len(starts) == len(sizes):
            return None
        return TarIndex(names, starts, sizes, labels, text["odd"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, RecursionError):
        return None
