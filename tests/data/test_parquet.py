import json
import os
import pickle
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_jax.config.images import open_images
from ssl_jax.data.parquet import NO_LABELS, open_parquet
from ssl_jax.data.sources import CorruptImage, Source
from tests.data.images import encode

IMAGES = [np.full([6, 7, 3], 10 * i, np.uint8) for i in range(9)]


def write(path, cells, *, labels=None, classes=None, image="image", label="label", **more):
    columns = {image: cells, **({label: labels} if labels is not None else {}), **more}
    table = pa.table(columns)
    if classes is not None:
        features = {image: {"_type": "Image"}, label: {"names": classes, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
    return path


def structs(images=IMAGES):
    return [{"bytes": encode(x), "path": f"{i}.png"} for i, x in enumerate(images)]


def read(path, split="train", **options):
    return open_parquet(path, split, cache_dir=path.parent / "cache", **options)


def test_a_file_of_hugging_face_is_read(tmp_path):
    path = write(tmp_path / "x.parquet", structs(), labels=[i % 3 for i in range(9)], classes=["a", "b", "c"])
    source = read(path)
    assert isinstance(source, Source) and len(source) == 9 and source.classes == ("a", "b", "c")
    assert source.shape == (6, 7, 3) and source.dtype == "uint8" and source.channels == 3
    for i in range(9):
        assert (source[i]["image"] == IMAGES[i]).all() and source[i]["label"] == i % 3
    assert len({source.file_name(i) for i in range(9)}) == 9


def test_plain_bytes_without_labels_are_read(tmp_path):
    path = write(tmp_path / "x.parquet", [encode(x[..., 0]) for x in IMAGES], image="jpg")
    source = read(path)
    assert source.channels == 1 and source.classes == () and source[4]["label"] == -1
    assert (source[4]["image"][..., 0] == 40).all()


def test_words_and_gaps_among_the_labels_are_read(tmp_path):
    path = write(
        tmp_path / "x.parquet", structs(IMAGES[:4]), labels=["dog", None, "cat", "dog"], label="kind"
    )
    source = read(path, label="kind")
    assert source.classes == ("cat", "dog") and [source[i]["label"] for i in range(4)] == [1, -1, 0, 1]
    assert read(path).classes == ()


def test_damaged_and_missing_images_are_corrupt(tmp_path):
    cells = structs(IMAGES[:4])
    cells[1]["bytes"] = cells[1]["bytes"][:40]
    cells[2]["bytes"] = None
    cells[3] = None
    source = read(write(tmp_path / "x.parquet", cells))
    assert (source[0]["image"] == 0).all()
    missing = "only a path is stored: 2.png: cannot be opened: No such file"
    for i, reason in ((1, "."), (2, missing), (3, "the row has no image")):
        with pytest.raises(CorruptImage, match=reason) as caught:
            source[i]
        assert caught.value.name == source.file_name(i)


def test_splits_come_from_the_names_of_the_files(tmp_path):
    root = tmp_path / "set"
    write(root / "data" / "train-00000-of-00002.parquet", structs(IMAGES[:3]))
    write(root / "data" / "train-00001-of-00002.parquet", structs(IMAGES[3:5]))
    write(root / "data" / "test-00000-of-00001.parquet", structs(IMAGES[5:6]))
    train = read(root)
    assert [int(train[i]["image"][0, 0, 0]) for i in range(5)] == [0, 10, 20, 30, 40]
    assert len(read(root, "test")) == 1 and len(read(root, "train[:40%]")) == 2
    with pytest.raises(ValueError, match=r"split='validation': parquet:.* has test, train"):
        read(root, "validation")
    with pytest.raises(ValueError, match="no splits in its file names"):
        read(write(tmp_path / "x.parquet", structs()), "test")
    assert len(read(root / "data" / "test-00000-of-00001.parquet", "test")) == 1


def test_rows_are_copied_once_and_again_when_the_file_changes(tmp_path):
    path = write(tmp_path / "x.parquet", structs())
    read(path)
    (copy,) = (tmp_path / "cache").iterdir()
    stamp = copy.stat().st_mtime_ns
    read(path)
    assert (
        [copy.stat().st_mtime_ns]
        == [file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()]
        == [stamp]
    )
    write(path, structs(IMAGES[4:]))
    os.utime(path, ns=(1, 1))
    assert len(read(path)) == 5


def test_a_parquet_source_survives_pickling_as_a_path(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    source = read(write(tmp_path / "x.parquet", structs([noise] * 9)))
    data = pickle.dumps(source)
    assert len(data) < 3000 and (pickle.loads(data)[3]["image"] == noise).all()


def test_columns_can_be_chosen_and_must_be(tmp_path):
    path = write(
        tmp_path / "x.parquet",
        structs(),
        image="left",
        right=structs(IMAGES[::-1]),
        label="n",
        labels=range(9),
    )
    with pytest.raises(ValueError, match=r"give image= one of \['left', 'right'\]"):
        read(path)
    source = read(path, image="right", label="n")
    assert (source[0]["image"] == 80).all() and source[7]["label"] == 7
    with pytest.raises(
        ValueError, match=r"image='n': the columns .* that can hold images are \['left', 'right'\]"
    ):
        read(path, image="n")
    with pytest.raises(ValueError, match="label='kind' is not a column"):
        read(path, image="left", label="kind")
    with pytest.raises(
        ValueError, match=r"has no column of bytes, paths .*: its columns are image \(int64\)"
    ):
        read(write(tmp_path / "y.parquet", [1, 2]))
    with pytest.raises(ValueError, match="holds float: allowed are integers or strings"):
        read(write(tmp_path / "z.parquet", structs(IMAGES[:1]), labels=[0.5]))


def test_errors_of_paths_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read(tmp_path / "nowhere.parquet")
    with pytest.raises(ValueError, match=r"no file that ends in .parquet"):
        open_parquet(tmp_path)
    with pytest.raises(ValueError, match="has no row"):
        read(write(tmp_path / "x.parquet", pa.array([], pa.binary())))
    with pytest.raises(ValueError, match=r"none of the 2 images looked at can be read: .*: not an image"):
        read(write(tmp_path / "y.parquet", [b"text", b"text"]))
    (tmp_path / "z.parquet").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"z.parquet cannot be read"):
        read(tmp_path / "z.parquet")
    root = tmp_path / "set"
    write(root / "a.parquet", structs())
    write(root / "b.parquet", structs(), image="other")
    with pytest.raises(ValueError, match="its columns differ"):
        read(root)


def test_a_name_of_the_hub_is_read_through_datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["a", "b"])
    rows = datasets.Dataset.from_dict(
        {"img": structs(IMAGES[:4]), "fine": [0, 1, 1, 0], "text": ["x"] * 4},
        features=datasets.Features(
            {"img": datasets.Image(), "fine": label, "text": datasets.Value("string")}
        ),
    )
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        if options["split"] != "train":
            raise ValueError('Unknown split "test". Should be one of ["train"].')
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_parquet("someone/photos:small")
    assert asked == [(("someone/photos", "small"), {"split": "train"})]
    assert source.classes == ("a", "b") and [source[i]["label"] for i in range(4)] == [0, 1, 1, 0]
    assert (source[3]["image"] == 30).all() and (pickle.loads(pickle.dumps(source))[3]["image"] == 30).all()
    with pytest.raises(ValueError, match=r"is not a path here, .* Should be one of \[\"train\"\]"):
        open_parquet("someone/photos", "test")


@pytest.mark.parametrize("package", ["pyarrow", "datasets"])
def test_a_missing_package_names_the_extra(package, tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", structs()) if package == "pyarrow" else "someone/photos"
    monkeypatch.setitem(sys.modules, package, None)
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"need {package}: pip install 'ssl-jax\[parquet\]'"):
        open_parquet(path)


def test_a_copy_that_is_cut_off_is_an_error_and_not_a_bus_error_and_one_that_is_deleted_is_still_there(
    tmp_path,
):
    path = write(tmp_path / "x.parquet", structs())
    source = read(path)
    expected = source[2]["image"]
    (copy,) = (tmp_path / "cache").glob("*.arrow")
    content = copy.read_bytes()
    os.truncate(copy, len(content) // 2)
    with pytest.raises(OSError, match=r"\.arrow was truncated while it was read: delete it"):
        source[2]
    with pytest.raises(ValueError, match=r"\.arrow, a copy, is damaged: delete it"):
        read(path)
    copy.unlink()
    source = read(path)
    (copy,) = (tmp_path / "cache").glob("*.arrow")
    copy.unlink()
    assert (source[2]["image"] == expected).all()


# Labels and classes


def labels_in(source):
    return [source[i]["label"] for i in range(len(source))]


def names_in(source):
    """The names of the labels, None for none."""
    return [None if label < 0 else source.classes[label] for label in labels_in(source)]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([3, 1, 3], ["3", "1", "3"]),
        ([0, -1, None], ["0", None, None]),
        ([1.0, float("nan"), None], ["1", None, None]),
        (pa.array([2**63 + 5, 1, 1], pa.uint64()), [str(2**63 + 5), "1", "1"]),
        (pa.array(np.array([1, 0, 1], np.float16)), ["1", "0", "1"]),
        ([True, None, False], ["True", None, "False"]),
        (["b", " a", ""], ["b", "a", None]),
        ([b"b", None, b"a"], ["b", None, "a"]),
        (pa.array(["b", "a", None]).dictionary_encode(), ["b", "a", None]),
        (pa.array([7, 3, None]).dictionary_encode(), ["7", "3", None]),
        ([[0, 1, 0], None, [1, 0, 0]], ["1", None, "0"]),
        (pa.array([[0, 1], [1, 0], [1, 0]], pa.list_(pa.int8(), 2)), ["1", "0", "0"]),
        ([[4], [], [2]], ["4", None, "2"]),
        (pa.nulls(3), [None, None, None]),
        (pa.nulls(3, pa.int64()), [None, None, None]),
        ([-1, -1, -1], [None, None, None]),
    ],
)
def test_a_column_of_labels_is_read_in_any_form(tmp_path, values, names):
    source = read(write(tmp_path / "x.parquet", structs(IMAGES[:3]), labels=values))
    assert names_in(source) == names and len(source.classes) >= len({*names} - {None})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 1.0, 2.0], "holds float"),
        ([[1, 2], [3], []], "lists of several labels"),
        ([{"a": 1}] * 3, "structs of the fields 'a'"),
        ([b"\xff"] * 3, "bytes that are no text"),
        (pa.array([0] * 3, pa.date32()), "holds date"),
        ([-2, 0, 1], "row 0 is -2"),
    ],
)
def test_a_column_that_holds_no_classes_is_refused_and_can_be_left_out(tmp_path, values, message):
    path = write(tmp_path / "x.parquet", structs(IMAGES[:3]), labels=values)
    with pytest.raises(ValueError, match=rf"{message}.*--config\.data\.label_column names another"):
        read(path)
    source = read(path, label=NO_LABELS)
    assert source.classes == () and labels_in(source) == [-1, -1, -1]


