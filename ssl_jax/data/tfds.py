"""Sets that TensorFlow Datasets has prepared as array_record, read without TensorFlow."""

import contextlib
import difflib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ssl_jax.data.arrow import npy_bytes
from ssl_jax.data.decode import Header, decode
from ssl_jax.data.file_cache import cache_root, key_of
from ssl_jax.data.files import (
    decode_element,
    describe_unreadable,
    infer_format,
    notes_on_values,
    require_promised_shape,
    sample_indices,
    sampled_headers,
)
from ssl_jax.data.label_column import number_classes, one_sided_classes, read_labels
from ssl_jax.data.npy import channels_first
from ssl_jax.data.sources import CorruptImage, Element, Source, parse_split
from ssl_jax.data.stores import download, is_url, list_below, redact, relative_name
from ssl_jax.data.values import AS_STORED, MAX_IMAGE_MIB, Values, require_range

_FLAG = "on the command line --config.data.image_column"
_COUNTED = 10_000
"""Up to so many examples of a set are looked at to say which classes only one of its splits has."""
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def prepare_command(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> str:
    """Return the command that prepares a set for ``tfds:<name>``.

    >>> print(prepare_command("cifar10"))  # doctest: +ELLIPSIS
    python -c "import ...; tfds.builder('cifar10', file_format='array_record').download_and_prepare()"
    """
    where = "" if data_dir is None else f", data_dir={os.fspath(data_dir)!r}"
    call = f"tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()"
    return f'python -c "import tensorflow_datasets as tfds; {call}"'


def find_prepared(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder of a prepared set, its newest version where the name does not say which, or None.

    Only looks at the disk: asking TFDS itself may wait for the network.

    Args:
      name: ``name``, ``name/config``, ``name:1.0.0`` or ``name/config:1.0.0``.
      data_dir: folder of prepared sets; None: TFDS's default (TFDS_DATA_DIR or ~/tensorflow_datasets).
    """
    name, _, version = name.partition(":")
    base = _data_dir(data_dir) / name
    folders = [path.parent for path in sorted(base.glob("*/dataset_info.json"))]
    if not folders:  # a set with one config may be named without it
        folders = [path.parent for path in sorted(base.glob("*/*/dataset_info.json"))]
        folders = folders if len({path.parent for path in folders}) == 1 else []
    folders = [path for path in folders if _VERSION.fullmatch(path.name) and path.name.startswith(version)]
    return max(folders, key=lambda path: [int(part) for part in path.name.split(".")], default=None)


def open_tfds(
    name: str,
    split: str = "train",
    *,
    image: str | None = None,
    label: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    max_value: float | None = None,
    percentiles: tuple[float, float] | None = None,
    max_image_mib: float = MAX_IMAGE_MIB,
) -> Source:
    """Open a set prepared by TensorFlow Datasets.

    Args:
      name: ``name``, ``name/config``, ``name:1.0.0``, or the folder of a prepared set.
      split: split in TFDS's syntax: ``train``, ``train[:90%]``, ``train+test``.
      image: feature of the images; None: ``image``, or the only one. A config says ``data.image_column``.
      label: feature of the labels: class labels, or what `ssl_jax.data.label_column.read_labels` reads, for which the
        labels of all splits are read once; None: class labels, ``label`` before others, or any feature of that name;
        the empty string: no labels. A config says ``data.label_column``.
      data_dir: folder of prepared sets; None: TFDS's default.
      max_value, percentiles, max_image_mib: how stored values are read, and how large an image may be, see
        :class:`ssl_jax.data.values.Values`.

    Raises:
      ValueError: not prepared (gives the command that prepares it), prepared in another format, a split that
        it does not have, no image in it, several, or labels that are no classes.
    """
    values = Values(max_value, percentiles, max_image_mib)
    if is_url(name):
        name = str(_fetch_prepared(name))
    folder = (
        Path(name) if (Path(name) / "dataset_info.json").is_file() else find_prepared(name, data_dir=data_dir)
    )
    if folder is None:
        raise ValueError(_not_prepared(name, data_dir))
    _require_stock_features(folder)
    builder = tfds.builder_from_directory(folder)
    shown = builder.info.name
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{folder} was prepared as {builder.info.file_format.value}, which has no random access: prepare "
            f"it again, under another data_dir: {prepare_command(name, data_dir='DIR')}"
        )
    for part in split.split("+"):
        if parse_split(part)[0] not in builder.info.splits:
            splits = ", ".join(sorted(builder.info.splits))
            raise ValueError(f"split={split!r}: tfds:{shown} has {splits}, and parts such as train[:90%]")
    return TfdsSource(builder, split, image=image, label=label, values=values)


def _fetch_prepared(url: str) -> Path:
    """Copy a prepared set into the user's cache, unless it lies there as it is now in its store."""
    try:
        files = list_below(url)
    except FileNotFoundError as error:
        raise ValueError(f"tfds:{error}") from error
    root = url.rstrip("/") + "/"
    names = {relative_name(file, root): file for file in files}
    if "dataset_info.json" not in names:
        raise ValueError(
            f"tfds:{redact(url)} has no dataset_info.json: give the folder of one version of a prepared set, such as "
            f"{redact(url).rstrip('/')}/1.0.0"
        )
    key = key_of(*(part for name, file in sorted(names.items()) for part in (name, file.size, file.stamp)))
    folder = cache_root() / "tfds" / key_of(url, key)
    for name, file in names.items():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"tfds:{redact(url)}: {name!r} leaves its folder, and is not fetched")
        if target.is_file() and target.stat().st_size == file.size:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as opened:
            try:
                download(file, opened)
                opened.flush()
                os.fsync(opened.fileno())
                os.replace(opened.name, target)
            except BaseException:
                os.unlink(opened.name)
                raise
    return folder


def _require_stock_features(folder: Path) -> None:
    """TFDS imports whatever module features.json names, which runs it; only its own are let through.

    Raises:
      ValueError: another module is named, or the file cannot be read.
    """
    path = folder / "features.json"
    try:
        open_ones = [json.loads(path.read_text())]
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    while open_ones:
        value = open_ones.pop()
        if isinstance(value, dict):
            for key in ("type", "pythonClassName"):
                named = value.get(key)
                if isinstance(named, str) and not named.startswith("tensorflow_datasets."):
                    raise ValueError(
                        f"{path} names the class {named!r}: allowed are those of tensorflow_datasets, as others would be "
                        "imported, and so run"
                    )
            open_ones += value.values()
        elif isinstance(value, list):
            open_ones += value


class TfdsSource:
    """A split of a prepared set. Made by `open_tfds`.

    Args:
      builder: builder of a set in array_record form.
      split: split in TFDS's syntax.
      image, label: features, None to find them, for labels the empty string for none.
      values: how stored values are read, and how large an image may be.

    Attributes:
      files: name and size in bytes of every file of the splits.
      notes: sentences about what was found.
      splits: names of the splits of the set.

    Raises:
      ValueError: no feature is an image, the split is empty, or the labels are no classes.
    """

    def __init__(
        self,
        builder: Any,
        split: str,
        *,
        image: str | None = None,
        label: str | None = None,
        values: Values = AS_STORED,
    ):
        info = builder.info
        self.values = values
        self.splits = tuple(info.splits)
        self.name = f"{info.name}/{split}"
        self._image, self._encoded = _image_feature(info, image)
        self._label, self.notes = _label_feature(info, label)
        self.classes: tuple[str, ...] = _class_names(info, self._label)
        self._numbers: np.ndarray | None = None
        self._records = self._open(builder, split)
        self.files = _files(info, split)
        if len(self._records) == 0:
            raise ValueError(f"split={split!r} of tfds:{info.name} has no example")
        if self._label and not self.classes:
            self._number_labels(builder, split, self._label)
        elif self._label and sum(part.num_examples for part in info.splits.values()) <= _COUNTED:
            parts = {}
            for part in info.splits:
                with contextlib.suppress(ValueError):  # none of its records can be read
                    parts[part] = self._numbers_in(self._open(builder, part))
            self.notes += tuple(one_sided_classes(self.classes, parts))
        feature = info.features[self._image]
        shape = tuple(feature.shape)
        if None not in shape and channels_first(shape):
            raise ValueError(
                f"tfds:{info.name}: {self._image!r} of shape {shape} has the channels first: allowed are [h, w] and [h, w, c]"
            )
        if len(shape) == 2:
            shape = (*shape, 1)
        dtype = np.dtype(feature.np_dtype).name
        if None in shape[2:]:
            names = ((self.file_name(i), self._bytes_or_error(i)) for i in sample_indices(len(self)))
            headers, damaged = sampled_headers(names, values=values)
            if not headers:
                raise ValueError(
                    f"{self.name}: none of the {len(damaged)} images looked at can be read: {damaged[0]}"
                )
            self.notes += tuple(describe_unreadable(damaged, len(headers) + len(damaged)))
            channels, dtype = infer_format(headers, channels=None, dtype=None, where=self.name)
            shape = (*shape[:2], channels)
        self.shape: tuple[int, int, int] | None = None if None in shape else shape
        self.channels = int(shape[2])
        self.dtype = "float32" if values.scaled else dtype
        self.notes += notes_on_values(self, [Header((0, 0, self.channels), dtype)], values)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Element:
        record = self._record(index)
        image = record[self._image]
        if self._encoded:
            image = decode(
                image,
                name=self.file_name(index),
                channels=self.channels,
                dtype=self.dtype,
                values=self.values,
            )
        else:
            image = self._scaled(np.asarray(image), self.file_name(index))
        image = image if image.ndim == 3 else image[..., None]
        image = require_promised_shape(image, self.shape, name=self.file_name(index))
        return {"image": image, "label": self._label_of(record, index)}

    def read_reduced(self, index: int, most: Callable[[int, int], float]) -> Element:
        """Read an element for crops, see :func:`ssl_jax.data.files.decode_element`."""
        if not self._encoded:
            return self[index]
        record, name = self._record(index), self.file_name(index)
        label = self._label_of(record, index)
        return decode_element(record[self._image], name=name, source=self, label=label, most=most)

    def file_name(self, index: int, /) -> str:
        return f"{self.name}/{index:08d}"

    def read_encoded(self, index: int, /) -> bytes:
        """Read an image as it is stored, numbers as the bytes of a .npy file; raises `CorruptImage` where it cannot be read."""
        image = self._record(index)[self._image]
        return image if self._encoded else npy_bytes(np.asarray(image), np.asarray(image).dtype)

    def _scaled(self, image: np.ndarray, name: str) -> np.ndarray:
        try:
            if self.values.scaled:
                return self.values.scale(image)
            require_range(image)
        except ValueError as error:
            raise CorruptImage(name, str(error)) from error
        return image

    def read_labels(self) -> np.ndarray:
        """Read the label of every example, int32 ``[n]``, -1 for none, without its image."""
        if self._numbers is not None:
            return self._numbers
        if self._label is None:
            return np.full(len(self), -1, np.int32)
        return self._numbers_in(self._records)

    def _numbers_in(self, records: Any) -> np.ndarray:
        """The labels of records that know the names of their classes; -1 also where they are beyond the names."""
        values = _read_values(records, self._label or "", self.name)
        return np.array([-1 if v is None or not 0 <= v < len(self.classes) else v for v in values], np.int32)

    def _label_of(self, record: dict[str, Any], index: int) -> int:
        if self._numbers is not None:
            return int(self._numbers[index])
        label = record[self._label] if self._label else None
        if label is None:
            return -1
        if not -1 <= label < len(self.classes):
            reason = f"its label is {label}: allowed are 0 to {len(self.classes) - 1}, and -1 for none"
            raise CorruptImage(self.file_name(index), reason)
        return int(label)

    def _open(self, builder: Any, split: str) -> Any:
        """The records of a split, whose images are decoded here."""
        decoders = {self._image: tfds.decode.SkipDecoding()} if self._encoded else None
        return builder.as_data_source(split=split, decoders=decoders)

    def _number_labels(self, builder: Any, split: str, label: str) -> None:
        """Number labels that come without names of classes, by one table for all splits."""
        columns = {}
        for part in (*builder.info.splits, *(() if split in builder.info.splits else (split,))):
            where = f"{part} of tfds:{builder.info.name}"
            values = _read_values(self._open(builder, part), label, where)
            try:
                columns[part] = read_labels(values, where=f"label={label!r} of {where}")
            except ValueError as error:
                raise ValueError(
                    f"{error}; --config.data.label_column names another, an empty name none"
                ) from error
        numbered = number_classes(columns, where=f"label of tfds:{builder.info.name}")
        labels = dict(zip(columns, numbered.labels, strict=True))
        self.classes, self._numbers = numbered.classes, labels[split]
        sides = one_sided_classes(self.classes, {part: labels[part] for part in builder.info.splits})
        self.notes += (*numbered.notes, *sides)

    def _record(self, index: int) -> dict[str, Any]:
        try:
            record = self._records[index]
        # Of a file that is damaged, truncated or gone; protobuf and array_record have errors of their own.
        except Exception as error:
            raise CorruptImage(self.file_name(index), " ".join(str(error).split())) from error
        if record[self._image] is None:
            raise CorruptImage(self.file_name(index), "the record is damaged: it has no image")
        return record

    def _bytes_or_error(self, index: int) -> Any:
        try:
            return self._record(index)[self._image]
        except CorruptImage as error:
            return error


def _data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    return Path(
        os.fspath(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    ).expanduser()


def _not_prepared(name: str, data_dir: str | os.PathLike[str] | None) -> str:
    base = re.split("[/:]", name)[0]
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(base, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if base not in known and near else ""
    return (
        f"tfds:{name} is not prepared in {_data_dir(data_dir)}{hint}. Prepare it once, on a machine with the "
        "network and with TensorFlow installed (pip install tensorflow: TFDS needs it to write its stock "
        f"sets, nothing here needs it to read them): {prepare_command(name, data_dir=data_dir)}"
    )


def _image_feature(info: Any, given: str | None) -> tuple[str, bool]:
    features = dict(info.features)
    images = sorted(key for key, value in features.items() if isinstance(value, tfds.features.Image))
    tensors = sorted(key for key, value in features.items() if _holds_pixels(value))
    if given is not None and given not in (*images, *tensors):
        raise ValueError(
            f"image={given!r}: the features of tfds:{info.name} that can hold images are {images + tensors}; {_FLAG}"
        )
    named = [given] if given is not None else [key for key in ("image",) if key in images]
    for able in (named, images, tensors):
        if len(able) > 1:
            raise ValueError(
                f"tfds:{info.name} has {len(able)} features that can hold images: give image= one of {able}, {_FLAG}"
            )
        if able:
            # TFDS keeps floats in a form of its own.
            return able[0], able[0] in images and features[able[0]].np_dtype in (np.uint8, np.uint16)
    raise ValueError(f"tfds:{info.name} has no image: its features are {', '.join(sorted(features))}")


def _holds_pixels(feature: Any) -> bool:
    if not isinstance(feature, tfds.features.Tensor) or isinstance(
        feature, tfds.features.Image | tfds.features.ClassLabel
    ):
        return False
    allowed = len(feature.shape) in (2, 3) and feature.np_dtype in (np.uint8, np.uint16, np.float32)
    return allowed and None not in feature.shape[2:]


def _label_feature(info: Any, given: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The feature of the labels, and what to say of the choice."""
    if given == "":
        return None, ()
    if given is not None and given not in info.features:
        raise ValueError(
            f"label={given!r} is not a feature of tfds:{info.name}: these are {sorted(info.features)}; on the command line "
            "--config.data.label_column"
        )
    if given is not None:
        return given, ()
    # TFDS gives features in another order in every process.
    labels = sorted(k for k, value in info.features.items() if isinstance(value, tfds.features.ClassLabel))
    if "label" in labels or (not labels and "label" in info.features):
        return "label", ()
    if len(labels) < 2:
        return (labels[0] if labels else None), ()
    others = f"one of {labels}: --config.data.label_column names another"
    return labels[0], (f"labels are those of the feature {labels[0]!r}, {others}",)


def _files(info: Any, split: str) -> tuple[tuple[str, int], ...]:
    paths = [path for part in split.split("+") for path in info.splits[parse_split(part)[0]].filepaths]
    return tuple((Path(path).name, os.path.getsize(path) if os.path.exists(path) else 0) for path in paths)


def _class_names(info: Any, label: str | None) -> tuple[str, ...]:
    """Names of the labels 0, 1, ... of a feature of class labels; () where it does not know them."""
    feature = info.features[label] if label else None
    if not isinstance(feature, tfds.features.ClassLabel) or feature.num_classes is None:
        return ()
    return tuple(feature.names)


def _read_values(records: Any, key: str, where: str) -> list[Any]:
    """Read a feature of every record; None where a record cannot be read.

    Raises:
      ValueError: none can be read.
    """
    values: list[Any] = []
    error: Exception | None = None
    failed = 0
    for index in range(len(records)):
        try:
            values.append(records[index][key])
        except Exception as caught:  # protobuf and array_record have errors of their own
            values.append(None)
            error, failed = caught, failed + 1
    if error is not None and failed == len(values):
        raise ValueError(f"{where}: no record can be read: {' '.join(str(error).split())}") from error
    return values
