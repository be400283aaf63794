"""A folder of image files behind a URL: the same images, order, splits and classes as on disk."""

from collections.abc import Collection, Sequence

import numpy as np

from ssl_jax.data.encoded import EncodedSource, read_piece
from ssl_jax.data.files import SUFFIXES, printable
from ssl_jax.data.listing import (
    SPLITS,
    SYSTEM_FILES,
    SYSTEM_FOLDERS,
    class_table,
    outline_of_names,
)
from ssl_jax.data.sources import CorruptImage, Source, parse_split, take_part
from ssl_jax.data.stores import StoredFile, is_url, list_below, redact, relative_name
from ssl_jax.data.values import MAX_IMAGE_MIB, Values


def open_remote_folder(
    url: str,
    split: str = "train",
    *,
    channels: int | None = None,
    dtype: str | None = None,
    splits: Collection[str] = (),
    max_value: float | None = None,
    percentiles: tuple[float, float] | None = None,
    max_image_mib: float = MAX_IMAGE_MIB,
) -> Source:
    """Open a folder of images behind a URL; a request for each image, kept in the user's cache.

    Order, splits and classes are those of :func:`ssl_jax.data.folder.open_folder`. Beside the splits nothing may lie: a folder
    that mixes them with other images is refused, where one on disk is explained.

    Args:
      url: the folder, ``http(s)://`` of a server that shows folders as pages of links, ``gs://``, ``s3://``, ``hf://``.
      split, channels, dtype, splits, max_value, percentiles, max_image_mib: as for a folder on disk.

    Raises:
      ValueError: no such folder or split, no image, or none that can be read.
      ImportError: the package of this kind of URL is not installed.
      OSError: the store cannot be reached.
    """
    values = Values(max_value, percentiles, max_image_mib)
    name, root = parse_split(split)[0], url.rstrip("/") + "/"
    try:
        listed = list_below(url)
    except FileNotFoundError as error:
        raise ValueError(f"folder:{error}") from error
    files = {relative_name(file, root): file for file in listed}
    kept = {each: file for each, file in files.items() if _is_image(each)}
    if not kept:
        raise ValueError(
            f"folder:{redact(url)} has no image among its {len(files)} files. Image files end in {' '.join(sorted(SUFFIXES))}"
        )
    names = sorted(kept)
    all_splits = _splits(names, name, splits)
    if not all_splits and name != "train":
        raise ValueError(
            f"split={name!r}: folder:{redact(url)} has no splits: give them sub-folders, and nothing beside, or take parts of "
            "the whole: train[:90%] and train[90%:]"
        )
    if all_splits and name not in all_splits:
        same = [each for each in all_splits if each.lower() == name.lower()]
        if len(same) != 1:
            raise ValueError(
                f"split={name!r}: folder:{redact(url)} has {', '.join(map(printable, all_splits))}; give one of these, or a "
                "part such as train[:90%]"
            )
        (name,) = same
    by_split = {each: [n for n in names if n.startswith(f"{each}/")] for each in all_splits}
    start, own = (name, by_split[name]) if all_splits else ("", names)
    table = class_table(
        {each: outline_of_names(of_it, each) for each, of_it in by_split.items()}
        if all_splits
        else {"": outline_of_names(names, "")}
    )
    left = len(files) - len(names)
    source = RemoteFolder(
        f"folder:{redact(root + start)}",
        [kept[each] for each in own],
        own,
        start=start,
        classes=table.classes,
        values=values,
    )
    source.splits = tuple(all_splits)
    source.notes = (*([f"left out {left} files that are no images"] if left else []), *table.notes)
    source.infer(channels=channels, dtype=dtype)
    return take_part(source, split, scattered=True)


def _is_image(name: str) -> bool:
    *folders, base = name.split("/")
    if base.lower() in SYSTEM_FILES or any(folder.lower() in SYSTEM_FOLDERS for folder in folders):
        return False
    return any(base.lower().endswith(suffix) for suffix in SUFFIXES)


def _splits(names: Sequence[str], name: str, further: Collection[str]) -> list[str]:
    """The sub-folders that are splits: all of them, where all have such names and nothing lies beside."""
    known = SPLITS | {each.lower() for each in (name, *further)}
    tops = {each.partition("/")[0] for each in names if "/" in each}
    usual = any(top.lower() in SPLITS or top == name for top in tops)
    whole = all("/" in each for each in names) and all(top.lower() in known for top in tops)
    return sorted(tops) if usual and whole else []


class RemoteFolder(EncodedSource):
    """Image files behind URLs. Made by `open_remote_folder`.

    Args:
      name: name for people.
      files: the files.
      names: their names, relative to the folder.
      start: the sub-folder that is the split, ``""`` for the whole.
      classes: names of the sub-folders of it that are classes, sorted.
      values: how stored values are read, and how large an image may be.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[StoredFile],
        names: Sequence[str],
        *,
        start: str,
        classes: Sequence[str],
        values: Values,
    ):
        self.name, self.values = name, values
        self._files, self._names = list(files), [printable(each) for each in names]
        self.files = tuple((each, file.size) for each, file in zip(self._names, files, strict=True))
        self.classes = tuple(printable(each) for each in classes)
        numbers = {each: number for number, each in enumerate(classes)}
        begin = len(start) + 1 if start else 0
        inside = [each[begin:].partition("/") for each in names]
        labels = [numbers.get(folder, -1) if slash else -1 for folder, slash, _ in inside]
        self.labels = np.array(labels, np.int32)

    def file_name(self, index: int, /) -> str:
        return self._names[index]

    def read_encoded(self, index: int, /) -> bytes:
        """Read a file as it is stored; raises `CorruptImage` where it is gone."""
        file = self._files[index]
        try:
            return read_piece(file, 0, file.size)
        except CorruptImage as error:
            raise CorruptImage(self.file_name(index), error.reason) from error

    def _is_remote(self) -> bool:
        return any(is_url(file.location) for file in self._files)