CASES = {
    "strings": (["a", "b", "c", "b"], ["c", "b"], None),
    "numbers": ([5, 2, 7, 2], [7, 2], None),
    "numbers beyond": ([0, 1, 2, 1], [2, 4], None),
    "names": ([0, 1, 2, 1], [0, 1], (["a", "b", "c"], ["c", "b"])),
    "names in one file": ([0, 1, 2, 1], [2, -1], (["a", "b", "c"], None)),
    "hidden": ([0, 1, 2, 1], [-1, -1], None),
    "null": (["a", "b", "c", "b"], [None, None], None),
}


@pytest.mark.parametrize("case", CASES)
def test_all_splits_share_one_table_of_classes(tmp_path, case):
    """The oracle names every label by its own file."""
    *values, tables = CASES[case]
    expected = {}
    for i, split in enumerate(("train", "test")):
        table = tables[i] if tables else None
        names = (tables[i] or tables[0]) if tables else None
        expected[split] = [None if v in (None, -1) else names[v] if names else str(v) for v in values[i]]
        write(
            tmp_path / f"{split}-0.parquet",
            structs(IMAGES[: len(values[i])]),
            labels=values[i],
            classes=table,
        )
    train = open_parquet(tmp_path, cache_dir=tmp_path / "cache")
    assert train.files == (("train-0.parquet", (tmp_path / "train-0.parquet").stat().st_size),)
    test, both = (
        open_parquet(tmp_path, split, cache_dir=tmp_path / "cache") for split in ("test", "train+test")
    )
    assert train.classes == test.classes == both.classes
    assert names_in(train) == expected["train"] and names_in(test) == expected["test"]
    assert names_in(both) == expected["train"] + expected["test"]


