"""What lies in a folder of images: files that are read, those left out and why, sub-folders that are splits or classes."""

import collections
import dataclasses
import logging
import os
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_jax.data import listing_cache
from ssl_jax.data.files import SUFFIXES, UNREAD_FORMATS, counted, identify_file, printable

_log = logging.getLogger(__name__)

SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "unlabeled"})
"""Where all sub-folders of a folder have such names (in any case), they are splits, not classes."""

SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "found.000", "system volume information", "lost+found", "__macosx"),
        *("network trash folder", "temporary items", "__pycache__"),
    }
)
"""Folders (in lower case) that operating systems and storage devices put among images; never read."""

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
"""Files (in lower case) of the same kind."""

_NO_CLASS = frozenset(
    {
        *("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures"),
        *("data", "all", "unlabeled", "unlabelled", "unknown"),
    }
)
"""The only sub-folder of a split has no class's name where it is called so (in any case)."""

_TO_CONVERT = frozenset(
    {
        *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jxr", ".tga", ".ico", ".psd", ".svg", ".exr"),
        *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".dcm", ".nii", ".svs", ".ndpi"),
        *(".czi", ".nd2", ".lif", ".fits", ".mat", ".hdr"),
    }
)
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".rar", ".7z"})
_VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"})

_KEPT_NAMES = 64
"""How many names of left out files of each reason are kept as examples."""
_LOOKED_AT = 16
"""How many of them are opened to see whether they are images."""
_SHOWN = 5
"""How many names a sentence lists."""
CACHED = 10_000
"""From so many images on, the list of a folder is kept."""
_SAID = 5.0
"""Seconds between two messages about a list that is being made."""


class LeftOut:
    """Files, or folders, that are left out for one reason.

    Attributes:
      count: how many.
      names: the first of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.names: list[str] = []

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.names) < _KEPT_NAMES:
            self.names.append(name)

    def join(self, other: "LeftOut") -> None:
        """Count those of another."""
        self.count += other.count
        self.names = [*self.names, *other.names][:_KEPT_NAMES]


@dataclasses.dataclass
class Listing:
    """What :func:`list_files` found; names are relative to the folder it was given, with ``/``.

    Attributes:
      names: image files, sorted.
      left_out: by reason: ``hidden``, ``hidden folder``, ``system file``, ``system folder``, ``broken link``, ``no suffix``,
        or a suffix.
      broken: image files that are links to nowhere; they are among ``names``.
      repeated: folders that are reached a second time, by a link, and the name under which they are read.
      unreadable: folders that cannot be listed, and why.
      without_image: sub-folders of the first level without an image file in them.
      leaves: folders without sub-folders.
      others: number of files in each folder that are left out.
      folders: folders that were read, each with what changes when an entry of it does.
    """

    names: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, LeftOut] = dataclasses.field(default_factory=lambda: collections.defaultdict(LeftOut))
    broken: list[str] = dataclasses.field(default_factory=list)
    repeated: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    without_image: list[str] = dataclasses.field(default_factory=list)
    leaves: list[str] = dataclasses.field(default_factory=list)
    others: dict[str, int] = dataclasses.field(default_factory=dict)
    folders: dict[str, listing_cache.Stamp] = dataclasses.field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many are left out, by reason."""
        return {reason: part.count for reason, part in sorted(self.left_out.items())}


