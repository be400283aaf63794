import json
import os
import pickle
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_jax.data.parquet import open_parquet
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
    for i, reason in ((1, "."), (2, "only a path is stored: 2.png"), (3, "the row has no image")):
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
    with pytest.raises(ValueError, match="has no column of bytes"):
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