def write_splits(root, train, test, **options):
    write(root / "train-0.parquet", structs(IMAGES[: len(train)]), labels=train, **options)
    write(root / "test-0.parquet", structs(IMAGES[: len(test)]), labels=test, **options)
    return {split: open_parquet(root, split, cache_dir=root / "cache") for split in ("train", "test")}


def test_what_was_mapped_and_a_class_of_one_split_is_said(tmp_path):
    sources = write_splits(tmp_path, [1, 2, 9], [2, 2])
    for source in sources.values():
        assert source.notes == (
            "label numbers 1, 2, 9 are the classes 0 to 2 here, named by their number",
            "only train has the classes 1, 9",
        )


def test_files_of_one_split_may_name_their_classes_in_another_order(tmp_path):
    write(tmp_path / "train-0.parquet", structs(IMAGES[:2]), labels=[0, 1], classes=["a", "b"])
    write(tmp_path / "train-1.parquet", structs(IMAGES[2:4]), labels=[0, 1], classes=["b", "a"])
    source = open_parquet(tmp_path, cache_dir=tmp_path / "cache")
    assert names_in(source) == ["a", "b", "b", "a"]
    assert "train-0.parquet and train-1.parquet are not the same: matched by name" in source.notes[0]


def test_a_file_without_the_column_has_no_labels_and_one_that_is_damaged_counts_no_classes(tmp_path):
    write(tmp_path / "train-0.parquet", structs(IMAGES[:2]), labels=["a", "b"])
    write(tmp_path / "test-0.parquet", structs(IMAGES[:2]))
    (tmp_path / "val-0.parquet").write_bytes(b"damaged")
    train, test = (open_parquet(tmp_path, split, cache_dir=tmp_path / "cache") for split in ("train", "test"))
    assert train.classes == test.classes == ("a", "b") and labels_in(test) == [-1, -1]
    assert any(
        "test-0.parquet has no column 'label': its images have no label" in note for note in test.notes
    )
    assert any("classes of the split val are not counted" in note for note in train.notes)
    with pytest.raises(ValueError, match=r"val-0\.parquet cannot be read"):
        open_parquet(tmp_path, "val", cache_dir=tmp_path / "cache")


