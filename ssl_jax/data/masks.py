"""Images with a target for each pixel: a class (a mask), or a number such as depth."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from ssl_jax.augment.crop import Box
from ssl_jax.augment.host import host_resize
from ssl_jax.core import check
from ssl_jax.data.decode import decode_numbers
from ssl_jax.data.encoded import read_piece
from ssl_jax.data.files import SUFFIXES, printable
from ssl_jax.data.folder import FolderSource
from ssl_jax.data.listing import list_files
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import CorruptImage, Element, Source, Subset
from ssl_jax.data.stores import StoredFile, is_url, list_below, redact, relative_name
from ssl_jax.data.values import AS_STORED

VOID = -1
"""Class of a pixel that does not count."""
COLUMN = "mask"
"""Column of a table with the masks, where none is named."""
FEATURES = ("segmentation_mask", "mask", "annotation", "annotations", "segmentation_label")
"""Features of a prepared set that are looked for, in this order, where none is named."""
FOLDERS = ("images", "masks")
"""Sub-folders of ``folder:PATH`` with the images and their masks, where no folder of masks is named."""
MAX_CLASSES = 4096

Color = tuple[int, int, int]


class MaskFormat(NamedTuple):
    """What the stored numbers of a target mean.

    Attributes:
      void: stored numbers of pixels that do not count.
      palette: stored number, or color, of the classes 0, 1, ...; other numbers are void too. Empty: the number is the class.
      regression: the target is a number to predict, not a class.

    >>> MaskFormat(void=(255,)).read(np.array([[0, 2, 255]], np.uint8)).tolist()
    [[0, 2, -1]]
    >>> MaskFormat(palette=(0, 255)).read(np.array([[0, 255, 7]], np.uint8)).tolist()
    [[0, 1, -1]]
    >>> MaskFormat(void=(0,), regression=True).read(np.array([[0.0, 2.5]])).tolist()
    [[nan, 2.5]]
    """

    void: tuple[int, ...] = (255,)
    palette: tuple[int | Color, ...] = ()
    regression: bool = False

    def read(self, stored: Shaped[np.ndarray, "h w *colors"]) -> Shaped[np.ndarray, "h w"]:
        """Turn stored numbers into classes, int32 with :data:`VOID`, or into a regression target, float32 with NaN.

        Raises:
          ValueError: colors without a palette, or numbers that are no classes.
        """
        if self.regression:
            check.require(stored.ndim == 2, "mask", f"shape {stored.shape}", "one number a pixel")
            target = stored.astype(np.float32)
            target[np.isin(stored, self.void)] = np.nan
            return target
        if self.palette:
            return self._by_palette(stored)
        check.require(stored.ndim == 2, "mask", "colors", "numbers of classes, or colors with a palette")
        whole = stored.dtype.kind in "biu" or bool((stored == np.rint(stored)).all())
        check.require(whole, "mask", f"dtype {stored.dtype}", "whole numbers of classes")
        classes = stored.astype(np.int64)
        classes[np.isin(classes, (*self.void, VOID))] = VOID
        low, high = int(classes.min(initial=VOID)), int(classes.max(initial=VOID))
        check.require(
            low >= VOID and high < MAX_CLASSES,
            "mask",
            low if low < VOID else high,
            f"numbers of classes, 0 to {MAX_CLASSES - 1}",
        )
        return classes.astype(np.int32)

    def _by_palette(self, stored: np.ndarray) -> np.ndarray:
        keys = np.array([_key(entry) for entry in self.palette], np.int64)
        colors = [isinstance(entry, tuple) for entry in self.palette]
        check.require(len(set(colors)) == 1, "palette", self.palette, "numbers only, or colors only")
        check.require(len(set(keys.tolist())) == len(keys), "palette", self.palette, "different entries")
        check.require(
            colors[0] == (stored.ndim == 3), "mask", f"shape {stored.shape}", "as the entries of the palette"
        )
        numbers = _keys_of(stored) if stored.ndim == 3 else stored.astype(np.int64)
        order = np.argsort(keys)
        position = np.minimum(np.searchsorted(keys[order], numbers), len(keys) - 1)
        known = keys[order][position] == numbers
        return np.where(known, order[position], VOID).astype(np.int32)


AS_CLASSES = MaskFormat()
"""Numbers are classes, 255 is void."""


def _key(entry: int | Color) -> int:
    if not isinstance(entry, tuple):
        return int(entry)
    check.require(
        len(entry) == 3 and all(0 <= part <= 255 for part in entry),
        "palette",
        entry,
        "three numbers from 0 to 255",
    )
    red, green, blue = entry
    return (red << 16) + (green << 8) + blue


def _keys_of(colors: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colors.astype(np.int64), -1, 0)
    return (red << 16) + (green << 8) + blue


@runtime_checkable
class Encoded(Protocol):
    """What reads stored files by number."""

    def read_encoded(self, index: int, /) -> bytes:
        """Read a file as it is stored."""


class MaskSource:
    """Images of a source with a target for each pixel; a `Source` whose elements have ``target`` too.

    ``target`` is int32 ``[h, w]``, a class or :data:`VOID`, or with ``format.regression`` float32, NaN where there is none. Its
    size may be another than that of the image, of the same part of the world.

    Args:
      images: the images.
      masks: gives the stored target of each, in the same order.
      format: what its numbers mean.
      mask_classes: names of the classes; (): numbers, as many as the targets have, which are read once for it.
      notes: sentences about what was found at opening.

    Attributes:
      mask_classes: as above; () for a regression target.

    Raises:
      ValueError: no target has a class.
    """

    def __init__(
        self,
        images: Source,
        masks: "Encoded | Sequence[np.ndarray]",
        *,
        format: MaskFormat = AS_CLASSES,
        mask_classes: Sequence[str] = (),
        notes: Sequence[str] = (),
    ):
        self.images, self.masks, self.format = images, masks, format
        self.name, self.shape, self.channels = images.name, images.shape, images.channels
        self.dtype, self.classes = images.dtype, images.classes
        self.notes = (*getattr(images, "notes", ()), *notes)
        self.splits: tuple[str, ...] = tuple(getattr(images, "splits", ()))
        self.mask_classes = tuple(mask_classes)
        check.require(
            len(set(mask_classes)) == len(mask_classes), "mask_classes", mask_classes, "different names"
        )
        if not mask_classes and not format.regression:
            self.mask_classes = tuple(map(str, range(len(format.palette) or self._count_classes())))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Element:
        return {**self.images[index], "target": self.read_target(index)}

    def file_name(self, index: int, /) -> str:
        return self.images.file_name(index)

    def read_target(self, index: int, /) -> Shaped[np.ndarray, "h w"]:
        """Read the target of an image alone; raises `CorruptImage` where it cannot be read."""
        name = f"{self.file_name(index)} (mask)"
        if isinstance(self.masks, Sequence | np.ndarray):
            stored = np.asarray(self.masks[index])
        else:
            stored = decode_numbers(self.masks.read_encoded(index), name=name, values=AS_STORED)
        try:
            target = self.format.read(stored)
            names = len(self.mask_classes)
            if names and not self.format.regression and target.max(initial=VOID) >= names:
                raise ValueError(
                    f"mask={int(target.max())}: allowed are the classes 0 to {names - 1}, and void"
                )
        except ValueError as error:
            raise CorruptImage(name, str(error)) from error
        return target

    def _count_classes(self) -> int:
        largest, failed = VOID, None
        for index in range(len(self)):
            try:
                largest = max(largest, int(self.read_target(index).max(initial=VOID)))
            except CorruptImage as error:
                failed = failed or error
        if largest == VOID:
            raise ValueError(f"{self.name}: no mask has a class{f': {failed}' if failed else ''}")
        return largest + 1


class _Part:
    """Some of the stored targets."""

    def __init__(self, masks: Encoded, indices: np.ndarray):
        self.masks, self.indices = masks, indices

    def read_encoded(self, index: int, /) -> bytes:
        return self.masks.read_encoded(int(self.indices[index]))


class _Files:
    """Stored targets by the paths of their files."""

    def __init__(self, root: str, names: Sequence[str]):
        self.root, self.names = root, names

    def read_encoded(self, index: int, /) -> bytes:
        path = os.path.join(self.root, self.names[index])
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise CorruptImage(printable(self.names[index]), f"cannot be opened: {error.strerror}") from error


class _RemoteFiles:
    """Stored targets behind URLs."""

    def __init__(self, files: Sequence[StoredFile]):
        self.files = files

    def read_encoded(self, index: int, /) -> bytes:
        file = self.files[index]
        return read_piece(file, 0, file.size)


def open_masks(
    spec: str,
    split: str = "train",
    *,
    masks: str | None = None,
    format: MaskFormat = AS_CLASSES,
    mask_classes: Sequence[str] = (),
    **options: Any,
) -> MaskSource:
    """Open images with a target for each pixel by their name.

    ``masks`` says where the targets are:

    * ``parquet:<path>``: a column, of files as bytes or by their paths, or of numbers; default :data:`COLUMN`;
    * ``folder:<path>``: another folder, with a file of the name of each image, whatever the suffix; default: the images are
      in ``<path>/images`` and the masks in ``<path>/masks``. Each of the two may be a URL;
    * ``tfds:<name>``: a feature; default: the first of :data:`FEATURES`.

    Splits, and parts of them such as ``train[:90%]``, are those of :func:`ssl_jax.data.open.open_source`. Images of a folder
    without a mask are left out, which ``notes`` says.

    Args:
      spec: images, of one of these kinds.
      split: name of a split, or part of one.
      masks: as above.
      format: what the stored numbers mean.
      mask_classes: names of the classes 0, 1, ...; (): as many numbers as the targets have, which are read once for it.
      **options: options of the kind of source, for the images.

    Raises:
      ValueError: no such source, column, folder or mask; a kind of source without masks.
    """
    kind, _, place = spec.partition(":")
    check.choice("kind of source with masks", kind, ("parquet", "folder", "tfds"))
    if kind == "folder":
        images, stored, notes = _open_folders(place, split, masks, options)
    else:
        images = open_source(spec, split, **options)
        own: dict[str, Any] = {
            name: options[name] for name in ("cache_dir", "data_dir", "splits") if name in options
        }
        column = masks or (COLUMN if kind == "parquet" else _find_feature(spec, split, own))
        try:
            stored, notes = _encoded(open_source(spec, split, image=column, label="", **own)), ()
        except ValueError as error:
            if not str(error).startswith("image="):
                raise
            text = str(error).removeprefix("image=").replace("--config.data.image_column", "--masks")
            raise ValueError(f"masks={text}") from error
    return MaskSource(images, stored, format=format, mask_classes=mask_classes, notes=notes)


def _find_feature(spec: str, split: str, options: dict[str, Any]) -> str:
    for feature in FEATURES:
        try:
            open_source(spec, split, image=feature, label="", **options)
        except ValueError as error:
            if not str(error).startswith("image="):
                raise
            missing = error
        else:
            return feature
    raise ValueError(
        f"masks: {spec} has none of {', '.join(FEATURES)}: give the feature with the masks ({missing})"
    )


def _encoded(source: Source) -> Encoded:
    if isinstance(source, Subset):
        return _Part(_encoded(source.source), source.indices)
    assert isinstance(source, Encoded)
    return source


def _open_folders(
    path: str, split: str, masks: str | None, options: dict[str, Any]
) -> tuple[Source, Encoded, tuple[str, ...]]:
    """Open images of a folder, those of which there is a mask of the same name in another."""
    path = path.rstrip("/") if is_url(path) else str(Path(path).expanduser())
    root, other = (f"{path}/{FOLDERS[0]}", f"{path}/{FOLDERS[1]}") if masks is None else (path, masks)
    other = other.rstrip("/") if is_url(other) else str(Path(other).expanduser())
    hint = (
        ""
        if masks is not None
        else f": give the folder of the masks, or have {' and '.join(FOLDERS)} below {redact(path)}"
    )
    for folder in (root, other):
        there = is_url(folder) or os.path.isdir(folder)
        check.require(there, "masks", folder, f"a folder that exists{hint}")
    images = open_source(f"folder:{root}", split, **options)
    whole: Source = images
    indices = np.arange(len(images))
    while isinstance(whole, Subset):
        indices = whole.indices[indices]
        whole = whole.source
    names, stored = _stored_masks(other, hint)
    by_stem: dict[str, str] = {}
    for name in names:
        stem = _stem(name)
        check.require(
            stem not in by_stem, "masks", [by_stem.get(stem), name], "one file of a name for each image"
        )
        by_stem[stem] = name
    # Of files on disk the names are as they are, not as they are shown.
    local = isinstance(whole, FolderSource)
    stems = [
        _stem(os.path.relpath(whole.path(int(i)), whole.root) if local else whole.file_name(int(i)))  # type: ignore[attr-defined]
        for i in indices
    ]
    found = np.array([stem in by_stem for stem in stems], bool)
    if not found.any():
        raise ValueError(
            f"masks={redact(other)!r}: none of its {len(by_stem)} files has the name of an image, such as {stems[0]}"
        )
    chosen = [by_stem[stem] for stem in stems if stem in by_stem]
    lacking = int((~found).sum())
    notes = (
        (f"{lacking:,} of {len(found):,} images have no mask in {redact(other)}: left out",)
        if lacking
        else ()
    )
    part = images if found.all() else Subset(images, np.flatnonzero(found))
    return part, stored(chosen), notes


def _stored_masks(folder: str, hint: str) -> tuple[Sequence[str], Callable[[Sequence[str]], Encoded]]:
    """Names of the files of a folder or below a URL, and what reads some of them."""
    if not is_url(folder):
        return list_files(Path(folder)).names, lambda names: _Files(folder, names)
    try:
        below = list_below(folder)
    except FileNotFoundError as error:
        raise ValueError(f"masks={redact(folder)!r}: allowed is a folder that exists{hint}") from error
    files = {relative_name(file, f"{folder}/"): file for file in below}
    files = {name: file for name, file in files.items() if os.path.splitext(name)[1].lower() in SUFFIXES}
    return list(files), lambda names: _RemoteFiles([files[name] for name in names])


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def parse_palette(entries: Sequence[str]) -> tuple[int | Color, ...]:
    """Read a palette from text: numbers, or colors as ``#rrggbb``.

    Raises:
      ValueError: another form.

    >>> parse_palette(["0", "255"]), parse_palette(["#000000", "#ff8000"])
    ((0, 255), ((0, 0, 0), (255, 128, 0)))
    """
    palette: list[int | Color] = []
    for entry in entries:
        try:
            if entry.startswith("#") and len(entry) == 7:
                red, green, blue = bytes.fromhex(entry[1:])
                palette.append((red, green, blue))
            else:
                palette.append(int(entry))
        except ValueError as error:
            raise ValueError(f"palette={entry!r}: allowed is a number, or a color such as #ff0000") from error
    return tuple(palette)


def resize_target(
    target: Shaped[np.ndarray, "h w"], height: int, width: int
) -> Shaped[np.ndarray, "{height} {width}"]:
    """Resize a target to the nearest pixels: pixel i of n takes pixel ``⌊(i + ½) h / n⌋`` of h.

    >>> resize_target(np.array([[0, 1], [2, 3]]), 4, 2).tolist()
    [[0, 1], [0, 1], [2, 3], [2, 3]]
    """
    rows, columns = (
        ((2 * np.arange(count) + 1) * length // (2 * count))
        for count, length in zip((height, width), target.shape, strict=True)
    )
    return target[rows[:, None], columns[None]]


def resize_pair(
    image: Shaped[np.ndarray, "h w c"], target: Shaped[np.ndarray, "i j"], height: int, width: int
) -> tuple[Shaped[np.ndarray, "{height} {width} c"], Shaped[np.ndarray, "{height} {width}"]]:
    """Resize an image (antialiased, bicubic) and its target (nearest) to one size.

    >>> image, target = resize_pair(np.zeros((4, 6, 3), np.uint8), np.arange(6).reshape(2, 3), 2, 3)
    >>> image.shape, target.tolist()
    ((2, 3, 3), [[0, 1, 2], [3, 4, 5]])
    """
    return host_resize(image, height, width, interpolation="bicubic"), resize_target(target, height, width)


def crop_pair(
    image: Shaped[np.ndarray, "h w c"], target: Shaped[np.ndarray, "i j"], box: Box
) -> tuple[Shaped[np.ndarray, "a b c"], Shaped[np.ndarray, "d e"]]:
    """Cut the same box out of an image and its target.

    Args:
      image: the image.
      target: of the same part of the world; of another size it is resized to that of the image first.
      box: top, left, height, width in pixels of the image.

    Raises:
      ValueError: a box that is not in the image.

    >>> image, target = crop_pair(np.zeros((4, 6, 3), np.uint8), np.arange(24).reshape(4, 6), Box(1, 2, 2, 3))
    >>> image.shape, target.tolist()
    ((2, 3, 3), [[8, 9, 10], [14, 15, 16]])
    """
    top, left, height, width = (int(number) for number in box)
    inside = 0 <= top < top + height <= image.shape[0] and 0 <= left < left + width <= image.shape[1]
    check.require(inside, "box", tuple(map(int, box)), f"a box in the image of {image.shape[:2]} pixels")
    if target.shape != image.shape[:2]:
        target = resize_target(target, *image.shape[:2])
    return tuple(part[top : top + height, left : left + width] for part in (image, target))  # type: ignore[return-value]