def list_files(root: Path, start: str = "", *, beside: Sequence[str] = ()) -> Listing:
    """List the image files under a folder, and what is left out.

    Follows links to folders, each real folder once; does not look into what is hidden (its name begins with a dot) or
    belongs to the system.

    Args:
      root: the names are relative to this.
      start: the sub-folder to look in, "" for all.
      beside: other sub-folders, of which only the files that are left out are of interest.
    """
    whole = os.path.realpath(root)
    request = {"start": start, "beside": list(beside), "rules": _rules()}
    kept = listing_cache.read_list(whole, request)
    if kept is not None:
        _log.info(
            "folder:%s: the list of %s images is taken from the cache: no folder has changed",
            printable(os.path.join(root, start)),
            f"{len(kept['names']):,}",
        )
        return _from_cache(kept)
    began = time.time_ns()
    listing = Listing()
    if start:
        _add_beside(listing, root, beside)
    _list_below(root, start, listing, progress=_Progress(os.path.join(root, start)))
    listing.names.sort()
    # What a link leads to, and what may be read, can change without a change of the folder.
    if len(listing.names) >= CACHED and not listing.broken and not listing.unreadable:
        listing_cache.write_list(whole, request, _to_cache(listing), folders=listing.folders, started=began)
    return listing


def _rules() -> list[str]:
    """What decides which files are listed."""
    return sorted({*SUFFIXES, *SYSTEM_FOLDERS, *SYSTEM_FILES})


def _to_cache(listing: Listing) -> dict[str, Any]:
    left_out = {reason: [part.count, part.names] for reason, part in listing.left_out.items()}
    fields = {field.name: getattr(listing, field.name) for field in dataclasses.fields(listing)}
    return {**fields, "left_out": left_out, "folders": {}}


def _from_cache(kept: Mapping[str, Any]) -> Listing:
    listing = Listing(**{**kept, "left_out": collections.defaultdict(LeftOut)})
    listing.repeated = [(name, first) for name, first in listing.repeated]
    for reason, (count, names) in kept["left_out"].items():
        listing.left_out[reason].count, listing.left_out[reason].names = count, names
    return listing


class _Progress:
    """Says every few seconds how far a list has come; nothing of one that is soon made."""

    def __init__(self, path: str) -> None:
        self._path = printable(path)
        self._next = time.monotonic() + _SAID

    def show(self, images: int, folders: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SAID
            _log.info(
                "folder:%s: listing: %s images in %s folders so far",
                self._path,
                f"{images:,}",
                f"{folders:,}",
            )


def _list_below(
    root: Path, start: str, listing: Listing | None = None, *, progress: _Progress | None = None
) -> Listing:
    listing = Listing() if listing is None else listing
    tops: set[str] = set()
    read_as: dict[str, str] = {}
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder)
        real = os.path.realpath(path)
        if real in read_as:
            listing.repeated.append((folder, read_as[real]))
            continue
        read_as[real] = folder
        if progress is not None:
            progress.show(len(listing.names), len(read_as))
        try:
            listing.folders[folder] = listing_cache.stamp(path)
            images, entries = _scan(path)
        except OSError as error:
            listing.unreadable.append((folder, error.strerror or str(error)))
            continue
        listing.names += [f"{folder}/{name}" for name in images] if folder else images
        inner = []
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            is_folder = entry.is_folder
            reason = _reason(entry.name, is_folder)
            broken = entry.is_link and not is_folder and not os.path.exists(os.path.join(path, entry.name))
            if is_folder and reason is None:
                inner.append(name)
            elif reason is None:
                listing.names.append(name)
                listing.broken += [name] if broken else []
            else:
                known = reason.endswith("folder") or reason in ("hidden", "system file")
                listing.left_out["broken link" if broken and not known else reason].add(name)
                listing.others[folder] = listing.others.get(folder, 0) + (not is_folder)
        listing.leaves += [] if inner else [folder]
        tops.update(inner if folder == start else ())
        waiting += reversed(inner)
    begin = len(start) + 1 if start else 0
    used = {name[begin:].split("/", 1)[0] for name in listing.names} if tops else set()
    tops -= {name for name, _ in listing.repeated}
    listing.without_image = sorted(name for name in tops if name[begin:] not in used)
    return listing