def test_files_that_do_not_fit_together_are_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"numbers as labels in train-0\.parquet and strings in test-0\.parquet"
    ):
        write_splits(tmp_path, [0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="row 1 is 2: allowed are the numbers 0 to 1 of its 2 classes"):
        write_splits(tmp_path / "b", [0, 2], [0], classes=["a", "b"])
    with pytest.raises(ValueError, match="allowed is a part of one split, or whole splits joined by"):
        open_parquet(tmp_path, "train+test[:50%]")


def test_splits_of_other_names_and_files_of_none(tmp_path):
    for name, label in (("fit", "a"), ("held", "b"), (".cache/fit", "c"), ("notes", "d")):
        write(tmp_path / f"{name}-0.parquet", structs(IMAGES[:1]), labels=[label])
    options = {"splits": ("fit", "held"), "cache_dir": tmp_path / "cache"}
    fit, held = (open_parquet(tmp_path, split, **options) for split in ("fit", "held"))
    assert fit.classes == held.classes == ("a", "b") and len(fit) == len(held) == 1
    assert fit.notes[0] == "left out 1 parquet file whose path names no split, such as notes-0.parquet"


def test_empty_files_say_nothing_of_the_columns(tmp_path):
    empty = {"image": pa.nulls(0), "label": pa.nulls(0)}
    pq.write_table(pa.table(empty), tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", structs(IMAGES[:2]), labels=[1, 0])
    typed = {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}
    pq.write_table(pa.table(typed), tmp_path / "c.parquet")
    write(tmp_path / "d.parquet", structs(IMAGES[2:3]), labels=pa.array([2], pa.int8()))
    source = open_parquet(tmp_path, cache_dir=tmp_path / "cache")
    assert [(int(e["image"].max()), e["label"]) for e in (source[i] for i in range(3))] == [
        (0, 1),
        (10, 0),
        (20, 2),
    ]


def test_a_column_that_could_be_the_labels_is_named(tmp_path):
    source = read(write(tmp_path / "x.parquet", structs(IMAGES[:2]), kind=["a", "b"], size=[1.5, 2.5]))
    assert source.classes == () and source.notes == (
        "no labels: no column is called label; if ['kind'] has one, --config.data.label_column=NAME says so",
    )


# Columns of images


def save(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode(IMAGES[i]))


def reason(source, index):
    with pytest.raises(CorruptImage) as caught:
        source[index]
    return caught.value.reason


@pytest.mark.parametrize("form", ["strings", "categories", "struct", "struct of both"])
def test_paths_are_relative_to_the_file_of_their_row_and_stay_below_it(tmp_path, form):
    outside = tmp_path / "outside"
    save(outside, "x.png")
    for part, other in (("one", "two"), ("two", "one")):
        save(tmp_path / "set" / part, "a/0.png", "1.png")
        (tmp_path / "set" / part / "link.png").symlink_to("a/0.png")
        (tmp_path / "set" / part / "leak.png").symlink_to(outside / "x.png")
        (tmp_path / "set" / part / "leaks").symlink_to(outside)
        os.mkfifo(tmp_path / "set" / part / "pipe.png")
        paths = [
            "a/0.png",
            "1.png",
            "./a/../1.png",
            "link.png",
            f"../{other}/1.png",
            str(outside / "x.png"),
            "leak.png",
        ]
        paths += ["leaks/x.png", "a", "none.png", "https://h/x.png", "a\0.png", "", None, "pipe.png"]
        cells = {
            "strings": paths,
            "categories": pa.array(paths).dictionary_encode(),
            "struct": [{"path": path} for path in paths],
            "struct of both": [{"bytes": None, "path": path} for path in paths],
        }[form]
        if form == "struct of both":
            cells = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        write(tmp_path / "set" / part / "x.parquet", cells, image="file", labels=range(len(paths)))
    source = open_parquet(tmp_path / "set", cache_dir=tmp_path / "cache")
    count = len(source) // 2
    for row, value in ((0, 0), (1, 10), (2, 10), (3, 0), (count, 0), (count + 1, 10)):
        assert (source[row]["image"] == value).all() and source[row]["label"] == row % count
    expected = {
        4: "it leaves the folder of the table",
        5: "an absolute path is not opened",
        6: "it leaves the folder of the table",
        7: "it leaves the folder of the table",
        8: "cannot be opened: Is a directory",
        9: "none.png: cannot be opened: No such file",
        10: "a URL is not fetched",
        11: "null byte",
        12: "the row has no image",
        13: "the row has no image",
        14: "pipe.png: not a regular file",
    }
    for row, text in expected.items():
        assert text in reason(source, row) and text in reason(source, row + count)


@pytest.mark.parametrize(
    ("cells", "dtype", "shape"),
    [
        ([x.tolist() for x in IMAGES], "uint8", (6, 7, 3)),
        ([x[..., 0].tolist() for x in IMAGES], "uint8", (6, 7, 1)),
        (
            pa.array([x.tolist() for x in IMAGES], pa.list_(pa.list_(pa.list_(pa.uint8(), 3), 7), 6)),
            "uint8",
            (6, 7, 3),
        ),
        (
            pa.array([x.tolist() for x in IMAGES], pa.large_list(pa.list_(pa.list_(pa.uint16())))),
            "uint16",
            (6, 7, 3),
        ),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(IMAGES)), "uint8", (6, 7, 3)),
    ],
)
def test_lists_of_pixels_are_images(tmp_path, cells, dtype, shape):
    source = read(write(tmp_path / "x.parquet", cells))
    assert source.dtype == dtype and source.shape == shape
    for i, image in enumerate(IMAGES):
        assert (source[i]["image"] == image[..., : shape[2]]).all()
    assert (pickle.loads(pickle.dumps(source))[3]["image"] == 30).all()


