"""Hugging Face datasets: local parquet files, or a set of the hub.

Parquet is compressed by groups of hundreds of rows, so that one random row costs a whole group. The image and
label columns of local files are therefore copied once into an Arrow file in a cache, which is memory-mapped:
shared by all worker processes, of any size, and read at the speed of the disk.
"""

import hashlib
import importlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ssl_jax.data.decode import decode
from ssl_jax.data.files import infer_format, require_promised_shape, sample_indices, sampled_headers
from ssl_jax.data.sources import CorruptImage, Element, Source, parse_split, take_part

SPLITS = frozenset({"train", "test", "val", "valid", "validation", "dev", "unlabeled", "unsupervised"})
"""A word of the path of a file that is one of these says which split the file belongs to."""
_COPY_ROWS = 64  # copied at once: bounds the memory


def open_parquet(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    image: str | None = None,
    label: str | None = None,
    channels: int | None = None,
    dtype: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """Open a Hugging Face set: a parquet file, a folder of them, or ``owner/name[:config]`` of the hub.

    Args:
      path: file, folder, or name of the hub (needs the network once, and the package ``datasets``).
      split: split, or part of one. Files belong to a split where their path has its name, such as
        ``data/train-00000-of-00002.parquet``; where none has, all are ``train``. A part such as
        ``train[:90%]`` is a fixed pseudo-random choice of the rows.
      image: column of the images, a struct of bytes and path, or bytes; None: ``image``, or the only one.
      label: column of the labels, integers or strings; None: ``label``, or the first column of class labels,
        or no labels where there is neither.
      channels, dtype: of the elements; None: from a sample of the headers, as for folders.
      cache_dir: for the Arrow copies of local files; None: ``ssl_jax/parquet`` in ``$XDG_CACHE_HOME`` or in
        ``~/.cache``.

    Raises:
      ValueError: no such file, split or column, no row, no image that can be read; says what to do.
      ImportError: pyarrow or datasets is not installed; names the extra.
    """
    base = parse_split(split)[0]
    local = Path(path).expanduser()
    table: _LocalTable | _HubTable
    if local.exists():
        table = _LocalTable(_files_of_split(local, base), image, label, _cache_folder(cache_dir))
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", str(path)) and local.suffix != ".parquet":
        table = _HubTable(str(path), base, image, label)
    else:
        raise ValueError(f"parquet:{path} does not exist (looked in {local.absolute()})")
    source = ParquetSource(table, name=f"parquet:{path}/{base}", channels=channels, dtype=dtype)
    return take_part(source, split, scattered=True)


class ParquetSource:
    """Rows of a table with images. Made by `open_parquet`.

    Args:
      table: the rows.
      name: name for people.
      channels, dtype: of the elements, None to infer them.
    """

    def __init__(
        self, table: "_LocalTable | _HubTable", *, name: str, channels: int | None, dtype: str | None
    ):
        self.name = name
        self._table = table
        self.classes, self.labels = _classes_and_labels(table, name)
        if not len(self.labels):
            raise ValueError(f"{name} has no row")
        sample = sample_indices(len(self.labels))
        headers, damaged = sampled_headers((self.file_name(i), self._bytes_or_error(i)) for i in sample)
        if not headers:
            raise ValueError(f"{name}: none of the {len(sample)} images looked at can be read: {damaged[0]}")
        self.channels, self.dtype = infer_format(headers, channels=channels, dtype=dtype, where=name)
        sizes = {header.shape[:2] for header in headers}
        whole = len(sample) == len(self.labels) and len(sizes) == 1
        self.shape: tuple[int, int, int] | None = (*sizes.pop(), self.channels) if whole else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Element:
        name, content = self.file_name(index), self._bytes_or_error(index)
        if isinstance(content, CorruptImage):
            raise content
        image = decode(content, name=name, channels=self.channels, dtype=self.dtype)
        return {
            "image": require_promised_shape(image, self.shape, name=name),
            "label": int(self.labels[index]),
        }

    def file_name(self, index: int, /) -> str:
        return f"{self.name}/{index:08d}"

    def _bytes_or_error(self, index: int) -> bytes | CorruptImage:
        cell = self._table.image(index)
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is not None:
            return content
        linked = isinstance(cell, dict) and cell.get("path")
        reason = f"only a path is stored: {cell['path']}" if linked else "the row has no image"
        return CorruptImage(self.file_name(index), reason)


class _LocalTable:
    """Two columns of local parquet files, through a memory-mapped Arrow copy."""

    def __init__(self, files: list[Path], image: str | None, label: str | None, cache: Path):
        schema = _read_schema(files[0])
        self.features = _features(schema)
        self.image_column = _image_column(schema, self.features, image, files[0])
        self.label_column = _label_column(schema.names, self.features, label, files[0])
        columns = [self.image_column, *([self.label_column] if self.label_column else [])]
        self._path = _arrow_copy(files, schema, columns, cache)
        self._table: Any = None
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # each process maps the file itself

    def _mapped(self) -> Any:
        if self._table is None:
            pyarrow = _optional("pyarrow")
            try:
                with pyarrow.memory_map(str(self._path)) as file:
                    self._table = _optional("pyarrow.ipc").open_file(file).read_all()
            except (pyarrow.ArrowException, OSError) as error:
                raise ValueError(f"{self._path}, a copy, is damaged: delete it ({error})") from error
            self._bytes = self._path.stat().st_size
        return self._table

    def __len__(self) -> int:
        return self._mapped().num_rows

    def image(self, index: int) -> Any:
        table = self._mapped()
        # To look at what a mapped file no longer has is to be killed by the kernel. One that was deleted is still there.
        if self._path.exists() and self._path.stat().st_size < self._bytes:
            raise OSError(f"{self._path} was truncated while it was read: delete it, it is made again")
        return table[self.image_column][index].as_py()

    def labels(self) -> list[Any]:
        return self._mapped()[self.label_column].to_pylist()


class _HubTable:
    """Two columns of a set of the Hugging Face hub, through its own memory-mapped copy."""

    def __init__(self, name: str, split: str, image: str | None, label: str | None):
        datasets = _optional("datasets")
        repository, _, config = name.partition(":")
        try:
            rows = datasets.load_dataset(repository, config or None, split=split)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"parquet:{name} is not a path here, and the Hugging Face hub gave no split {split!r} of "
                f"a set of that name: {' '.join(str(error).split())}"
            ) from error
        schema = rows.features.arrow_schema
        self.features = _features(schema)
        self.image_column = _image_column(schema, self.features, image, name)
        self.label_column = _label_column(schema.names, self.features, label, name)
        rows = rows.select_columns([self.image_column, *([self.label_column] if self.label_column else [])])
        if self.features.get(self.image_column, {}).get("_type") == "Image":
            rows = rows.cast_column(self.image_column, datasets.Image(decode=False))
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, index: int) -> Any:
        return self._rows[index][self.image_column]

    def labels(self) -> list[Any]:
        return list(self._rows[self.label_column])


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"parquet sources need {package}: pip install 'ssl-jax[parquet]'") from error