def _add_beside(listing: Listing, root: Path, folders: Sequence[str]) -> None:
    """Add what is left out beside the splits of a folder."""
    listing.folders[""] = listing_cache.stamp(root)
    for entry in _entries(root):
        reason = _reason(entry.name, entry.is_folder)
        if reason is not None:
            listing.left_out[reason].add(entry.name)
    for folder in folders:
        below = _list_below(root, folder)
        listing.folders |= below.folders
        for reason, part in below.left_out.items():
            listing.left_out[reason].join(part)


class _Entry(NamedTuple):
    """A file or folder, in less memory than an entry of the system takes."""

    name: str
    is_folder: bool
    is_link: bool


def _entries(folder: str | os.PathLike[str]) -> list[_Entry]:
    with os.scandir(folder) as found:
        return sorted(_Entry(entry.name, _is_folder(entry), entry.is_symlink()) for entry in found)


def _scan(folder: str | os.PathLike[str]) -> tuple[list[str], list[_Entry]]:
    """Names of the plain files that are images by their suffix, and all other entries, both sorted.

    Of a million entries a text each is kept, no tuple: those cost the garbage collector more the more there are.
    """
    images, others = [], []
    with os.scandir(folder) as found:
        for entry in found:
            name = entry.name
            is_image = name[name.rfind(".") :].lower() in SUFFIXES and not name.startswith(".")
            if is_image and entry.is_file(follow_symlinks=False):
                images.append(name)
            else:
                others.append(_Entry(name, _is_folder(entry), entry.is_symlink()))
    return sorted(images), sorted(others)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _reason(name: str, is_folder: bool) -> str | None:
    """Why a file or folder is left out; None where it is read."""
    if name.lower() in (SYSTEM_FOLDERS if is_folder else SYSTEM_FILES):
        return "system folder" if is_folder else "system file"
    if name.startswith("."):
        return "hidden folder" if is_folder else "hidden"
    suffix = os.path.splitext(name)[1].lower()
    return None if is_folder or suffix in SUFFIXES else suffix or "no suffix"


# Splits


class Layout(NamedTuple):
    """Which sub-folders of a folder are splits.

    Attributes:
      start: the sub-folder of the split that was asked for, "" for the whole folder.
      splits: all splits, sorted; () where there are none.
      beside: sub-folders beside the splits, which hold no image.
      notes: what is to be said about them.
    """

    start: str
    splits: tuple[str, ...]
    beside: tuple[str, ...]
    notes: tuple[str, ...]


def find_splits(root: Path, name: str, *, splits: Collection[str] = (), kind: str = "folder") -> Layout:
    """Find the splits of a folder: its sub-folders, where all with images have names of splits and no image lies beside them.

    Args:
      root: the folder.
      name: split that is asked for; its name counts as one of a split, whatever it is.
      splits: further names of splits.
      kind: kind of source, for messages.

    Raises:
      ValueError: there is no such split; says what there is, and why.
    """
    images, entries = _scan(root)
    visible = [entry for entry in entries if _reason(entry.name, is_folder=True) is None]
    folders = [entry.name for entry in visible if entry.is_folder]
    others = [entry.name for entry in visible if not entry.is_folder and _reason(entry.name, False) is None]
    loose = sorted([*images, *others]) if others else images
    known = SPLITS | {split.lower() for split in (name, *splits)}
    named = [folder for folder in folders if folder.lower() in known]
    where = f"{kind}:{root}"
    if not any(folder.lower() in SPLITS or folder == name for folder in named):
        return _whole(root, name, folders, where=where)
    others = [folder for folder in folders if folder not in named and holds_image(root / folder)]
    if (others or loose) and not any(holds_image(root / folder) for folder in named):
        return _whole(root, name, folders, where=where)
    if others or loose:
        return _mixed(root, name, named, others, loose, where=where)
    same = [folder for folder in named if folder.lower() == name.lower()]
    notes = _same_split_twice(named)
    if name not in named and len(same) != 1:
        raise ValueError(
            f"split={name!r}: {where} has {', '.join(map(printable, named))}; give one of these, or a part such as train[:90%]"
        )
    if name.lower() not in SPLITS and name not in splits:
        notes.append(
            f"warning: {printable(name)} is no usual name of a split: without splits=[{name!r}], other splits of this folder "
            "are not recognised beside it"
        )
    beside = tuple(folder for folder in folders if folder not in named)
    notes += [f"sub-folders without an image, beside the splits: {_listed(beside)}"] if beside else []
    return Layout(name if name in named else same[0], tuple(named), beside, tuple(notes))


