import collections
import gzip
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssl_jax.data import fashion_mnist
from ssl_jax.data.build_embedded import LICENCE, PER_CLASS, first_of_each_class
from ssl_jax.data.fashion_mnist import CLASSES, EMBEDDED, SYSTEM, open_embedded, open_fashion_mnist
from ssl_jax.data.idx import has_idx, read_idx, read_split
from ssl_jax.data.sources import (
    ArraySource,
    CorruptImage,
    Source,
    Subset,
    parse_split,
    slice_bounds,
    take_part,
)

needs_system_files = pytest.mark.skipif(not has_idx(SYSTEM), reason="apt-get install dataset-fashion-mnist")


def write_idx(folder: Path, count: int = 6, end: str = ".gz") -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    head = bytes([0, 0, 8, 3]) + np.array([count, 28, 28], ">u4").tobytes()
    labels = bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes() + bytes(range(count))
    pack = gzip.compress if end else bytes
    for name in ("train", "t10k"):
        (folder / f"{name}-images-idx3-ubyte{end}").write_bytes(pack(head + images.tobytes()))
        (folder / f"{name}-labels-idx1-ubyte{end}").write_bytes(pack(labels))
    return images


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_array_source_gives_its_images(dtype):
    images = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype) / dtype(
        255 if dtype().dtype.kind == "f" else 1
    )
    source = ArraySource(images.astype(dtype), [3, -1], name="mine")
    assert isinstance(source, Source)
    assert source.shape == (3, 4, 5) and source.channels == 5 and len(source) == 2
    assert source.dtype == ("float32" if dtype().dtype.kind == "f" else np.dtype(dtype).name)
    assert source[1]["image"].dtype == source.dtype and source[1]["label"] == -1
    np.testing.assert_allclose(source[1]["image"], images[1], rtol=1e-6)
    assert ArraySource(images[..., 0].astype(dtype)).shape == (3, 4, 1)
    assert ArraySource(images.astype(dtype))[0]["label"] == -1


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros([3, 3], np.uint8), None, "images.shape"),
        (np.zeros([0, 3, 3], np.uint8), None, "at least one image"),
        (np.zeros([2, 3, 3], np.int64), None, "images.dtype='int64'"),
        (np.zeros([2, 3, 3], np.uint8), [1], "labels.shape"),
        (np.zeros([2, 3, 3], np.uint8), [0.5, 1], "labels holds float"),
    ],
)
def test_array_source_refuses_what_is_no_set_of_images(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ArraySource(images, labels)


def test_corrupt_image_survives_pickling():
    error = pickle.loads(pickle.dumps(CorruptImage("a/b.jpg", "truncated")))
    assert (error.name, error.reason, str(error)) == ("a/b.jpg", "truncated", "a/b.jpg: truncated")


@pytest.mark.parametrize("split", ["train[", "train[5]", "", "train[a:b]", "train[1:2:3]", "[1:2]"])
def test_a_malformed_split_is_refused(split):
    with pytest.raises(ValueError, match="allowed is a name such as train"):
        parse_split(split)


@pytest.mark.parametrize(
    "split", ["train[:25%]", "train[-3:]", "train[2:5]", "train[50%:]", "train[-50%:-10%]"]
)
def test_bounds_of_a_slice_are_those_of_python(split):
    _, start, stop = parse_split(split)

    def plain(text):
        return None if text is None else round(20 * int(text[:-1]) / 100) if "%" in text else int(text)

    assert slice_bounds(20, start, stop) == slice(plain(start), plain(stop)).indices(20)[:2]


@pytest.mark.parametrize("scattered", [False, True])
def test_parts_cover_the_whole_once(scattered):
    source = ArraySource(np.zeros([50, 2, 2], np.uint8), np.arange(50))
    parts = [take_part(source, s, scattered=scattered) for s in ("t[:30%]", "t[30%:-5]", "t[-5:]")]
    labels = [[part[i]["label"] for i in range(len(part))] for part in parts]
    assert [len(part) for part in parts] == [15, 30, 5]
    assert sorted(labels[0] + labels[1] + labels[2]) == list(range(50))
    assert all(part == sorted(part) for part in labels)
    assert (labels[0] == list(range(15))) is not scattered
    assert parts[0].file_name(0) == source.file_name(labels[0][0])
    assert take_part(source, "t", scattered=scattered) is source


def test_scattered_parts_hold_most_files_when_others_are_added():
    def names(count):
        source = ArraySource(np.zeros([count, 2, 2], np.uint8))
        part = take_part(source, "train[:50%]", scattered=True)
        return {part.file_name(i) for i in range(len(part))}

    assert len(names(400) - names(404)) < 10


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="has no example: the whole of array has 4"):
        take_part(ArraySource(np.zeros([4, 2, 2], np.uint8)), "train[9:]")


