"""Labels as people store them, and one table of classes for all splits of a source.

A column of labels has one label an image: an integer, a float without a fraction, a boolean, a string, a one-hot row, or a list
of one of these. -1, null, NaN, a masked entry and an empty string are no label.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

EXACT = 2**53
"""The first float above which not every integer has a float of its own."""
MOST_NUMBERED = 1_000_000
"""The most classes that are numbered by their labels where the labels of one array are all that is known."""
_MANY = 100  # classes; fewer are never taken for ids
_SHOWN = 5


class Column(NamedTuple):
    """Labels of the images of one file or array.

    Attributes:
      values: ``[n]`` integers, or strings (as objects); what stands where ``present`` is False means nothing.
      present: bool ``[n]``, False for an image without a label.
      names: names of the labels 0, 1, ..., where the column comes with them; then values are integers.
      notes: sentences about what was found.
    """

    values: np.ndarray
    present: np.ndarray
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the labels are strings."""
        return self.values.dtype == object and bool(self.present.any()) and not self.names

    @property
    def is_numbers(self) -> bool:
        """Whether the labels are integers that have no names."""
        return self.values.dtype != object and bool(self.present.any()) and not self.names


class Classes(NamedTuple):
    """Labels of several columns that share one table of classes.

    Attributes:
      classes: names of the labels 0, 1, ...
      labels: of each column, int32 ``[n]``, -1 for none.
      notes: sentences about what was found.
    """

    classes: tuple[str, ...]
    labels: tuple[np.ndarray, ...]
    notes: tuple[str, ...]


def read_labels(values: Any, *, where: str, names: Sequence[str] = ()) -> Column:
    """Read labels in any of the forms in which they are stored.

    Args:
      values: ``[n]`` integers, floats without a fraction, booleans, strings, bytes that are UTF-8, None; ``[n, 1]`` of these;
        ``[n, k]`` one-hot rows; a masked array; lists of such values.
      where: what holds them, for messages.
      names: names of the labels 0, 1, ..., where there are some.

    Raises:
      ValueError: labels that are no classes: fractions, several an image, fields, numbers below -1 or without a name; names the
        first row.

    >>> column = read_labels([2.0, float("nan"), -1.0], where="y")
    >>> column.values.tolist(), column.present.tolist()
    ([2, 0, 0], [True, False, False])
    >>> read_labels([[0, 1, 0], [1, 0, 0]], where="y").names
    ('0', '1', '2')
    >>> read_labels([0.5], where="y")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: y holds float: allowed are integers or strings, ... (row 0 is 0.5)
    """
    masked: np.ndarray | None = None
    if not hasattr(values, "__len__") or isinstance(values, str | bytes | Mapping):
        raise ValueError(f"{where}={values!r}: allowed is a list of labels, one an image")
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        masked = np.asarray(np.any(mask, axis=tuple(range(1, mask.ndim))))
        values = values.data
    array = _as_array(values, where)
    if array.dtype.kind == "O":
        column = _from_objects(array, masked, where)
    else:
        present = np.ones(len(array), bool) if masked is None else ~masked
        column = _from_numbers(array, present, where)
    if names and column.is_text:
        raise ValueError(
            f"{where} holds strings, such as {_first(column)[1]!r}, beside names for numbers: allowed is one of the two"
        )
    if names:
        column = column._replace(names=_checked_names(names, where))
    _require_range(column, where)
    return column


def number_classes(columns: Mapping[str, Column], *, where: str) -> Classes:
    """Number the classes of several columns by one table: a name has the same number in all of them.

    Columns that come with names keep their order; names that only later ones have follow. Other integers are named by their
    number and sorted as numbers, strings as text.

    Args:
      columns: by the name of what holds them.
      where: the whole, for messages.

    Raises:
      ValueError: numbers in one and strings in another, or numbers without names beside names in two orders.

    >>> table = number_classes({"a": read_labels([7, 3], where="a"), "b": read_labels([10], where="b")}, where="set")
    >>> table.classes, [x.tolist() for x in table.labels], table.notes
    (('3', '7', '10'), [[1, 0], [2]], ('label numbers 3, 7, 10 are the classes 0 to 2 here, named by their number',))
    """
    notes = [f"{name}: {note}" for name, column in columns.items() for note in column.notes]
    texts = [name for name, column in columns.items() if column.is_text]
    plain = [name for name, column in columns.items() if column.is_numbers]
    tables = {column.names: name for name, column in columns.items() if column.names}
    classes = tuple(dict.fromkeys(name for table in tables for name in table))
    if texts and plain:
        raise ValueError(
            f"{where} has numbers as labels in {plain[0]} and strings in {texts[0]}: allowed is one kind in all its files"
        )
    if plain and tables:
        columns = _name_numbers(columns, plain, tables, where)
        notes.append(
            f"the labels of {plain[0]} are numbers: taken for those of the classes of {tables[classes]}"
        )
    elif plain:
        numbers = sorted({int(value) for name in plain for value in _unique(columns[name])})
        classes = tuple(str(number) for number in numbers)
        if numbers != list(range(len(numbers))):
            notes.append(
                f"label numbers {_listed(classes)} are the classes 0 to {len(numbers) - 1} here, named by their number"
            )
    if len(tables) > 1:
        notes.append(
            f"the classes of {' and '.join(list(tables.values())[:2])} are not the same: matched by name"
        )
    found = {str(value) for name in texts for value in _unique(columns[name])}
    classes += tuple(sorted(found - set(classes)))
    index = {name: number for number, name in enumerate(classes)}
    labels = tuple(_numbered(column, index) for column in columns.values())
    notes += [] if tables else _too_many(labels, where)
    return Classes(classes, labels, tuple(dict.fromkeys(notes)))