def _whole(root: Path, name: str, folders: Sequence[str], *, where: str) -> Layout:
    if name == "train":
        return Layout("", (), (), ())
    for folder in folders:
        if any(entry.name == name and _is_folder(entry) for entry in _unsorted_entries(str(root / folder))):
            inner = f"{where}/{printable(folder)}"
            raise ValueError(
                f"split={name!r}: {where} has no splits at its top, but {printable(folder)} has a sub-folder {name}: where "
                f"these are splits, give {inner}; else take parts of the whole: train[:90%] and train[90%:]"
            )
    raise ValueError(
        f"split={name!r}: {where} has no splits. Put the images of each into a sub-folder ({root / 'train'}, {root / name}), "
        "or take parts of the whole: train[:90%] and train[90%:]"
    )


def _mixed(
    root: Path, name: str, named: Sequence[str], others: Sequence[str], loose: Sequence[str], *, where: str
) -> Layout:
    """Some sub-folders have names of splits, others have not, or images lie beside them: the whole is read."""
    one, any_known = len(named) == 1, any(folder.lower() in SPLITS for folder in named)
    are = (
        ("is the name of a split" if one else "are names of splits")
        if any_known
        else "is no usual name of one"
    )
    them = "it" if one else "them"
    beside = f"{_listed(others)} beside {them} {'is none' if len(others) == 1 else 'are none'}"
    if not others:
        beside = f"images lie beside {them}, such as {printable(loose[0])}"
    told = f"{_listed(named)} {are}, but {beside}"
    if name != "train":
        what_to_do = (
            "take a part of the whole, such as train[80%:], or move what is no split out of the folder"
        )
        if name in named:
            other = [printable(folder) for folder in others]
            naming = (
                f", say that the others are splits too (splits={other})" if 0 < len(other) <= _SHOWN else ""
            )
            what_to_do = (
                f"move what is no split out of the folder{naming}, or give {where}/{name} as the source"
            )
        raise ValueError(f"split={name!r}: {where} has no splits: {told}: {what_to_do}")
    meant = f"{'is' if one else 'are'} meant as {'a split' if one else 'splits'}"
    how = "the whole folder is read" + (", its sub-folders are classes" if others else "")
    note = (
        f"warning: {told}: {how}. Where {_listed(named)} {meant}, move what lies beside out of the folder, or give "
        f"{where}/{printable(named[0])}"
    )
    return Layout("", (), (), (note,))


def _same_split_twice(named: Sequence[str]) -> list[str]:
    by_name = _grouped(named, str.lower)
    return [
        f"warning: {_listed(group)} are different folders with the name of one split, of which each is read alone"
        for group in by_name.values()
        if len(group) > 1
    ]


def holds_image(folder: str | os.PathLike[str], *, depth: int = 1) -> bool:
    """Tell whether an image file lies in a folder, or in a folder in it.

    Args:
      folder: where to look.
      depth: how deep it must lie at least; 1: in the folder itself.
    """
    seen: set[str] = set()
    waiting = [(os.fspath(folder), depth)]
    while waiting:
        path, least = waiting.pop()
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        for entry in _unsorted_entries(path):
            is_folder = _is_folder(entry)
            if _reason(entry.name, is_folder) is None:
                if is_folder:
                    waiting.append((entry.path, least - 1))
                elif least <= 1:
                    return True
    return False


def _unsorted_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError:
        return


# Classes


