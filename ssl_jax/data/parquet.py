"""Hugging Face datasets: local parquet files, or a set of the hub.

Parquet is compressed by groups of hundreds of rows, so that one random row costs a whole group. The column of images of
files, on disk or behind URLs, is therefore copied once into an Arrow file in a cache, which is memory-mapped: shared by
all worker processes, of any size, and read at the speed of the disk. The column of labels is read whole, of all splits,
which share one table of classes.
"""

import bisect
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.arrow import (
    LOOKED_AT,
    class_names,
    features_of,
    find_image_column,
    find_label_column,
    first_strings,
    label_candidates,
    nested_pixels,
    npy_bytes,
    optional_import,
    read_label_column,
    read_metadata,
    read_schema,
    storage_of,
)
from ssl_jax.data.decode import decode
from ssl_jax.data.files import (
    decode_element,
    describe_unreadable,
    infer_format,
    notes_on_values,
    open_file,
    printable,
    require_promised_shape,
    sample_indices,
    sampled_headers,
)
from ssl_jax.data.label_column import Column, number_classes, one_sided_classes, read_labels
from ssl_jax.data.sources import CorruptImage, Element, Source, parse_split, take_part
from ssl_jax.data.split_files import files_by_split
from ssl_jax.data.stores import StoredFile, find_files, is_url, open_to_read, redact, relative_name, stat_file
from ssl_jax.data.values import AS_STORED, MAX_IMAGE_MIB, Values

NO_LABELS = ""
"""As ``label``: the images are opened without labels."""
_COPY_ROWS = 64  # copied at once: bounds the memory
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_parquet(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    image: str | None = None,
    label: str | None = None,
    channels: int | None = None,
    dtype: str | None = None,
    splits: Collection[str] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    max_value: float | None = None,
    percentiles: tuple[float, float] | None = None,
    max_image_mib: float = MAX_IMAGE_MIB,
) -> Source:
    """Open a Hugging Face set: a parquet file, a folder of them, or ``owner/name[:config]`` of the hub.

    Args:
      path: file, folder, URLs of these as :func:`ssl_jax.data.stores.find_files` takes them (``hf://datasets/owner/name``
        reads a set of the hub without the package ``datasets``), or name of the hub (needs the network once, and that package).
      split: split, part of one, or several joined by ``+``. Files belong to a split where their path has its name,
        such as ``data/train-00000-of-00002.parquet``; where none has, all are ``train``. A part such as
        ``train[:90%]`` is a fixed pseudo-random choice of the rows.
      image: column of the images: encoded bytes, a struct of bytes and path, paths relative to the file's folder,
        or pixels as lists ``[h][w]`` or ``[h][w][c]``. None: ``image``, or the only one, bytes before paths before
        lists. A config says ``data.image_column``.
      label: column of the labels, see `ssl_jax.data.label_column.read_labels`; None: ``label``, or the first column
        of class labels, or no labels where there is neither; `NO_LABELS`, the empty string: no labels. A config says
        ``data.label_column``.
      channels, dtype: of the elements; None: from a sample of the headers, as for folders.
      splits: names of splits beside the usual ones, which paths of files may have too.
      cache_dir: for the Arrow copies of local files; None: ``ssl_jax/parquet`` in ``$XDG_CACHE_HOME`` or in
        ``~/.cache``.
      max_value, percentiles, max_image_mib: how stored values are read, and how large an image may be, see
        :class:`ssl_jax.data.values.Values`.

    Raises:
      ValueError: no such file, split or column, no row, no image that can be read, labels that are no classes; says
        what to do.
      ImportError: pyarrow or datasets is not installed; names the extra.
    """
    values = Values(max_value, percentiles, max_image_mib)
    base, start, stop = parse_split(split)
    if "+" in base and (start, stop) != (None, None):
        raise ValueError(f"split={split!r}: allowed is a part of one split, or whole splits joined by +")
    local = Path(path).expanduser()
    table: _LocalTable | _HubTable
    remote = any(is_url(place) for place in str(path).split("::"))
    if remote or local.exists():
        files, names, root = _remote_files(str(path)) if remote else _local_files(local)
        further = {name.lower() for name in splits}
        sorted_files, notes = files_by_split(names, base, further, kind="parquet", where=redact(str(path)))
        by_split = {name: [files[i] for i in places] for name, places in sorted_files.items()}
        table = _LocalTable(root, base.lower().split("+"), by_split, (image, label), _cache_folder(cache_dir))
        table.notes = (*notes, *table.notes)
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", str(path)) and local.suffix != ".parquet":
        table = _HubTable(str(path), base, image, label)
    else:
        raise ValueError(f"parquet:{path} does not exist (looked in {local.absolute()})")
    source = ParquetSource(
        table, name=f"parquet:{redact(str(path))}/{base}", channels=channels, dtype=dtype, values=values
    )
    return take_part(source, split, scattered=True)


