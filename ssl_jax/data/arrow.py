"""Columns of tables: which one holds images and which one labels, and what is in them."""

import importlib
import io
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data import npy
from ssl_jax.data.files import SUFFIXES
from ssl_jax.data.label_column import Column, read_labels
from ssl_jax.data.stores import StoredFile, open_to_read, redact

LOOKED_AT = 256
"""Rows of a column of strings that tell whether they are paths of images."""
_FLAG = "on the command line --config.data.image_column"
_SHOWN = 5


def optional_import(module: str) -> Any:
    """Import a module of the extra ``parquet``.

    Raises:
      ImportError: its package is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"parquet sources need {package}: pip install 'ssl-jax[parquet]'") from error


def read_schema(file: StoredFile) -> Any:
    """Read the schema of a parquet file.

    Raises:
      ValueError: the file cannot be read.
    """
    return _read_foot("read_schema", file)


def read_metadata(file: StoredFile) -> Any:
    """Read what the foot of a parquet file says, such as ``num_rows``.

    Raises:
      ValueError: the file cannot be read.
    """
    return _read_foot("read_metadata", file)


def _read_foot(function: str, file: StoredFile) -> Any:
    try:
        return getattr(optional_import("pyarrow.parquet"), function)(open_to_read(file))
    except ConnectionError:
        raise
    except (optional_import("pyarrow").ArrowException, OSError) as error:
        raise ValueError(f"{redact(file.location)} cannot be read: {error}") from error


def first_strings(file: StoredFile) -> Any:
    """Read the first rows of the columns of strings of a parquet file."""
    types = optional_import("pyarrow").types
    schema = read_schema(file)
    names = [field.name for field in schema if _is_string(field.type, types)]
    batches = (
        optional_import("pyarrow.parquet")
        .ParquetFile(open_to_read(file))
        .iter_batches(LOOKED_AT, columns=names)
    )
    return next(batches, optional_import("pyarrow").table({}))


def features_of(schema: Any) -> dict[str, dict[str, Any]]:
    """Read what Hugging Face's note in a schema says about the columns; {} where there is none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError):
        return {}


def class_names(schema: Any, column: str) -> tuple[str, ...]:
    """Read the names that Hugging Face's note gives the labels 0, 1, ... of a column; () where there are none."""
    feature = features_of(schema).get(column, {})
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


class ImageColumn(NamedTuple):
    """The column of a table that holds its images.

    Attributes:
      column: its name.
      form: ``"bytes"``, ``"path"`` or ``"numbers"``.
      shape: of every image, where the type of a column of tensors says it.
      others: a hint at other columns, for messages.
      notes: sentences about the choice.
    """

    column: str
    form: str
    shape: tuple[int, ...] | None
    others: str
    notes: tuple[str, ...] = ()


def find_image_column(
    schema: Any,
    features: dict[str, dict[str, Any]],
    given: str | None,
    where: Any,
    first_rows: Callable[[], Any],
) -> ImageColumn:
    """Find the column that holds the images of a table.

    Args:
      schema: of the table.
      features: from :func:`features_of`.
      given: name that the user gives; None: ``image``, or the only one, bytes before paths before lists of numbers.
      where: the table, for messages.
      first_rows: gives the first rows of the columns of strings.

    Raises:
      ValueError: there is none, there are several, or the given one can hold no images; names the columns and the option.
    """
    types = optional_import("pyarrow").types
    strings = [field.name for field in schema if _is_string(field.type, types)]
    paths: set[str] = set()
    if given in strings:
        paths = {str(given)}
    elif given is None and strings and not any(_holds_bytes(field.type, types) for field in schema):
        rows = first_rows()
        paths = {name for name in strings if any(map(_names_image, rows.column(name).to_pylist()))}
    forms = {field.name: form for field in schema if (form := _form(field, types, paths))}
    if given is not None and given not in forms:
        raise ValueError(
            f"image={given!r}: the columns of parquet:{where} that can hold images are {list(forms)} ({_FLAG}); its columns "
            f"are {_kinds(schema)}{_flat_lists(schema, types)}"
        )
    for form in ("bytes", "path", "numbers"):
        able = [name for name in forms if forms[name] == form]
        marked = [name for name in able if features.get(name, {}).get("_type") == "Image"]
        named = [name for name in able if name == "image"]
        for names in (
            [given] if given in able else [],
            [] if given else named,
            [] if given else marked,
            able,
        ):
            if len(names) == 1 and given in (None, names[0]):
                (column,) = names
                shape = getattr(schema.field(column).type, "shape", None)
                others = [name for name in dict.fromkeys([*forms, *strings]) if name != column]
                rest = [name for name in able if name != column and given is None]
                notes = (
                    [f"images are those of the column {column!r}; {rest} could hold some too: {_FLAG}"]
                    if rest
                    else []
                )
                hint = f"other columns are {others[:_SHOWN]}: image= names one, {_FLAG}" if others else ""
                return ImageColumn(str(column), form, tuple(shape) if shape else None, hint, tuple(notes))
        if able and given is None:
            raise ValueError(
                f"parquet:{where} has {len(able)} columns that can hold images: give image= one of {able}, {_FLAG}"
            )
    raise ValueError(
        f"parquet:{where} has no column of bytes, paths of images, or lists of rows of pixels: its columns are {_kinds(schema)}"
        f"{_flat_lists(schema, types)}"
    )


def _is_string(kind: Any, types: Any) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind)


def _holds_bytes(kind: Any, types: Any) -> bool:
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type, types) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _depth(kind: Any, types: Any) -> int:
    """How deeply lists of numbers are nested; 0 for what is no list of numbers."""
    depth = 0
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) else 0