class Outline(NamedTuple):
    """Sub-folders of a split.

    Attributes:
      folders: those that may be classes: an image lies in them, deep enough.
      loose: an image that lies in none of them, None if there is none.
    """

    folders: frozenset[str]
    loose: str | None


def outline(root: Path, start: str, *, depth: int = 1) -> Outline:
    """Look at the sub-folders of a split, without a look at every file.

    Args:
      root: the folder of the source.
      start: the sub-folder of the split, "" for the whole.
      depth: how deep in a class's folder its images lie at least: 1 for images, 2 for frames, which lie in clips.
    """
    found: set[str] = set()
    loose: list[str] = []
    seen = {os.path.realpath(root / start)}
    try:
        entries = _entries(root / start)
    except OSError:
        entries = []
    for entry in entries:
        if _reason(entry.name, entry.is_folder) is not None:
            continue
        name = f"{start}/{entry.name}" if start else entry.name
        if not entry.is_folder:
            loose.append(name)
            continue
        path = os.path.join(root, name)
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        if depth > 1:
            inner = (e for e in _unsorted_entries(path) if not _is_folder(e))
            loose += [f"{name}/{e.name}" for e in inner if _reason(e.name, False) is None][:1]
        if holds_image(path, depth=depth):
            found.add(entry.name)
    return Outline(frozenset(found), min(loose, default=None))


def outline_of_names(names: Sequence[str], start: str, *, depth: int = 1) -> Outline:
    """Say of a list of image files what :func:`outline` says of the folder that holds them.

    >>> outline_of_names(["cat/1.png", "dog/1.png"], "").loose is None
    True
    >>> outline_of_names(["train/cat/1.png", "train/2.png"], "train")
    Outline(folders=frozenset({'cat'}), loose='train/2.png')
    """
    begin = len(start) + 1 if start else 0
    folders: set[str] = set()
    loose: str | None = None
    for name in names:
        if name.count("/", begin) >= depth:
            folders.add(name[begin : name.index("/", begin)])
        elif loose is None:
            loose = name
    return Outline(frozenset(folders), loose)


class ClassTable(NamedTuple):
    """Classes of all splits of a source.

    Attributes:
      classes: their names, sorted; the number of a label is a position here.
      notes: what is to be said about them.
    """

    classes: tuple[str, ...]
    notes: tuple[str, ...]


def class_table(outlines: Mapping[str, Outline]) -> ClassTable:
    """Join the classes of all splits into one table.

    A split in which every image lies in one of two or more sub-folders has these as classes. The only sub-folder of another
    split is a class too, unless its name says no more than ``images``. Those of a split ``unlabeled`` are none. In a split
    with images beside the sub-folders, those in a folder of the table have its label. Where no split has two sub-folders
    there are no classes.

    Args:
      outlines: by the name of the split, "" where there are no splits.

    >>> cats, dogs = Outline(frozenset({"cat", "fox"}), None), Outline(frozenset({"cat", "dog"}), None)
    >>> table = class_table({"train": cats, "test": dogs})
    >>> table.classes
    ('cat', 'dog', 'fox')
    >>> table.notes
    ('only train has the class fox', 'only test has the class dog')
    """
    labeled = [
        split for name, split in outlines.items() if split.loose is None and name.lower() != "unlabeled"
    ]
    sorted_out = [split for split in labeled if len(split.folders) > 1]
    if not sorted_out:
        return ClassTable((), tuple(_why_no_classes(outlines)))
    names = set().union(*(split.folders for split in sorted_out))
    for split in labeled:
        if not any(folder.lower() in _NO_CLASS for folder in split.folders):
            names |= split.folders
    classes = tuple(sorted(names))
    notes = [*_unlabeled_splits(outlines, names), *_unshared_classes(outlines, classes)]
    notes += _similar_names(classes, outlines)
    return ClassTable(classes, (*notes, *_numbers_as_names(classes)))