def number_labels(values: Any, classes: Sequence[str] = (), *, where: str) -> Classes:
    """Number the labels of one array, of which other splits are not known: integers stay what they are.

    Args:
      values: labels, for :func:`read_labels`.
      classes: names of the labels 0, 1, ...; (): integers are named by their number, from 0 to the largest, and strings are
        sorted.
      where: what holds them, for messages.

    Raises:
      ValueError: labels that are no classes, or beyond the names.

    >>> number_labels([1, 3, -1], where="labels").classes
    ('0', '1', '2', '3')
    >>> number_labels(["b", "a", None], ("a", "b"), where="labels").labels[0].tolist()
    [1, 0, -1]
    """
    column = read_labels(values, where=where)
    classes = tuple(classes)
    if classes and column.is_text:
        index = {name: number for number, name in enumerate(classes)}
        for row, value in zip(np.flatnonzero(column.present), column.values[column.present], strict=True):
            if value not in index:
                raise ValueError(
                    f"{where}: row {row} is {value!r}, which is none of the classes {_listed(classes)}"
                )
        numbered = Classes(classes, (_numbered(column, index),), _notes_of(column, where))
    elif classes:
        column = column._replace(names=classes)
        _require_range(column, where)
        labels = np.where(column.present, column.values, -1).astype(np.int32)
        numbered = Classes(classes, (labels,), _notes_of(column, where))
    elif column.is_numbers:
        largest = int(column.values[column.present].max())
        if largest >= MOST_NUMBERED:
            raise ValueError(
                f"{where}: the largest is {largest}: allowed are numbers below {MOST_NUMBERED:,}; number the classes 0, 1, ... "
                "as np.unique(labels, return_inverse=True) does"
            )
        classes = tuple(str(number) for number in range(largest + 1))
        labels = np.where(column.present, column.values, -1).astype(np.int32)
        missing = [
            name for name, count in zip(classes, _counts(labels, len(classes)), strict=True) if not count
        ]
        notes = [f"labels that no image has: {_listed(missing)}"] if missing else []
        numbered = Classes(
            classes, (labels,), (*_notes_of(column, where), *notes, *_too_many((labels,), where))
        )
    else:
        numbered = number_classes({where: column}, where=where)
    return numbered


