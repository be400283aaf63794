"""Labels in every form in which they are stored, and the table of classes that splits share."""

import numpy as np
import pytest

from ssl_jax.data.describe import describe
from ssl_jax.data.label_column import number_classes, number_labels, one_sided_classes, read_labels
from ssl_jax.data.sources import ArraySource, Subset

NAN = float("nan")


def read(values, names=()):
    """The labels as a list, None for none."""
    column = read_labels(values, where="y", names=names)
    return [
        value if known else None for value, known in zip(column.values.tolist(), column.present, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 2, -1], [0, 2, None]),
        (range(3), [0, 1, 2]),
        (np.array([3, -1], np.int8), [3, None]),
        (np.array([255, 0], np.uint8), [255, 0]),
        (np.array([2**63 + 1], np.uint64), [2**63 + 1]),
        ([2**40, None], [2**40, None]),
        ([1.0, NAN, -1.0], [1, None, None]),
        (np.array([1, NAN], np.float16), [1, None]),
        ([1, None, NAN, np.int64(4)], [1, None, None, 4]),
        (np.ma.MaskedArray([5, 6], [True, False]), [None, 6]),
        (np.ma.MaskedArray([5.5, 6.0], [True, False]), [None, 6]),
        (np.ma.MaskedArray(["a", "b"], [False, True]), ["a", None]),
        ([True, False], [1, 0]),
        ([True, None], [1, None]),
        (["b", "a ", "", None, "-1"], ["b", "a", None, None, None]),
        (np.array(["b", "a"]), ["b", "a"]),
        ([b"b", "\xe9".encode()], ["b", "\xe9"]),
        (np.array([b"b", b"a"]), ["b", "a"]),
        (np.array([[4], [2]]), [4, 2]),
        ([[4], [], None, [2]], [4, None, None, 2]),
        ([["b"], ["a"]], ["b", "a"]),
        (np.eye(4)[[2, 0]], [2, 0]),
        (np.eye(3, dtype=bool)[[2, 0]], [2, 0]),
        ([[0, 1], None, [1, 0]], [1, None, 0]),
        ([[0, 1, 0]], [1]),
        ([None, None], [None, None]),
        (np.zeros(0, np.int64), []),
        (np.ma.MaskedArray(np.zeros(0, np.int64), np.zeros(0, bool)), []),
        (np.ma.MaskedArray([[0, 1], [1, 0]], [[False, False], [True, True]]), [1, None]),
    ],
)
def test_a_label_is_a_number_or_a_string_in_any_of_the_forms_that_are_stored(values, expected):
    assert read(values) == expected