def test_depth_and_faults_of_lists_of_pixels(tmp_path):
    cells = [[[0, 255]], [[1, 4000]], [[-1, 0]], [[0, 70000]], None, [[None, 1]], [[1], [1, 2]]]
    wide = read(write(tmp_path / "wide.parquet", cells))
    assert wide.dtype == "uint16" and wide[1]["image"].ravel().tolist() == [1, 4000]
    texts = ["pixels from -1 to 0", "pixels from 0 to 70000", "the row has no image", "numbers are missing"]
    texts.append("lists of several lengths")
    assert all(text in reason(wide, 2 + i) for i, text in enumerate(texts))
    floats = read(write(tmp_path / "floats.parquet", [[[0.0, 0.5]], [[0.25, 1.0]]]))
    assert floats.dtype == "float32" and floats[1]["image"].ravel().tolist() == [0.25, 1.0]
    first = [x.transpose(2, 0, 1).tolist() for x in IMAGES]
    with pytest.raises(
        ValueError, match=r"lists of shape \[3, 6, 7\] have the channels first: allowed is \[h\]\[w\]\[c\]"
    ):
        read(write(tmp_path / "first.parquet", first))
    flat = write(tmp_path / "flat.parquet", [x.ravel().tolist() for x in IMAGES])
    for options in ({}, {"image": "image"}):
        with pytest.raises(ValueError, match="the lists of numbers in image say neither height nor width"):
            read(flat, **options)