class ParquetSource:
    """Rows of a table with images. Made by `open_parquet`.

    Args:
      table: the rows.
      name: name for people.
      channels, dtype: of the elements, None to infer them.
      values: how stored values are read, and how large an image may be.

    Attributes:
      files: name, relative to the set, and size in bytes of every local file.
      labels: int32 ``[n]``, -1 for none.
      notes: sentences about what was found.
      splits: names of the splits of the table; () where it has none.
    """

    def __init__(
        self,
        table: "_LocalTable | _HubTable",
        *,
        name: str,
        channels: int | None,
        dtype: str | None,
        values: Values = AS_STORED,
    ):
        self.name = name
        self.values = values
        self._table = table
        self.files: tuple[tuple[str, int], ...] = table.files
        self.splits = table.all_splits
        if not len(table):
            raise ValueError(f"{name} has no row")
        labels = _labels_of_all(table, name)
        self.classes, self.labels = labels.classes, labels.labels
        self.notes: tuple[str, ...] = (*table.notes, *labels.notes)
        sample = sample_indices(len(self.labels))
        self._pixels = _pixel_dtype(table, sample) if table.image.form == "numbers" else None
        headers, damaged = sampled_headers((self._named_content(i) for i in sample), values=values)
        if not headers:
            others = f"; {table.image.others}" if table.image.others else ""
            raise ValueError(
                f"{name}: none of the {len(sample)} images looked at can be read: {damaged[0]}; images are taken from "
                f"the column {table.image.column!r}{others}"
            )
        self.channels, self.dtype = infer_format(
            headers, channels=channels, dtype=dtype, where=name, values=values
        )
        sizes = {header.shape[:2] for header in headers}
        whole = len(sample) == len(self.labels) and len(sizes) == 1
        self.shape: tuple[int, int, int] | None = (*sizes.pop(), self.channels) if whole else None
        self.notes += (
            *describe_unreadable(damaged, len(sample)),
            *notes_on_values(self, headers, values, damaged),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Element:
        name, content = self.file_name(index), self._content(index)
        if isinstance(content, CorruptImage):
            raise content
        if isinstance(content, _File):
            try:
                with open_file(content.path, name=name) as file:
                    image = self._decode(file, name)
            except CorruptImage as error:
                raise CorruptImage(name, f"{content.shown}: {error.reason}") from error
        else:
            image = self._decode(content, name)
        return {
            "image": require_promised_shape(image, self.shape, name=name),
            "label": int(self.labels[index]),
        }

    def read_reduced(self, index: int, most: Callable[[int, int], float]) -> Element:
        """Read an element for crops, see :func:`ssl_jax.data.files.decode_element`."""
        name, label = self.file_name(index), int(self.labels[index])
        return decode_element(self.read_encoded(index), name=name, source=self, label=label, most=most)

    def file_name(self, index: int, /) -> str:
        return f"{self.name}/{index:08d}"

    def read_encoded(self, index: int, /) -> bytes:
        """Read the file of an image as it is stored; raises `CorruptImage` where there is none."""
        name, content = self.file_name(index), self._content(index)
        if isinstance(content, CorruptImage):
            raise content
        if isinstance(content, _File):
            with open_file(content.path, name=name) as file:
                return file.read()
        return content

    def _decode(self, content: Any, name: str) -> np.ndarray:
        return decode(content, name=name, channels=self.channels, dtype=self.dtype, values=self.values)

    def _content(self, index: int) -> "bytes | _File | CorruptImage":
        """The encoded image, its file, or what is wrong with the row."""
        name, cell = self.file_name(index), self._table.cell(index)
        if not cell.is_valid:
            return CorruptImage(name, "the row has no image")
        if self._pixels is not None:
            try:
                pixels = nested_pixels(cell, self._table.image.shape)
                return npy_bytes(pixels, pixels.dtype if self.values.scaled else self._pixels)
            except ValueError as error:
                return CorruptImage(name, str(error))
        value = cell.as_py()
        if isinstance(value, dict):
            content, path = value.get("bytes"), value.get("path")
        else:
            content, path = (None, value) if isinstance(value, str) else (value, None)
        if content is not None:
            return content
        if not path:
            return CorruptImage(name, "the row has no image")
        shown = (
            printable(path)
            if self._table.image.form == "path"
            else f"only a path is stored: {printable(path)}"
        )
        try:
            return _File(_path_inside(self._table.folder(index), path), shown)
        except ValueError as error:
            return CorruptImage(name, f"{shown}: {error}")

    def _named_content(self, index: int) -> tuple[str, Any]:
        name, content = self.file_name(index), self._content(index)
        return (f"{name}: {content.shown}", content.path) if isinstance(content, _File) else (name, content)


class _File(NamedTuple):
    """The file of an image: its path, and what is shown of it."""

    path: str
    shown: str


class _SplitLabels(NamedTuple):
    """Labels and classes of the rows of a table, and what to say of them."""

    classes: tuple[str, ...]
    labels: np.ndarray
    notes: tuple[str, ...]


class _LocalTable:
    """The images of parquet files, through a memory-mapped Arrow copy, and the labels of all their splits."""

    def __init__(
        self,
        root: str,
        wanted: list[str],
        by_split: dict[str, list[StoredFile]],
        columns: tuple[str | None, str | None],
        cache: Path,
    ):
        image, label = columns
        self._root = root
        self._files, self._wanted = by_split, wanted
        self.all_splits = tuple(sorted(name for name in by_split if name)) if len(by_split) > 1 else ()
        files = [file for name in wanted for file in by_split[name]]
        rows = [read_metadata(file).num_rows for file in files]
        filled = [file for file, count in zip(files, rows, strict=True) if count] or files[:1]
        schema = read_schema(filled[0])
        self.image = find_image_column(
            schema, features_of(schema), image, redact(filled[0].location), lambda: first_strings(filled[0])
        )
        self._path = _arrow_copy(filled, schema.field(self.image.column), cache)
        self.files = tuple((self._shown(file), file.size) for file in files)
        self._folders = [os.path.dirname(file.location) for file in filled]
        self._ends = list(itertools.accumulate(count for count in rows if count))
        self._table: Any = None
        self._bytes = 0
        self.label_column, notes = self._label_column([*files, *itertools.chain(*by_split.values())], label)
        self.notes: tuple[str, ...] = (*self.image.notes, *notes)

    def _shown(self, file: StoredFile) -> str:
        return printable(relative_name(file, self._root))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # each process maps the file itself

    def _mapped(self) -> Any:
        if self._table is None:
            pyarrow = optional_import("pyarrow")
            try:
                with pyarrow.memory_map(str(self._path)) as file:
                    self._table = optional_import("pyarrow.ipc").open_file(file).read_all()
            except (pyarrow.ArrowException, OSError) as error:
                raise ValueError(f"{self._path}, a copy, is damaged: delete it ({error})") from error
            self._bytes = self._path.stat().st_size
        return self._table

    def __len__(self) -> int:
        return self._mapped().num_rows

    def cell(self, index: int) -> Any:
        table = self._mapped()
        # To look at what a mapped file no longer has is to be killed by the kernel. One that was deleted is still there.
        if self._path.exists() and self._path.stat().st_size < self._bytes:
            raise OSError(f"{self._path} was truncated while it was read: delete it, it is made again")
        return table[self.image.column][index]

    def folder(self, index: int) -> str:
        """Folder of the file that has a row: paths in it are relative to this."""
        return self._folders[bisect.bisect_right(self._ends, index)]

    def _label_column(self, files: list[StoredFile], given: str | None) -> tuple[str | None, list[str]]:
        """Find the column in the first file that has one, those of the split first."""
        if given == NO_LABELS:
            return None, []
        names: list[str] = []
        for file in files:
            try:
                schema = read_schema(file)
            except ValueError:
                continue  # of another split; those of this one were read before
            names += [name for name in schema.names if name not in names]
            column, notes = find_label_column(schema, given, self.image.column)
            if column is not None:
                return column, notes
        if given is not None:
            raise ValueError(
                f"label={given!r} is not a column of parquet:{redact(self._root).rstrip('/')}: these are {names}; on the "
                "command line --config.data.label_column"
            )
        return None, label_candidates(read_schema(files[0]), self.image.column)

    def label_columns(self, name: str) -> tuple[dict[str, dict[str, Column]], list[str]]:
        """The labels of every file of every split, and what was found."""
        columns: dict[str, dict[str, Column]] = {}
        notes: list[str] = []
        # One order, whatever the split: the classes of the first file with names come first.
        for split in sorted(self._files, key=lambda split: (split != "train", split)):
            columns[split] = {}
            for file in self._files[split]:
                shown = self._shown(file)
                try:
                    columns[split][shown] = _read_label_column(file, self.label_column or "", name, shown)
                except ValueError as error:
                    if split in self._wanted:
                        raise
                    notes.append(f"warning: classes of the split {split} are not counted: {error}")
                    continue
                if self.label_column not in read_schema(file).names:
                    notes.append(f"{shown} has no column {self.label_column!r}: its images have no label")
        return columns, notes

    def splits(self) -> list[str]:
        return self._wanted


class _HubTable:
    """The images of a set of the Hugging Face hub, through its own memory-mapped copy, and the labels of all its splits."""

    def __init__(self, name: str, split: str, image: str | None, label: str | None):
        datasets = optional_import("datasets")
        self._name, self._split = name, split
        self.files: tuple[tuple[str, int], ...] = ()
        rows = self._load(split)
        self.all_splits: tuple[str, ...] = tuple(rows.info.splits or ())
        schema = rows.features.arrow_schema
        features = features_of(schema)
        self.image = find_image_column(
            schema, features, image, name, lambda: rows.with_format("arrow")[:LOOKED_AT]
        )
        self.notes = self.image.notes
        self.label_column: str | None = None
        if label != NO_LABELS:
            if label is not None and label not in schema.names:
                raise ValueError(
                    f"label={label!r} is not a column of parquet:{name}: these are {schema.names}; on the command line "
                    "--config.data.label_column"
                )
            self.label_column, notes = find_label_column(schema, label, self.image.column)
            notes = notes or ([] if self.label_column else label_candidates(schema, self.image.column))
            self.notes += tuple(notes)
        self._labelled = rows
        rows = rows.select_columns([self.image.column])
        if features.get(self.image.column, {}).get("_type") == "Image":
            rows = rows.cast_column(self.image.column, datasets.Image(decode=False))
        self._rows = rows.with_format("arrow")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_labelled": None}  # the labels are read once

    def _load(self, split: str) -> Any:
        datasets = optional_import("datasets")
        repository, _, config = self._name.partition(":")
        try:
            return datasets.load_dataset(repository, config or None, split=split)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(
                f"parquet:{self._name} is not a path here, and the Hugging Face hub gave no split {split!r} of "
                f"a set of that name: {' '.join(str(error).split())}"
            ) from error

    def __len__(self) -> int:
        return len(self._rows)

    def cell(self, index: int) -> Any:
        chunk = self._rows[index][self.image.column].chunk(0)
        return storage_of(chunk)[0]

    def folder(self, index: int) -> str:
        raise ValueError("of a set of the hub, only images that it has as bytes are read")

    def label_columns(self, name: str) -> tuple[dict[str, dict[str, Column]], list[str]]:
        """The labels of this split, and of the others where no feature of the set names the classes."""
        column = self.label_column or ""
        names = class_names(self._labelled.features.arrow_schema, column)
        notes: list[str] = []
        columns = {self._split: {self._split: _column_of(self._labelled, column, names, name, self._split)}}
        others = (
            []
            if names
            else [split for split in self._labelled.info.splits or () if split not in self._split.split("+")]
        )
        for split in others:
            try:
                columns[split] = {split: _column_of(self._load(split), column, names, name, split)}
            except ValueError as error:
                notes.append(f"warning: classes of the split {split} are not counted: {error}")
        return columns, notes

    def splits(self) -> list[str]:
        return [self._split]


def _local_files(path: Path) -> tuple[list[StoredFile], list[str], str]:
    """The parquet files of a file or folder, their names relative to their folder, and that folder."""
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    names = [file.relative_to(root) for file in files]
    pairs = [
        (file, name.as_posix())
        for file, name in zip(files, names, strict=True)
        if not path.is_dir() or not any(part.startswith(".") for part in name.parts)
    ]
    if not pairs:
        raise ValueError(f"parquet:{path} has no file that ends in .parquet, at any depth")
    stored = [stat_file(str(file)) for file, _ in pairs]
    return stored, [name for _, name in pairs], os.path.join(root, "")


def _remote_files(path: str) -> tuple[list[StoredFile], list[str], str]:
    try:
        return find_files(path, ".parquet")
    except FileNotFoundError as error:
        raise ValueError(f"parquet:{error}") from error


def _read_label_column(file: StoredFile, column: str, name: str, shown: str) -> Column:
    """The labels of a file; none where it lacks the column."""
    schema = read_schema(file)
    if column not in schema.names:
        return read_labels(np.full(read_metadata(file).num_rows, -1), where=shown)
    try:
        table = optional_import("pyarrow.parquet").ParquetFile(open_to_read(file)).read(columns=[column])
        values = table.column(column)
    except ConnectionError:
        raise
    except (optional_import("pyarrow").ArrowException, OSError) as error:
        raise ValueError(f"{printable(file.name)} cannot be read: {error}") from error
    return read_label_column(values, column, class_names(schema, column), name, shown)


def _column_of(rows: Any, column: str, names: tuple[str, ...], name: str, shown: str) -> Column:
    if column not in rows.column_names:
        return read_labels(np.full(len(rows), -1), where=shown)
    values = rows.select_columns([column]).with_format("arrow")[:][column]
    return read_label_column(values, column, names, name, shown)


def _labels_of_all(table: "_LocalTable | _HubTable", name: str) -> _SplitLabels:
    """The labels of a table, numbered by the classes of all splits."""
    if table.label_column is None:
        return _SplitLabels((), np.full(len(table), -1, np.int32), ())
    columns, notes = table.label_columns(name)
    numbered = number_classes(
        {file: column for files in columns.values() for file, column in files.items()},
        where=f"label of {name}",
    )
    rest = iter(numbered.labels)
    none = np.zeros(0, np.int32)
    by_split = {
        split: np.concatenate([none, *(next(rest) for _ in files)]) for split, files in columns.items()
    }
    labels = np.concatenate([by_split[split] for split in table.splits()])
    sides = one_sided_classes(numbered.classes, by_split)
    return _SplitLabels(numbered.classes, labels, (*notes, *numbered.notes, *sides))


def _path_inside(folder: str, path: str) -> str:
    """The path of a file in a folder or below.

    Raises:
      ValueError: absolute, a URL, or outside of the folder once links are followed.
    """
    if is_url(folder):
        raise ValueError("paths in a table behind a URL are not followed: store the images in it")
    if _URL.match(path):
        raise ValueError("a URL is not fetched: store the images, or download them beside the table")
    if os.path.isabs(path):
        raise ValueError(
            "an absolute path is not opened: allowed are paths relative to the folder of the table"
        )
    try:
        root, real = os.path.realpath(folder), os.path.realpath(os.path.join(folder, path))
    except (OSError, ValueError) as error:
        raise ValueError(f"no path: {error}") from error
    if os.path.commonpath([root, real]) != root:
        raise ValueError("it leaves the folder of the table, and is not opened")
    return real


def _pixel_dtype(table: "_LocalTable | _HubTable", sample: Sequence[int]) -> np.dtype[Any]:
    """The type of pixels that are lists of numbers: that of the column, or for wide integers what a sample needs."""
    largest = 0
    for index in sample:
        try:
            array = nested_pixels(table.cell(index), table.image.shape)
        except ValueError:
            continue
        if array.dtype.kind in "fb":
            return np.dtype(np.float32) if array.dtype.kind == "f" else np.dtype(bool)
        if array.dtype in (np.uint8, np.uint16):
            return array.dtype
        largest = max(largest, int(array.max(initial=0)))
    return np.dtype(np.uint8 if largest <= 255 else np.uint16)


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ssl_jax" / "parquet"


def _arrow_copy(files: list[StoredFile], field: Any, cache: Path) -> Path:
    """The Arrow file with one column of parquet files, made where the cache does not have it."""
    pyarrow, parquet = optional_import("pyarrow"), optional_import("pyarrow.parquet")
    stamps = [
        (file.location, file.size, file.stamp)
        if is_url(file.location)
        else (os.path.abspath(file.location), file.size, int(file.stamp))
        for file in files
    ]
    key = hashlib.blake2b(json.dumps([stamps, [field.name]]).encode(), digest_size=12).hexdigest()
    target = cache / f"{key}.arrow"
    if target.exists():
        return target
    kind = getattr(field.type, "storage_type", field.type)
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    wanted = pyarrow.schema([pyarrow.field(field.name, kind)])
    cache.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=cache, suffix=".part")
    os.close(handle)
    file = files[0]
    try:
        with pyarrow.ipc.new_file(unfinished, wanted) as writer:
            for file in files:
                for batch in parquet.ParquetFile(open_to_read(file)).iter_batches(
                    _COPY_ROWS, columns=[field.name]
                ):
                    column = storage_of(batch.column(field.name)).cast(kind)
                    writer.write_table(pyarrow.Table.from_arrays([column], schema=wanted))
        os.replace(unfinished, target)
    except (pyarrow.ArrowException, KeyError) as error:
        raise ValueError(
            f"{redact(file.location)} cannot be read, or its columns differ from those of {redact(files[0].location)}: {error}"
        ) from error
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return target
