"""Sets that TensorFlow Datasets has prepared as array_record, read without TensorFlow."""

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ssl_jax.data.decode import decode
from ssl_jax.data.files import infer_format, require_promised_shape, sample_indices, sampled_headers
from ssl_jax.data.sources import CorruptImage, Element, Source, parse_split

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


def open_tfds(name: str, split: str = "train", *, data_dir: str | os.PathLike[str] | None = None) -> Source:
    """Open a set prepared by TensorFlow Datasets.

    Args:
      name: ``name``, ``name/config``, ``name:1.0.0``, or the folder of a prepared set.
      split: split in TFDS's syntax: ``train``, ``train[:90%]``, ``train+test``.
      data_dir: folder of prepared sets; None: TFDS's default.

    Raises:
      ValueError: not prepared (gives the command that prepares it), prepared in another format, a split that
        it does not have, no image in it.
    """
    folder = (
        Path(name) if (Path(name) / "dataset_info.json").is_file() else find_prepared(name, data_dir=data_dir)
    )
    if folder is None:
        raise ValueError(_not_prepared(name, data_dir))
    _require_stock_features(folder)
    builder = tfds.builder_from_directory(folder)
    label = builder.info.name
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{folder} was prepared as {builder.info.file_format.value}, which has no random access: prepare "
            f"it again, under another data_dir: {prepare_command(name, data_dir='DIR')}"
        )
    for part in split.split("+"):
        if parse_split(part)[0] not in builder.info.splits:
            splits = ", ".join(sorted(builder.info.splits))
            raise ValueError(f"split={split!r}: tfds:{label} has {splits}, and parts such as train[:90%]")
    return TfdsSource(builder, split)


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

    Raises:
      ValueError: no feature is an image, or the split is empty.
    """

    def __init__(self, builder: Any, split: str):
        info = builder.info
        self.name = f"{info.name}/{split}"
        self._image, self._encoded = _image_feature(info)
        self._label = _label_feature(info)
        self.classes: tuple[str, ...] = tuple(info.features[self._label].names or ()) if self._label else ()
        decoders = {self._image: tfds.decode.SkipDecoding()} if self._encoded else None
        self._records = builder.as_data_source(split=split, decoders=decoders)
        if len(self._records) == 0:
            raise ValueError(f"split={split!r} of tfds:{info.name} has no example")
        feature = info.features[self._image]
        shape = tuple(feature.shape)
        if len(shape) == 2:
            shape = (*shape, 1)
        dtype = np.dtype(feature.np_dtype).name
        if None in shape[2:]:
            names = ((self.file_name(i), self._bytes_or_error(i)) for i in sample_indices(len(self)))
            headers, _ = sampled_headers(names)
            channels, dtype = infer_format(headers, channels=None, dtype=None, where=self.name)
            shape = (*shape[:2], channels)
        self.shape: tuple[int, int, int] | None = None if None in shape else shape
        self.channels = int(shape[2])
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Element:
        record = self._record(index)
        image = record[self._image]
        if self._encoded:
            image = decode(image, name=self.file_name(index), channels=self.channels, dtype=self.dtype)
        image = np.asarray(image)
        image = image if image.ndim == 3 else image[..., None]
        image = require_promised_shape(image, self.shape, name=self.file_name(index))
        return {"image": image, "label": int(record[self._label]) if self._label else -1}

    def file_name(self, index: int, /) -> str:
        return f"{self.name}/{index:08d}"

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


def _image_feature(info: Any) -> tuple[str, bool]:
    features = dict(info.features)
    images = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    if images:
        key = "image" if "image" in images else images[0]
        return key, features[key].np_dtype in (np.uint8, np.uint16)  # TFDS keeps floats in a form of its own
    for key, value in features.items():
        allowed = len(value.shape) in (2, 3) and value.np_dtype in (np.uint8, np.uint16, np.float32)
        if isinstance(value, tfds.features.Tensor) and allowed and None not in value.shape[2:]:
            return key, False
    raise ValueError(f"tfds:{info.name} has no image: its features are {', '.join(features)}")


def _label_feature(info: Any) -> str | None:
    labels = [key for key, value in info.features.items() if isinstance(value, tfds.features.ClassLabel)]
    return "label" if "label" in labels else labels[0] if labels else None