def one_sided_classes(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Say which classes only one split has, a sentence a split; splits without any label are left aside.

    Args:
      classes: names of the labels.
      labels: of every split, int ``[n]``, -1 for none.

    >>> one_sided_classes("abc", {"train": np.array([0, 1]), "test": np.array([1, 2]), "more": np.array([-1])})
    ('only train has the class a', 'only test has the class c')
    """
    present = {
        split: np.bincount(x[x >= 0], minlength=len(classes)) > 0
        for split, x in labels.items()
        if (x >= 0).any()
    }
    if len(present) < 2:
        return ()
    shared = np.sum(list(present.values()), axis=0)
    notes = []
    for split, has in present.items():
        alone = [classes[int(i)] for i in np.flatnonzero(has & (shared == 1))]
        if alone:
            notes.append(f"only {split} has the class{'es' * (len(alone) > 1)} {_listed(alone)}")
    return tuple(notes)


def _as_array(values: Any, where: str) -> np.ndarray:
    """An array of numbers of any rank, or one of objects of rank 1."""
    if not isinstance(values, np.ndarray):
        try:
            array = np.asarray(values)
        except ValueError:  # rows of several lengths
            array = np.empty(0, object)
        if array.dtype.kind in "USO" or array.shape[:1] != (len(values),):
            array = np.empty(len(values), object)
            for row, value in enumerate(values):
                array[row] = value
        values = array
    if values.ndim == 0:
        raise ValueError(f"{where} is {values.item()!r}: allowed is a list of labels, one an image")
    if values.dtype.kind in "biuf":
        return values
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind in "USO" and values.ndim == 1:
        return values.astype(object)
    raise _no_classes(where, f"an array of shape {values.shape} of {values.dtype}")


def _no_classes(where: str, what: str, row: Any = None, value: Any = None) -> ValueError:
    found = "" if row is None else f" (row {row} is {_short(value)})"
    return ValueError(
        f"{where} holds {what}: allowed are integers or strings, one an image, one-hot rows, and -1 or null for none{found}"
    )


def _short(value: Any) -> str:
    text = repr([_plain(entry) for entry in value] if isinstance(value, list) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _from_numbers(array: np.ndarray, present: np.ndarray, where: str) -> Column:
    """Numbers and booleans, ``[n]``, ``[n, 1]`` or one-hot ``[n, k]``."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] > 1:
        return _from_one_hot(array, present, where)
    if array.ndim != 1:
        raise _no_classes(where, f"an array of shape {array.shape}")
    if array.dtype.kind == "b":
        return Column(np.where(present, array, 0).astype(np.int64), present, ("False", "True"))
    if array.dtype.kind == "f":
        present = present & ~np.isnan(array)
        known = np.where(present, array, 0).astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(known) | (known != np.trunc(known)) | (np.abs(known) >= EXACT))
        if len(wrong):
            raise _no_classes(where, "float", wrong[0], float(known[wrong[0]]))
        array = known.astype(np.int64)
    present = present & ~((array == -1) if array.dtype.kind == "i" else np.zeros(len(array), bool))
    return Column(np.where(present, array, 0).astype(array.dtype), present)


def _from_one_hot(array: np.ndarray, present: np.ndarray, where: str) -> Column:
    known = np.where(present[:, None], array, 0)
    ones = np.sum(known == 1, axis=1)
    wrong = np.flatnonzero(present & ((ones != 1) | (np.sum(known != 0, axis=1) != 1)))
    if len(wrong):
        raise _no_classes(
            where, "rows of several numbers that are not one-hot", wrong[0], array[wrong[0]].tolist()
        )
    return Column(np.argmax(known, axis=1), present, tuple(str(k) for k in range(array.shape[1])))


def _from_objects(array: np.ndarray, masked: np.ndarray | None, where: str) -> Column:
    values = [_plain(value) for value in array]
    if masked is not None:
        values = [None if hidden else value for hidden, value in zip(masked, values, strict=True)]
    present = np.array([value is not None for value in values], bool)
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return Column(np.zeros(len(values), np.int64), present)
    if kinds == {list}:
        return _from_lists(values, present, where)
    if kinds <= {bool, int, float}:
        filled = [0 if value is None else value for value in values]
        fractions = [
            i for i, value in enumerate(filled) if isinstance(value, float) and not value.is_integer()
        ]
        if fractions:
            raise _no_classes(where, "float", fractions[0], filled[fractions[0]])
        if kinds == {bool}:
            return _from_numbers(np.array(filled, bool), present, where)
        return _from_numbers(_integers([int(value) for value in filled], where), present, where)
    if kinds == {bytes}:
        values = [_decoded(value, row, where) for row, value in enumerate(values)]
        kinds = {str}
    if kinds == {str}:
        return _from_strings(values)
    names = " and ".join(sorted(kind.__name__ for kind in kinds))
    if kinds == {dict}:
        row = int(np.argmax(present))
        raise _no_classes(where, f"structs of the fields {', '.join(map(repr, values[row]))}")
    row = next(i for i, value in enumerate(values) if value is not None)
    raise _no_classes(where, names if len(kinds) == 1 else f"a mixture of {names}", row, values[row])