def test_subset_keeps_what_it_is_a_part_of():
    source = ArraySource(np.zeros([4, 2, 2], np.uint8), [0, 1, 2, 3], classes="abcd", name="n")
    part = Subset(source, [3, 1])
    assert isinstance(part, Source) and part.classes == tuple("abcd") and part.shape == (2, 2, 1)
    assert [part[i]["label"] for i in range(2)] == [3, 1] and part.file_name(0) == source.file_name(3)
    assert pickle.loads(pickle.dumps(part))[0]["label"] == 3


@pytest.mark.parametrize(("split", "each"), [("train", 1000), ("test", 200)])
def test_embedded_data_is_balanced_and_complete(split, each):
    source = open_embedded(split)
    labels = [source[i]["label"] for i in range(len(source))]
    assert collections.Counter(labels) == dict.fromkeys(range(10), each)
    assert source.shape == (28, 28, 1) and source.dtype == "uint8" and source.classes == CLASSES
    assert isinstance(source, Source) and source.name == f"embedded/{split}"
    assert min(collections.Counter(labels[: each * 2]).values()) > each * 0.1  # a prefix has every class
    assert len({source.file_name(i) for i in range(len(source))}) == len(source)


@needs_system_files
@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_data_are_the_first_images_of_each_class_of_the_original(split):
    images, labels = read_split(SYSTEM, split)
    chosen = first_of_each_class(labels, PER_CLASS[split])
    expected = sorted((int(labels[i]), images[i].tobytes()) for i in chosen)
    source = open_embedded(split)
    found = sorted((e["label"], e["image"].tobytes()) for e in (source[i] for i in range(len(source))))
    assert found == expected


def test_embedded_data_can_be_read_by_tfds():
    builder = tfds.builder_from_directory(EMBEDDED)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 10000,
        "test": 2000,
    }
    assert tuple(builder.info.features["label"].names) == CLASSES
    records, source = builder.as_data_source("test"), open_embedded("test")
    for i in (0, 77, 1999):
        assert (records[i]["image"] == source[i]["image"]).all() and records[i]["label"] == source[i]["label"]


def test_embedded_data_come_with_their_licence_and_are_small():
    assert (EMBEDDED / "LICENSE").read_text() == LICENCE
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 10e6


def test_embedded_data_are_fast_and_cannot_be_changed_by_accident():
    source = open_embedded()
    begin = time.process_time()
    for i in range(len(source)):
        source[i]
    assert len(source) / (time.process_time() - begin) > 100_000
    with pytest.raises(ValueError, match="read-only"):
        source[0]["image"][:] = 0


def test_embedded_data_survive_pickling():
    source = open_embedded("test[:10%]")
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == 200 and (copy[7]["image"] == source[7]["image"]).all()


@needs_system_files
def test_all_of_fashion_mnist_is_read_from_the_systems_files():
    source = open_fashion_mnist("test")
    assert len(source) == 10_000 and source.shape == (28, 28, 1) and source.name == "fashion_mnist/test"
    assert len(open_fashion_mnist("test[:1%]")) == 100


@pytest.mark.parametrize("end", [".gz", ""])
def test_fashion_mnist_is_read_from_a_given_folder(tmp_path, end):
    images = write_idx(tmp_path, end=end)
    source = open_fashion_mnist("train", path=tmp_path)
    assert (source[4]["image"][..., 0] == images[4]).all() and source[4]["label"] == 4


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="apt-get install dataset-fashion-mnist"):
        open_fashion_mnist(path=tmp_path)
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path)
    with pytest.raises(ValueError, match=r"tfds.builder\('fashion_mnist', file_format='array_record'"):
        open_fashion_mnist(data_dir=tmp_path)


@pytest.mark.parametrize("opener", [open_embedded, open_fashion_mnist])
def test_a_missing_split_is_named(opener):
    with pytest.raises(ValueError, match=r"split='valid' is not one of the allowed values: .*test, train"):
        opener("valid")


def test_damaged_idx_files_are_named(tmp_path):
    write_idx(tmp_path, end="")
    path = tmp_path / "train-images-idx3-ubyte"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is damaged"):
        open_fashion_mnist(path=tmp_path)
    path.write_bytes(b"text" + data)
    with pytest.raises(ValueError, match="not an idx file"):
        read_idx(path)
    path.unlink()
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(data)[:-20])
    with pytest.raises(ValueError, match="damaged"):
        read_idx(packed)