def _why_no_classes(outlines: Mapping[str, Outline]) -> list[str]:
    notes = []
    for name, split in outlines.items():
        where = f"{printable(name)}: " if name else ""
        if split.folders and split.loose is not None:
            notes.append(
                f"{where}no labels, as images lie beside the sub-folders, such as {printable(split.loose)}: where each "
                "sub-folder is a class, move these into one"
            )
        elif len(split.folders) == 1:
            notes.append(f"{where}no labels, as all images lie in one sub-folder, {_listed(split.folders)}")
    return notes


def _unlabeled_splits(outlines: Mapping[str, Outline], names: Collection[str]) -> list[str]:
    notes = []
    for name, split in outlines.items():
        where = f"{printable(name)}: " if name else ""
        if split.loose is not None:
            notes.append(
                f"{where}images that lie in no class's folder, such as {printable(split.loose)}, have no label"
            )
        unknown = sorted(split.folders - set(names))
        if unknown:
            notes.append(f"{where}images in {_listed(unknown)}, no class of the other splits, have no label")
    return notes


def _unshared_classes(outlines: Mapping[str, Outline], classes: Sequence[str]) -> list[str]:
    labeled = {name: split.folders for name, split in outlines.items() if split.folders & set(classes)}
    if len(labeled) < 2:
        return []
    notes, alone = [], set()
    for name, folders in labeled.items():
        own = [c for c in classes if c in folders and sum(c in f for f in labeled.values()) == 1]
        alone |= set(own)
        if own:
            notes.append(f"only {printable(name)} has the class{'es' * (len(own) > 1)} {_listed(own)}")
    for name, folders in labeled.items():
        lacks = [c for c in classes if c not in folders and c not in alone]
        if lacks:
            notes.append(
                f"{printable(name)} has no image of the class{'es' * (len(lacks) > 1)} {_listed(lacks)}"
            )
    return notes


def _similar_names(classes: Sequence[str], outlines: Mapping[str, Outline]) -> list[str]:
    def plain(name: str) -> str:
        return " ".join(unicodedata.normalize("NFKC", name).casefold().split())

    notes = []
    for group in _grouped(classes, plain).values():
        if len(group) > 1:
            held = [
                f"{_quoted(name)} ({', '.join(printable(s) for s, o in outlines.items() if name in o.folders)})"
                if "" not in outlines
                else _quoted(name)
                for name in group
            ]
            notes.append(
                f"warning: {' and '.join(held)} are different classes, though only capitals, blanks or the form of accents "
                "differ: rename the folders if they are one"
            )
    return notes


def _numbers_as_names(classes: Sequence[str]) -> list[str]:
    if not all(name.isascii() and name.isdigit() for name in classes):
        return []
    for label, name in enumerate(classes):
        if int(name) != label:
            return [
                f"the folders of the classes are numbers, but labels count them in the order of their names as text: folder "
                f"{name} has label {label}"
            ]
    return []


# Sentences


def describe_listing(root: Path, listing: Listing, *, start: str = "") -> list[str]:
    """Say what was left out of a folder, why, and what to do.

    Args:
      root: the folder that names are relative to.
      listing: what is in it.
      start: the sub-folder of the split.
    """
    notes = []
    if listing.left_out:
        notes.append(f"left out {describe_left_out(root, listing)}")
    usual = {"hidden", "hidden folder", "system file", "system folder"}
    count = sum(part.count for reason, part in listing.left_out.items() if reason not in usual)
    if count > len(listing.names):
        notes.append(f"warning: more files are left out ({count}) than read ({len(listing.names)})")
    if listing.without_image:
        empty = _listed(name.removeprefix(f"{start}/") for name in listing.without_image)
        notes.append(f"sub-folders without an image{f' in {printable(start)}' * bool(start)}: {empty}")
    if listing.broken:
        notes.append(
            f"{counted(len(listing.broken), 'broken link')}, such as {printable(listing.broken[0])}: each counts as a "
            "corrupt image"
        )
    if listing.repeated:
        name, first = listing.repeated[0]
        notes.append(
            f"{counted(len(listing.repeated), 'link')} to folders that are read already and not again, such as "
            f"{printable(name)} (read as {printable(first) or 'the folder itself'})"
        )
    if listing.unreadable:
        name, reason = listing.unreadable[0]
        notes.append(
            f"warning: {counted(len(listing.unreadable), 'folder')} that cannot be read, such as {printable(name)}: {reason}"
        )
    if not start:
        notes += _inner_splits(listing.names)
    return notes


