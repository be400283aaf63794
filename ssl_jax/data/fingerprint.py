"""What tells the images of a source from others: how many there are, what they are called, how large they are.

A run writes the fingerprint of its images into its folder and compares it when it goes on. It is cheap: names, sizes as the
file system has them, and a look into a few.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.files import open_file, printable
from ssl_jax.data.frames import Clips
from ssl_jax.data.sources import CorruptImage, Source, Subset

MOST_LISTED = 2_000_000
"""Names that a fingerprint lists at most; of more it cannot say which have changed."""
MOST_SIZES = 100_000
"""Files whose size is looked at, at even distances."""
SAMPLE = 64
"""Images whose content is looked at, at even distances."""
HEAD = 65_536
"""Bytes of a file that are looked at."""
UNKNOWN = -1
"""Size of a file that was not looked at, or cannot be."""
MOST_BYTES = 2**30
"""A fingerprint that is larger is not unpacked."""


class Fingerprint(NamedTuple):
    """What tells the images of a source from others. A folder that is moved, or read from elsewhere, keeps its own.

    Attributes:
      num_images: number of images.
      names: file of every image, in their order, relative to the source; of a table its files; ``None``: there are none, or
        more than ``MOST_LISTED``.
      sizes: their sizes in bytes, or ``UNKNOWN``; ``None`` as ``names``.
      order: digest of names, of the rows of a table that are taken, and of the lengths of clips.
      volume: digest of the sizes.
      content: digest of each image of a sample; ``""`` where it cannot be read.
      classes: names of the classes.
      labels: digest of the class of every image; ``""``: the source has no table of them.
    """

    num_images: int
    names: tuple[str, ...] | None
    sizes: tuple[int, ...] | None
    order: str
    volume: str
    content: tuple[str, ...]
    classes: tuple[str, ...]
    labels: str

    def to_bytes(self) -> bytes:
        """Pack as compressed JSON, in the same bytes every time."""
        return gzip.compress(json.dumps(self._asdict()).encode(), compresslevel=1, mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Fingerprint":
        """Unpack what :meth:`to_bytes` packed.

        Raises:
          ValueError: it is something else.
        """
        try:
            unpacked = zlib.decompressobj(wbits=31).decompress(content, MOST_BYTES)
            found = json.loads(unpacked)
        except (zlib.error, ValueError, RecursionError) as error:
            raise ValueError(f"no fingerprint of images: {error}") from error
        if not isinstance(found, dict) or set(found) != set(cls._fields) or not _is_well_formed(found):
            raise ValueError("no fingerprint of images: values are missing or of another kind")
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        }
        return cls(**fields)


def _is_well_formed(found: dict[str, Any]) -> bool:
    def is_list(key: str, kind: type) -> bool:
        return isinstance(found[key], list) and all(isinstance(value, kind) for value in found[key])

    listed = found["names"] is None or (is_list("names", str) and is_list("sizes", int))
    together = (found["names"] is None) == (found["sizes"] is None)
    texts = all(isinstance(found[key], str) for key in ("order", "volume", "labels"))
    lists = is_list("classes", str) and is_list("content", str)
    return listed and together and texts and lists and isinstance(found["num_images"], int)


class Changes(NamedTuple):
    """In what two fingerprints differ; false where they do not.

    Attributes:
      images: phrases, such as ``3 added, such as a/b.jpg``.
      labels: phrases, such as ``class fox added``.
    """

    images: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.images or self.labels)

    def __str__(self) -> str:
        return ", ".join((*self.images, *self.labels))


def fingerprint(source: Source) -> Fingerprint:
    """Take the fingerprint of a source.

    Of files it looks at all names, at the sizes of ``MOST_SIZES`` and into ``SAMPLE``. Of tables and arrays it looks at the
    number of rows, at the files where the source lists them (``files``, pairs of name and size), and into ``SAMPLE`` rows.
    Where labels are hidden (:class:`ssl_jax.data.labels.FewLabels`) it is that of the source with all of them.

    >>> from ssl_jax.data.sources import ArraySource
    >>> one, other = (ArraySource(np.full([3, 2, 2], value, np.uint8)) for value in (0, 1))
    >>> fingerprint(one) == fingerprint(one), str(compare(fingerprint(one), fingerprint(other)))
    (True, 'other content')
    """
    base, indices, lengths = _unwrap(source)
    sample = _spread(len(indices), SAMPLE)
    names: list[str]
    sizes: list[int]
    order: list[str | np.ndarray]
    content: list[bytes | np.ndarray]
    if callable(path_of := getattr(base, "path", None)):
        paths = [path_of(int(i)) for i in indices]
        folder = os.path.join(getattr(base, "root", ""), "")
        names, sizes = [path.removeprefix(folder) for path in paths], _sizes(paths)
        order, content = [*names, *lengths], [_head(paths[i]) for i in sample]
    else:
        files = tuple(getattr(base, "files", ()))
        names, sizes = [str(name) for name, _ in files], [int(size) for _, size in files]
        order, content = [*names, *lengths, indices], [_pixels(base, int(indices[i])) for i in sample]
    listed = 0 < len(names) <= MOST_LISTED
    return Fingerprint(
        num_images=len(indices),
        names=tuple(names) if listed else None,
        sizes=tuple(sizes) if listed else None,
        order=_digest(order),
        volume=_digest([np.array(sizes, np.int64)]),
        content=tuple(_digest([part]) if len(part) else "" for part in content),
        classes=tuple(source.classes),
        labels=_labels(base, indices),
    )


def compare(old: Fingerprint, new: Fingerprint) -> Changes:
    """Say in what two fingerprints of a source differ.

    >>> old = Fingerprint(2, ("a.png", "b.png"), (10, 20), "", "", (), ("cat",), "")
    >>> str(compare(old, old._replace(names=("b.png", "c.png"), sizes=(21, 30), classes=("cat", "dog"))))
    '1 added, such as c.png, 1 removed, such as a.png, 1 of another size, such as b.png, class dog added'
    """
    if old == new:
        return Changes()
    images: list[str] = []
    if old.names is not None and new.names is not None and old.sizes is not None and new.sizes is not None:
        before, after = (
            dict(zip(old.names, old.sizes, strict=False)),
            dict(zip(new.names, new.sizes, strict=False)),
        )
        resized = [
            name
            for name in after
            if UNKNOWN not in (after[name], before.get(name, UNKNOWN)) and after[name] != before[name]
        ]
        images += _phrase("added", [name for name in after if name not in before])
        images += _phrase("removed", [name for name in before if name not in after])
        images += _phrase("of another size", resized)
    if old.num_images != new.num_images and (not images or len(new.names or ()) != new.num_images):
        images.append(f"{new.num_images} images where there were {old.num_images}")
    if not images and old.order != new.order:
        images.append("other names, or another order")
    if not images and old.volume != new.volume and None in (old.sizes, new.sizes):
        images.append("other sizes")
    if not images and any(a != b and a and b for a, b in zip(old.content, new.content, strict=False)):
        images.append("other content")
    labels = [f"class {printable(name)} added" for name in new.classes if name not in old.classes]
    labels += [f"class {printable(name)} gone" for name in old.classes if name not in new.classes]
    if not labels and old.classes != new.classes:
        labels.append("classes in another order")
    if not images and not labels and old.labels != new.labels:
        labels.append("other labels")
    if len(labels) > MOST_PHRASES:
        labels = [*labels[:MOST_PHRASES], f"and {len(labels) - MOST_PHRASES} more"]
    return Changes(tuple(images), tuple(labels))


MOST_PHRASES = 3
"""Classes that are named."""


def _phrase(what: str, names: Sequence[str]) -> list[str]:
    return [f"{len(names)} {what}, such as {printable(names[0])}"] if names else []


def _unwrap(source: Any) -> tuple[Any, np.ndarray, list[np.ndarray]]:
    """The source behind parts, clips and hidden labels, the indices in it, and the lengths of clips."""
    indices, lengths = np.arange(len(source)), []
    while True:
        if isinstance(source, Clips):
            lengths.append(source.lengths)
            source = source.frames
        elif isinstance(source, Subset):
            indices, source = np.asarray(source.indices)[indices], source.source
        elif hasattr(source, "source") and len(source.source) == len(source):
            source = source.source
        else:
            return source, np.asarray(indices, np.int64), lengths


def _spread(length: int, count: int) -> list[int]:
    """Up to ``count`` positions at even distances."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).round().astype(int)).tolist()


def _sizes(paths: Sequence[str]) -> list[int]:
    sizes = [UNKNOWN] * len(paths)
    for i in _spread(len(paths), MOST_SIZES):
        try:
            sizes[i] = os.stat(paths[i]).st_size
        except OSError:
            continue
    return sizes


def _head(path: str) -> bytes:
    try:
        with open_file(path, name=path) as file:
            return file.read(HEAD)
    except (CorruptImage, OSError):
        return b""


def _pixels(source: Source, index: int) -> np.ndarray | bytes:
    try:
        return np.asarray(source[index]["image"])
    except CorruptImage:
        return b""


def _labels(source: Any, indices: np.ndarray) -> str:
    """Digest of the class of every image, by its name: numbers change when a class is added."""
    labels = getattr(source, "labels", None)
    if labels is None:
        return ""
    numbers, places = np.unique(np.asarray(labels)[indices], return_inverse=True)
    classes = source.classes
    names = [classes[i] if 0 <= i < len(classes) else str(i) for i in numbers.tolist()]
    ranks = np.argsort(np.argsort(names))
    return _digest([*sorted(names), ranks[places]])


def _digest(parts: Iterable[str | bytes | np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        elif isinstance(part, str):
            part = part.encode("utf-8", "surrogateescape")
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