def _files_of_split(path: Path, split: str) -> list[Path]:
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"parquet:{path} has no file that ends in .parquet, at any depth")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^a-z0-9]+", str(file.relative_to(root)).lower())
        names = [word for word in words if word in SPLITS or word == split.lower()]
        by_split.setdefault(names[-1] if names else "", []).append(file)
    if set(by_split) == {""} and split == "train":
        return files
    if split.lower() in by_split:
        return by_split[split.lower()]
    have = ", ".join(sorted(name for name in by_split if name)) or "no splits in its file names"
    raise ValueError(
        f"split={split!r}: parquet:{path} has {have}. Name the files of a split {split}-0.parquet, or "
        "take parts, such as train[:90%] and train[90%:]"
    )


def _read_schema(file: Path) -> Any:
    try:
        return _optional("pyarrow.parquet").read_schema(file)
    except _optional("pyarrow").ArrowException as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _features(schema: Any) -> dict[str, Any]:
    """What Hugging Face's note in the file says about the columns; {} where there is none."""
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError):
        return {}


def _image_column(schema: Any, features: dict[str, Any], given: str | None, where: Any) -> str:
    types = _optional("pyarrow").types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return types.is_binary(kind) or types.is_large_binary(kind)

    able = [field.name for field in schema if holds_bytes(field.type)]
    if given is not None and given not in able:
        raise ValueError(f"image={given!r}: the columns of parquet:{where} that can hold images are {able}")
    marked = [name for name in able if features.get(name, {}).get("_type") == "Image"]
    for names in ([given] if given else [], [name for name in able if name == "image"], marked, able):
        if len(names) == 1:
            return names[0]
    if able:
        raise ValueError(
            f"parquet:{where} has {len(able)} columns that can hold images: give image= one of {able}"
        )
    raise ValueError(f"parquet:{where} has no column of bytes: its columns are {schema.names}")


def _label_column(names: list[str], features: dict[str, Any], given: str | None, where: Any) -> str | None:
    if given is not None and given not in names:
        raise ValueError(f"label={given!r} is not a column of parquet:{where}: these are {names}")
    marked = [name for name in names if features.get(name, {}).get("_type") == "ClassLabel"]
    return given or ("label" if "label" in names else marked[0] if marked else None)


def _classes_and_labels(table: "_LocalTable | _HubTable", name: str) -> tuple[tuple[str, ...], np.ndarray]:
    column = table.label_column
    if column is None:
        return (), np.full(len(table), -1, np.int32)
    values = table.labels()
    kinds = {type(value) for value in values} - {type(None)}
    classes = tuple(table.features.get(column, {}).get("names") or ())
    if kinds == {str}:
        classes = tuple(sorted({value for value in values if value is not None}))
        numbers = {value: number for number, value in enumerate(classes)}
        values = [None if value is None else numbers[value] for value in values]
    elif not kinds <= {int, bool}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"label={column!r} of {name} holds {found}: allowed are integers or strings")
    return classes, np.array([-1 if value is None else value for value in values], np.int32)


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ssl_jax" / "parquet"


def _arrow_copy(files: list[Path], schema: Any, columns: list[str], cache: Path) -> Path:
    """The Arrow file with some columns of parquet files, made where the cache does not have it."""
    pyarrow, parquet = _optional("pyarrow"), _optional("pyarrow.parquet")
    stamps = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.blake2b(json.dumps([stamps, columns]).encode(), digest_size=12).hexdigest()
    target = cache / f"{key}.arrow"
    if target.exists():
        return target
    wanted = pyarrow.schema([schema.field(column) for column in columns])
    cache.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=cache, suffix=".part")
    os.close(handle)
    try:
        with pyarrow.ipc.new_file(unfinished, wanted) as writer:
            for file in files:
                for batch in parquet.ParquetFile(file).iter_batches(_COPY_ROWS, columns=columns):
                    writer.write_table(pyarrow.Table.from_batches([batch]).select(columns).cast(wanted))
        os.replace(unfinished, target)
    except (pyarrow.ArrowException, KeyError) as error:
        raise ValueError(
            f"{file} cannot be read, or its columns differ from those of {files[0]}: {error}"
        ) from error
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return target