def describe_left_out(root: Path, listing: Listing) -> str:
    """Say how many files were left out, of which kinds, with an example of each and what to do.

    Args:
      root: the folder that names are relative to.
      listing: what is in it.
    """
    folders = {"hidden folder", "system folder"}
    parts = sorted(listing.left_out.items(), key=lambda item: (-item[1].count, item[0]))
    in_all = {
        "file": sum(part.count for reason, part in parts if reason not in folders),
        "folder": sum(part.count for reason, part in parts if reason in folders),
    }
    head = " and ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in in_all.items() if count)
    said = []
    for reason, part in parts[:_SHOWN]:
        kind = "without suffix" if reason == "no suffix" else reason
        kind += "s" * (part.count > 1 and reason.endswith(("folder", "link", "system file")))
        hint = _what_to_do(root, reason, part.names)
        said.append(f"{part.count} {kind}, such as {printable(part.names[0])}{f' ({hint})' if hint else ''}")
    more = [f"{sum(part.count for _, part in parts[_SHOWN:])} of other kinds"] if len(parts) > _SHOWN else []
    return f"{head}: {'; '.join([*said, *more])}"


def _what_to_do(root: Path, reason: str, names: Sequence[str]) -> str:
    if reason in ("hidden", "hidden folder", "system file", "system folder", "broken link"):
        return ""
    if reason in _ARCHIVES:
        return "unpack it" if len(names) == 1 else "unpack them"
    if reason in _VIDEOS:
        return "films are not read: write their frames as images"
    step = max(1, len(names) // _LOOKED_AT)
    found = [identify_file(os.path.join(root, name)) for name in names[::step][:_LOOKED_AT]]
    kinds = sorted({kind for kind in found if kind is not None})
    if not kinds and reason not in _TO_CONVERT:
        return ""
    if (reason in _TO_CONVERT and set(kinds) <= {*UNREAD_FORMATS, "TIFF"}) or (
        kinds and set(kinds) <= UNREAD_FORMATS
    ):
        what = f"{', '.join(kinds)} by content, " if kinds and reason not in _TO_CONVERT else ""
        return f"{what}not read: convert to JPEG or PNG"
    readable = [kind for kind in kinds if kind not in UNREAD_FORMATS]
    how_many = "" if None not in found else "some are "
    return (
        f"{how_many}images by their content, {', '.join(readable)}: rename to end in {_suffix(readable[0])}"
    )


def _suffix(kind: str) -> str:
    return {"JPEG": ".jpg", "TIFF": ".tif", "NumPy": ".npy"}.get(kind, f".{kind.lower()}")


def _inner_splits(names: Sequence[str]) -> list[str]:
    outer, inner = set(), set()
    for name in names:
        parts = name.split("/", 2)
        if len(parts) == 3 and parts[1].lower() in SPLITS:
            outer.add(parts[0])
            inner.add(parts[1])
    if not inner:
        return []
    return [
        f"warning: sub-folders {_listed(inner)} inside of {_listed(outer)} are read together: splits are looked for at the top "
        "of the folder only"
    ]


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _listed(names: Iterable[str]) -> str:
    """At most `_SHOWN` names.

    >>> _listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    shown = [printable(name) for name in sorted(names)]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _quoted(name: str) -> str:
    return f"'{printable(name)}'" if name != " ".join(name.split()) else printable(name)