def _form(field: Any, types: Any, paths: set[str]) -> str | None:
    """How a column can hold images: bytes, path, numbers, or not at all."""
    kind = field.type
    shape = getattr(kind, "shape", None)
    kind = getattr(kind, "storage_type", kind)
    if _holds_bytes(kind, types):
        return "bytes"
    if types.is_struct(kind) and any(part.name == "path" and _is_string(part.type, types) for part in kind):
        return "path"
    if field.name in paths:
        return "path"
    depth = _depth(kind, types)
    return "numbers" if depth in (2, 3) or (depth == 1 and shape and len(shape) in (2, 3)) else None


def _kinds(schema: Any) -> str:
    shown = [f"{field.name} ({str(field.type)[:40]})" for field in schema]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")


def _flat_lists(schema: Any, types: Any) -> str:
    flat = [field.name for field in schema if _depth(field.type, types) == 1]
    if not flat:
        return ""
    return f"; the lists of numbers in {flat[0]} say neither height nor width: store lists of rows, [h][w] or [h][w][c]"


def _names_image(value: Any) -> bool:
    return isinstance(value, str) and os.path.splitext(value)[1].lower() in SUFFIXES


def find_label_column(schema: Any, given: str | None, image: str) -> tuple[str | None, list[str]]:
    """Find the column of labels, and what to say of the choice.

    Args:
      schema: of the table.
      given: name that the user gives; None: ``label``, or the first column of class labels.
      image: name of the column of images.
    """
    names = [name for name in schema.names if name != image]
    if given is not None:
        return (given if given in names else None), []
    marked = [name for name in names if features_of(schema).get(name, {}).get("_type") == "ClassLabel"]
    column = "label" if "label" in names else marked[0] if marked else None
    notes = []
    if column not in (None, "label") and len(marked) > 1:
        notes.append(
            f"labels are those of the column {column!r}, one of {marked}: --config.data.label_column names another"
        )
    return column, notes


def label_candidates(schema: Any, image: str) -> list[str]:
    """Say which columns could hold the labels of a table in which none is found."""
    types = optional_import("pyarrow").types
    able = [
        field.name
        for field in schema
        if field.name != image and (types.is_integer(field.type) or _is_string(field.type, types))
    ]
    if not able:
        return []
    return [
        f"no labels: no column is called label; if {able[:_SHOWN]} has one, --config.data.label_column=NAME says so"
    ]


def read_label_column(values: Any, column: str, names: tuple[str, ...], name: str, file_name: str) -> Column:
    """Read labels from an Arrow column.

    Args:
      values: the column.
      column: its name.
      names: names of the labels 0, 1, ...; () where it has none.
      name, file_name: of the source and of the file, for messages.

    Raises:
      ValueError: labels that are no classes; names the option that chooses another column, or none.
    """
    where = f"label={column!r} of {file_name} in {name}"
    hint = "; --config.data.label_column names another column, an empty name none"
    try:
        return read_labels(_from_arrow(values), where=where, names=names)
    except ValueError as error:
        raise ValueError(f"{error}{hint}") from error


def _from_arrow(values: Any) -> Any:
    """A column as a masked array of numbers, or as a list of Python's values."""
    pyarrow = optional_import("pyarrow")
    types = pyarrow.types
    if isinstance(values.type, pyarrow.BaseExtensionType):
        values = pyarrow.chunked_array(
            [storage_of(chunk) for chunk in values.chunks], values.type.storage_type
        )
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        return values.to_pylist()
    mask = values.is_null().to_numpy()
    filled = optional_import("pyarrow.compute").fill_null(values, pyarrow.scalar(0).cast(kind))
    return np.ma.MaskedArray(filled.to_numpy(), mask)


def storage_of(array: Any) -> Any:
    """Return the plain array behind one of an extension type; any other as it is."""
    return array.storage if isinstance(array, optional_import("pyarrow").ExtensionArray) else array


def nested_pixels(cell: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    """The numbers of nested lists as an array.

    Raises:
      ValueError: rows of several lengths, missing numbers, or an array that is no image.
    """
    pyarrow = optional_import("pyarrow")
    types, compute = pyarrow.types, optional_import("pyarrow.compute")
    if not cell.is_valid:
        raise ValueError("numbers are missing")
    values = cell.values
    found = [len(values)]
    while _depth(values.type, types):
        lengths = compute.unique(compute.list_value_length(values)).to_pylist() if len(values) else [0]
        if len(lengths) != 1 or lengths[0] is None:
            raise ValueError(f"lists of several lengths, {sorted(map(str, lengths))[:_SHOWN]}, are no image")
        found.append(lengths[0])
        values = values.flatten()
    if values.null_count or not len(values):
        raise ValueError("numbers are missing")
    array = values.to_numpy(zero_copy_only=False).reshape(shape or found)
    if npy.channels_first(array.shape):
        raise ValueError(f"lists of shape {list(array.shape)} have the channels first: allowed is [h][w][c]")
    return array


def npy_bytes(array: np.ndarray, dtype: np.dtype[Any]) -> bytes:
    """An image as the bytes of a .npy file, which the decoder reads like any other.

    Raises:
      ValueError: integers that the type of the pixels does not have.
    """
    if dtype.kind == "u" and array.dtype != dtype:
        low, high, top = int(array.min()), int(array.max()), np.iinfo(dtype).max
        if low < 0 or high > top:
            raise ValueError(f"pixels from {low} to {high}: allowed is 0 to {top}")
    file = io.BytesIO()
    np.save(file, array.astype(dtype))
    return file.getvalue()