def test_series_of_pandas_are_read():
    pandas = pytest.importorskip("pandas")
    assert read(pandas.Series([1, None], dtype="Int64")) == [1, None]
    assert read(pandas.Series(pandas.Categorical(["b", None, "a"]))) == ["b", None, "a"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1.5], r"y holds float: allowed are integers or strings.*\(row 1 is 1\.5\)"),
        ([0, float("inf")], r"holds float.*row 1 is inf"),
        ([float(2**60)], "holds float.*row 0"),
        ([None, 0.5], r"holds float.*row 1 is 0\.5"),
        ([0, -5], r"y: row 1 is -5: allowed are labels of 0 or more, and -1 for none"),
        (np.array([0.0, -2.0]), "row 1 is -2"),
        ([2**70], "integers beyond 64 bits.*row 0"),
        (["a", 1], r"a mixture of int and str.*row 0 is 'a'"),
        ([[1, 2], [3]], r"lists of several labels.*row 0 is \[1, 2\]"),
        ([["a", "b"], ["c", "d"]], "lists of several labels"),
        ([[1, 1, 0], [0, 1, 0]], r"not one-hot.*row 0 is \[1, 1, 0\]"),
        (np.array([[1, 0], [0, 0]]), r"not one-hot.*row 1 is \[0, 0\]"),
        ([[0.3, 0.7]], "not one-hot"),
        (np.array([[3, 0, 0]]), "not one-hot"),
        ([{"a": 1, "b": 2}], "structs of the fields 'a', 'b'"),
        ([b"\xff"], r"bytes that are no text.*row 0"),
        (np.zeros([2, 2, 2], int), r"an array of shape \(2, 2, 2\)"),
        (np.array([1j]), "complex"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        (3, "y=3: allowed is a list of labels"),
        ("cat", "y='cat': allowed is a list of labels"),
        (np.int64(3), "allowed is a list of labels"),
    ],
)
def test_what_is_no_class_is_refused_in_one_line_that_names_the_row(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(values)
    assert "\n" not in str(caught.value)


def test_names_bound_the_numbers():
    assert read([0, 1, -1], names=("a", "b")) == [0, 1, None]
    with pytest.raises(ValueError, match="row 1 is 2: allowed are the numbers 0 to 1 of its 2 classes"):
        read([0, 2], names=("a", "b"))
    with pytest.raises(ValueError, match="two classes of the name 'a'"):
        read([0], names=("a", "a"))
    with pytest.raises(ValueError, match="holds strings, such as 'a', beside names"):
        read(["a"], names=("a", "b"))


def shared(*columns, names=None):
    names = names or [()] * len(columns)
    read = {
        f"f{i}": read_labels(c, where=f"f{i}", names=n)
        for i, (c, n) in enumerate(zip(columns, names, strict=True))
    }
    return number_classes(read, where="set")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("text", [False, True])
def test_all_columns_share_one_table_by_name(seed, text):
    """Oracle: a loop over the values."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(-1, 40, size=12).tolist() for _ in range(3)]
    every = sorted({value for column in columns for value in column} - {-1})
    if text:
        columns = [[None if value == -1 else f"k{value}" for value in column] for column in columns]
        every = sorted(f"k{value}" for value in every)
    table = shared(*columns)
    assert table.classes == tuple(map(str, every))
    for column, labels in zip(columns, table.labels, strict=True):
        assert labels.dtype == np.int32
        expected = [-1 if value in (None, -1) else every.index(value) for value in column]
        assert labels.tolist() == expected


def test_numbers_are_sorted_as_numbers_and_gaps_are_said():
    table = shared([10, 9, 1])
    assert table.classes == ("1", "9", "10") and table.labels[0].tolist() == [2, 1, 0]
    assert table.notes == ("label numbers 1, 9, 10 are the classes 0 to 2 here, named by their number",)
    assert shared([0, 2, 1]).notes == ()


def test_names_in_another_order_are_matched_by_name():
    table = shared([0, 1], [0, 1, 2], names=[("a", "b"), ("c", "b", "a")])
    assert table.classes == ("a", "b", "c")
    assert [labels.tolist() for labels in table.labels] == [[0, 1], [2, 1, 0]]
    assert table.notes == ("the classes of f0 and f1 are not the same: matched by name",)
    mixed = shared([0, 1], ["z", "b"], names=[("a", "b"), ()])
    assert mixed.classes == ("a", "b", "z") and mixed.labels[1].tolist() == [2, 1]


def test_numbers_beside_names_are_their_numbers():
    table = shared([1, 0], [1, -1], names=[("a", "b"), ()])
    assert table.classes == ("a", "b") and table.labels[1].tolist() == [1, -1]
    assert "labels of f1 are numbers" in table.notes[0]
    with pytest.raises(ValueError, match="row 0 is 2: allowed are the numbers 0 to 1"):
        shared([1, 0], [2], names=[("a", "b"), ()])
    with pytest.raises(ValueError, match="f0 and f1 name their classes in other orders"):
        shared([0], [0], [0], names=[("a", "b"), ("b", "a"), ()])
    with pytest.raises(ValueError, match="numbers as labels in f0 and strings in f1"):
        shared([0], ["a"])


def test_columns_without_labels_take_part_in_any_table():
    assert shared([None, None]).classes == ()
    for other, classes in (([1, 2], ("1", "2")), (["a"], ("a",))):
        table = shared([-1, None], other)
        assert table.classes == classes and table.labels[0].tolist() == [-1, -1]
    named = shared([-1, -1], names=[("a", "b")])
    assert named.classes == ("a", "b") and named.labels[0].tolist() == [-1, -1]


def test_ids_are_suspected_and_many_classes_are_not():
    ids = np.random.default_rng(0).permutation(10**6)[:500] + 2**33
    assert "warning: set: 500 classes in 500 labelled images: ids" in shared(ids).notes[-1]
    assert not any("ids" in note for note in shared(np.arange(500) % 240).notes)
    assert not any("ids" in note for note in shared(np.arange(60)).notes)
    assert "ids" in number_labels([f"{i:x}" for i in ids], where="labels").notes[0]


def test_a_class_that_only_one_split_has_is_said():
    labels = {"train": np.array([0, 1, 1]), "val": np.array([1, 2]), "test": np.array([1, 0, -1])}
    assert one_sided_classes(("a", "b", "c"), labels) == ("only val has the class c",)
    assert one_sided_classes(("a",), {"train": np.array([0]), "test": np.array([-1])}) == ()


IMAGES = np.zeros([3, 4, 4], np.uint8)


@pytest.mark.parametrize(
    ("labels", "classes", "names", "numbers"),
    [
        ([1, 3, -1], (), ("0", "1", "2", "3"), [1, 3, -1]),
        ([1, 0, 1], "ab", ("a", "b"), [1, 0, 1]),
        (["b", "a", None], (), ("a", "b"), [1, 0, -1]),
        (["b", "a", ""], "bca", ("b", "c", "a"), [0, 2, -1]),
        (np.eye(3)[[2, 0, 1]], (), ("0", "1", "2"), [2, 0, 1]),
        (np.eye(3)[[2, 0, 1]], "abc", ("a", "b", "c"), [2, 0, 1]),
        ([[1], [0], [1]], (), ("0", "1"), [1, 0, 1]),
        ([1.0, NAN, 0.0], (), ("0", "1"), [1, -1, 0]),
        ([True, False, True], (), ("False", "True"), [1, 0, 1]),
        ([True, False, True], ("no", "yes"), ("no", "yes"), [1, 0, 1]),
        ([-1, -1, -1], (), (), [-1, -1, -1]),
        (None, "ab", ("a", "b"), [-1, -1, -1]),
    ],
)
def test_arrays_take_labels_in_any_form_and_keep_numbers(labels, classes, names, numbers):
    source = ArraySource(IMAGES, labels, classes=classes)
    assert source.classes == names and [source[i]["label"] for i in range(3)] == numbers
    assert source.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 1, -5], (), "labels: row 2 is -5"),
        ([0, 1, 2], "ab", "row 2 is 2: allowed are the numbers 0 to 1 of its 2 classes"),
        (["a", "b", "c"], "ab", "row 2 is 'c', which is none of the classes a, b"),
        ([0, 1, 2**31], (), r"the largest is 2147483648: .* np\.unique\(labels, return_inverse=True\)"),
        (np.eye(3), "ab", "allowed are the 2 names given|row 2 is 2"),
        ([[0, 1], [1, 1], [1, 0]], (), "labels holds rows of several numbers"),
        ([0, 1], (), r"labels\.shape=\(2,\): allowed is \(3,\)"),
        (1, (), "labels=1: allowed is a list"),
    ],
)
def test_arrays_refuse_labels_that_are_no_classes(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        ArraySource(IMAGES, labels, classes=classes)


def test_notes_go_with_parts_of_a_source():
    source = ArraySource(IMAGES, [1, 2, 2])
    assert source.notes == ("labels that no image has: 0",)
    assert Subset(source, [0]).notes == source.notes
    assert describe(source)[1:] == list(source.notes)