def _plain(value: Any) -> Any:
    """Python's own value; None for what says that there is none, as NaN and pandas' NA do."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, np.generic):
        value = value.item()
    missing = type(value).__name__ in ("NAType", "NaTType") or (
        isinstance(value, float) and math.isnan(value)
    )
    return None if missing else value


def _integers(values: list[int], where: str) -> np.ndarray:
    for dtype in (np.int64, np.uint64):
        if min(values, default=0) >= np.iinfo(dtype).min and max(values, default=0) <= np.iinfo(dtype).max:
            return np.array(values, dtype)
    row = max(range(len(values)), key=lambda i: abs(values[i]))
    raise _no_classes(where, "integers beyond 64 bits", row, values[row])


def _from_lists(values: list[Any], present: np.ndarray, where: str) -> Column:
    """Lists of one label, or one-hot lists."""
    lengths = {len(value) for value in values if value is not None}
    if lengths <= {0, 1}:
        single = np.empty(len(values), object)
        for row, value in enumerate(values):
            single[row] = value[0] if value else None
        return _from_objects(single, None, where)
    if len(lengths) == 1:
        (length,) = lengths
        rows = [[0] * length if value is None else value for value in values]
        numeric = all(isinstance(_plain(entry), bool | int | float) for row in rows for entry in row)
        if numeric and (rest := np.asarray(rows)).dtype.kind in "biuf":
            return _from_one_hot(rest, present, where)
    row = next(i for i, value in enumerate(values) if value is not None and len(value) > 1)
    raise _no_classes(where, "lists of several labels", row, values[row])


def _decoded(value: bytes | None, row: int, where: str) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise _no_classes(where, "bytes that are no text", row, value) from error


def _from_strings(values: list[str | None]) -> Column:
    """Strings without the blanks around them; an empty one and -1 are no label."""
    stripped = [None if value is None else value.strip() for value in values]
    changed = [old for old, new in zip(values, stripped, strict=True) if old != new and new]
    empty = sum(value == "" for value in stripped)
    notes = []
    if changed:
        notes.append(f"blanks around {_number(len(changed), 'label')}, such as {changed[0]!r}, are left out")
    if empty:
        notes.append(f"{_number(empty, 'empty string')} read as no label")
    present = np.array([value not in (None, "", "-1") for value in stripped], bool)
    return Column(np.array([*stripped, None], object)[:-1], present, (), tuple(notes))


def _checked_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    names = tuple(names)
    double = (
        next((name for i, name in enumerate(names) if name in names[:i]), None)
        if len(set(names)) < len(names)
        else None
    )
    if double is not None:
        raise ValueError(f"{where} has two classes of the name {double!r}: allowed are different names")
    return names


def _require_range(column: Column, where: str) -> None:
    """Raise where a number is below -1, or has no name although there are names."""
    if column.values.dtype == object or not column.present.any():
        return
    low = np.flatnonzero(column.present & (column.values < 0))
    if len(low):
        raise ValueError(
            f"{where}: row {low[0]} is {column.values[low[0]]}: allowed are labels of 0 or more, and -1 for none"
        )
    high = np.flatnonzero(column.present & (column.values >= len(column.names)))
    if column.names and len(high):
        raise ValueError(
            f"{where}: row {high[0]} is {column.values[high[0]]}: allowed are the numbers 0 to {len(column.names) - 1} of its "
            f"{len(column.names)} classes, and -1 for none"
        )


def _first(column: Column) -> tuple[int, Any]:
    row = int(np.argmax(column.present))
    return row, column.values[row]


def _name_numbers(
    columns: Mapping[str, Column], plain: list[str], tables: Mapping[tuple[str, ...], str], where: str
) -> dict[str, Column]:
    """Give plain numbers the names that all other columns have."""
    if len(tables) > 1:
        first, second = list(tables.values())[:2]
        raise ValueError(
            f"{where} has numbers without names as labels in {plain[0]}, and {first} and {second} name their classes in other "
            "orders: allowed are names in all files, or in none"
        )
    (names,) = tables
    named = {
        name: column._replace(names=names) if name in plain else column for name, column in columns.items()
    }
    for name in plain:
        _require_range(named[name], f"{where}, {name}")
    return named


def _unique(column: Column) -> list[Any]:
    values = column.values[column.present]
    return list(dict.fromkeys(values)) if values.dtype == object else np.unique(values).tolist()


def _numbered(column: Column, index: Mapping[str, int]) -> np.ndarray:
    """The labels of a column by a table of numbers, -1 for none."""
    labels = np.full(len(column.values), -1, np.int32)
    values = column.values[column.present]
    if column.names:
        labels[column.present] = np.array([index[name] for name in column.names], np.int32)[values]
    elif values.dtype == object:
        labels[column.present] = [index[value] for value in values]
    elif len(values):
        unique, inverse = np.unique(values, return_inverse=True)
        labels[column.present] = np.array([index[str(value)] for value in unique.tolist()], np.int32)[inverse]
    return labels


def _counts(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels[labels >= 0], minlength=classes)


def _too_many(labels: Sequence[np.ndarray], where: str) -> list[str]:
    """A sentence where about every image has a class of its own, as ids have."""
    known = np.concatenate([x[x >= 0] for x in labels]) if labels else np.zeros(0, np.int32)
    used = len(np.unique(known))
    if used < _MANY or 2 * used <= len(known):
        return []
    return [
        f"warning: {where}: {used:,} classes in {len(known):,} labelled images: ids of the images rather than classes?"
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", ... ({len(names)})" if len(names) > _SHOWN else "")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}"


def _notes_of(column: Column, where: str) -> tuple[str, ...]:
    return tuple(f"{where}: {note}" for note in column.notes)