def test_the_choice_among_columns_is_said_and_a_config_makes_another(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path / "x.parquet", structs(), mask=structs(IMAGES[::-1]), kind=["a"] * 9)
    assert "images are those of the column 'image'; ['mask'] could hold some too" in read(path).notes[0]
    data = {
        "source": f"parquet:{path}",
        "split": "train",
        "channels": None,
        "image_column": "mask",
        "label_column": "kind",
    }
    source = open_images({"data": data}, data["source"], "train")
    assert (source[0]["image"] == 80).all() and source.classes == ("a",)
    with pytest.raises(ValueError, match=r"config\.data\.image_column='mask': allowed is None for embedded"):
        open_images({"data": {**data, "source": "embedded"}}, "embedded", "train")
    assert len(open_images({"data": data}, "embedded", "test")) == 2000


def test_images_that_cannot_be_read_point_at_other_columns(tmp_path):
    path = write(tmp_path / "x.parquet", [b"12"] * 2, image="checksum", file=["a.png"] * 2)
    with pytest.raises(
        ValueError, match=r"from the column 'checksum'; other columns are \['file'\]: image= names one"
    ):
        read(path)
    save(tmp_path, "a.png")
    assert read(path, image="file").shape == (6, 7, 3)


def test_two_columns_of_paths_or_pixels_ask_for_a_choice(tmp_path):
    for name, cells in (("paths", ["a.png"] * 2), ("pixels", [[[1]], [[2]]])):
        path = write(tmp_path / f"{name}.parquet", cells, image="left", right=cells)
        with pytest.raises(
            ValueError, match=r"give image= one of \['left', 'right'\], on the command line --config"
        ):
            read(path)


def test_numbers_of_a_hub_set_are_counted_in_all_its_splits(monkeypatch):
    datasets = pytest.importorskip("datasets")
    splits = {}
    for name, labels in (("train", [1, 2, 4]), ("test", [2, 7, -1])):
        rows = datasets.Dataset.from_dict({"image": structs(IMAGES[:3]), "label": labels})
        rows = rows.cast_column("image", datasets.Image())
        rows.info.splits = dict.fromkeys(("train", "test"))
        splits[name] = rows
    monkeypatch.setattr(datasets, "load_dataset", lambda repository, config, split: splits[split])
    train, test = (open_parquet("someone/photos", split) for split in ("train", "test"))
    assert train.classes == test.classes == ("1", "2", "4", "7")
    assert labels_in(train) == [0, 1, 2] and labels_in(test) == [1, 3, -1]
    assert (pickle.loads(pickle.dumps(test))[2]["image"] == 20).all()


def test_images_that_cannot_be_read_are_said_at_the_opening(tmp_path):
    path = write(tmp_path / "x.parquet", ["a.png", "gone.png"], image="path")
    save(tmp_path, "a.png")
    assert read(path).notes[-1].endswith("gone.png: cannot be opened: No such file or directory")
    path = write(tmp_path / "y.parquet", [[[0, 9], [9, 9]], [[-5, 9], [9, 9]]])
    assert "1 of 2 images looked at cannot be read" in read(path).notes[-1]
