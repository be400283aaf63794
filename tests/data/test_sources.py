import collections
import gzip
import logging
import pickle
import re
import time
from pathlib import Path

import jax.numpy as jnp
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


@pytest.mark.parametrize("labels", [None, [0, 1]])
def test_array_source_refuses_two_classes_of_one_name(labels):
    with pytest.raises(ValueError, match=r"classes=\('a', 'a'\): allowed is different names"):
        ArraySource(np.zeros([2, 3, 3], np.uint8), labels, classes=("a", "a"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full([5, 8, 8, 3], 255.0), r"images: floats from 255 to 255: .* max_value=255 scales them"),
        (np.linspace(-1, 1, 5 * 64).reshape(5, 8, 8), r"images: floats from -1 to 1: .*\(x \+ 1\) / 2"),
        (np.linspace(-3, 9, 5 * 64).reshape(5, 8, 8), r"images: floats from -3 to 9: .*percentiles"),
        (np.full([5, 8, 8], np.nan), r"images: 5 of 5 looked at hold NaN or infinite values"),
        (np.full([5, 8, 8], np.inf, np.float32), r"NaN or infinite"),
        (np.full([5, 8, 8], 1e300), r"NaN or infinite"),
        (
            np.zeros([5, 3, 16, 12], np.uint8),
            r"images.shape=\(5, 3, 16, 12\): channels seem to come first: give axes='nchw'",
        ),
        (np.zeros([5, 1, 5, 5], np.float32), r"channels seem to come first"),
        (np.zeros([5, 13, 64, 64], np.uint16), r"channels seem to come first"),
        (
            np.zeros([16, 12, 3], np.uint8),
            r"this seems to be one image: give axes='hwc', or axes='nhw' if these are 16 gray",
        ),
        (np.zeros([16, 12], np.uint8), r"images.shape=\(16, 12\): .* of one gray image, give axes='hw'"),
        (np.zeros([2, 9, 16, 12, 3], np.uint8), r"images.shape=.*allowed is \[n, h, w, c\]"),
        (np.zeros([5, 0, 8], np.uint8), r"at least one image and one pixel"),
        (
            [np.zeros([8, 8]), np.zeros([8, 9])],
            r"images have several shapes, such as \(8, 8\), \(8, 9\): .* open the folder",
        ),
        (np.array([np.zeros([8, 8]), np.zeros([9, 8])], object), r"images have several shapes"),
        (np.array([[None, 1]], object), r"images are of type ndarray: allowed is an array"),
        ({"image": 1}, r"images are of type dict: allowed is an array"),
        (None, r"images are of type NoneType: allowed is an array"),
        (["a.png", "b.png"], r"images are texts: .*open_source\('folder:"),
        (np.zeros([5, 8, 8], complex), r"images.dtype='complex128'"),
        (np.zeros([5, 8, 8], "datetime64[s]"), r"images.dtype='datetime64"),
        (np.ma.masked_less(np.zeros([5, 8, 8]), 1), r"masked array: .*filled"),
        (
            np.full([5, 8, 8], 255),
            r"images.dtype='int64' with values from 255 to 255: .*images.astype\(np.uint8\) fits",
        ),
        (np.full([5, 8, 8], 4000, np.int32), r"images.dtype='int32' .* give max_value=4095"),
        (np.full([5, 8, 8], -3, np.int16), r"images.dtype='int16' .* give percentiles"),
    ],
)
def test_images_of_another_range_layout_or_type_are_refused_in_one_line_that_says_what_to_do(images, message):
    with pytest.raises(ValueError, match=message) as caught:
        ArraySource(images)
    assert "\n" not in str(caught.value)


def test_a_layout_that_is_given_is_taken():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 12, 3), dtype=np.uint8)
    for axes, images, expected in (
        ("nhwc", pixels, pixels),
        ("nchw", pixels.transpose(0, 3, 1, 2), pixels),
        ("nhw", pixels[..., 0], pixels[..., :1]),
        ("hwc", pixels[0], pixels[:1]),
        ("chw", pixels[0].transpose(2, 0, 1), pixels[:1]),
        ("hw", pixels[0, ..., 0], pixels[:1, ..., :1]),
    ):
        source = ArraySource(images, axes=axes)
        assert source.shape == expected.shape[1:] and len(source) == len(expected)
        assert all((source[i]["image"] == image).all() for i, image in enumerate(expected))
    odd = np.zeros([5, 3, 16, 12], np.uint8)  # 3 x 16 pixels of 12 channels, if one says so
    assert ArraySource(odd, axes="nhwc").shape == (3, 16, 12)
    assert ArraySource(np.zeros([16, 12, 3], np.uint8), np.arange(16)).shape == (12, 3, 1)
    for axes, message in (("hwcn", "axes='hwcn'"), ("hwc", "images.shape=.*3 axes for axes='hwc'")):
        with pytest.raises(ValueError, match=message):
            ArraySource(pixels, axes=axes)


def test_arrays_of_other_types_are_read_where_their_range_is_known():
    bits = np.random.default_rng(0).random((3, 8, 8)) > 0.5
    assert (ArraySource(bits)[1]["image"][..., 0] == 255 * bits[1]).all()
    big = np.arange(192, dtype=">u2").reshape(3, 8, 8) * 341
    assert ArraySource(big).dtype == "uint16" and (ArraySource(big)[2]["image"][..., 0] == big[2]).all()
    half = jnp.asarray(bits, jnp.bfloat16)
    assert ArraySource(half).dtype == "float32" and (ArraySource(half)[0]["image"][..., 0] == bits[0]).all()
    assert ArraySource([list(map(list, image)) for image in bits], axes="nhw").shape == (8, 8, 1)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int16, np.int64, np.float16, np.float32, np.float64]
)
def test_max_value_and_percentiles_scale_arrays_of_any_type(dtype):
    pixels = np.random.default_rng(0).integers(0, 120, (4, 9, 8, 2)).astype(dtype)
    divided, stretched = ArraySource(pixels, max_value=100), ArraySource(pixels, percentiles=(5, 95))
    assert divided.dtype == stretched.dtype == "float32" and divided.shape == (9, 8, 2)
    for i, image in enumerate(pixels.astype(float)):
        np.testing.assert_allclose(divided[i]["image"], np.minimum(image / 100, 1), rtol=1e-6)
        low, high = np.percentile(image, (5, 95))
        found = stretched[i]["image"]
        np.testing.assert_allclose(found, np.clip((image - low) / (high - low), 0, 1), atol=1e-6)
        assert found.dtype == np.float32 and found.min() == 0 and found.max() == 1
    with pytest.raises(ValueError, match="max_value=0: allowed is"):
        ArraySource(pixels, max_value=0)
    with pytest.raises(ValueError, match="values from -1 to 5: max_value scales values of 0 and more"):
        ArraySource(np.array([[[-1, 5]]], np.int16), max_value=5)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (
            np.full([9, 8, 8], 4095, np.uint16),
            {},
            r"largest value of 9 images is 4095 of 65535, 6.2% .* max_value=4095",
        ),
        (np.full([9, 8, 8], 16000, np.uint16), {}, r"16000 of 65535.* max_value=16383"),
        (np.full([9, 8, 8], 1, np.uint8), {}, r"1 of 255, 0.4% of the range: give max_value=1 "),
        (np.full([9, 8, 8], 0.06, np.float32), {}, r"0.06 of 1, 6.0% of the range: give max_value=0.06 "),
        (np.full([9, 8, 8], 4095, np.uint16), {"max_value": 65535}, r"4095 of 65535, 6.2% .* max_value=4095"),
        (
            np.full([9, 8, 8], 4095, np.uint16),
            {"max_value": 255},
            r"100.0% of the values .* is max_value=255 too small",
        ),
        (
            np.full([3, 8, 8], 255, np.uint8),
            {},
            r"3 gray images of 8 x 8 pixels; if this is one image of 3 channels",
        ),
        (np.full([9, 8, 8], 4095, np.uint16), {"max_value": 4095.5}, None),
        (np.full([9, 8, 8], 60000, np.uint16), {}, None),
        (np.zeros([9, 8, 8], np.uint16), {}, None),
        (np.full([3, 8, 8], 255, np.uint8), {"axes": "nhw"}, None),
    ],
)
def test_values_far_from_the_top_of_their_range_are_said(monkeypatch, images, options, message):
    said = []
    monkeypatch.setattr(
        logging.getLogger("ssl_jax.data.sources"), "warning", lambda text, *args: said.append(text % args)
    )
    source = ArraySource(images, **options)
    assert [f"array: {note}" for note in source.notes] == said
    assert said == [] if message is None else re.search(message, said[0])


def test_a_float_image_that_the_sample_missed_is_corrupt_where_it_is_read():
    images = np.zeros([1000, 2, 2], np.float32)
    images[501] = 255
    images[502] = np.nan
    source = ArraySource(images)
    for index, reason in ((501, "floats from 255 to 255"), (502, "4 of 4 values are NaN")):
        with pytest.raises(CorruptImage, match=f"array/000{index}: {reason}"):
            source[index]


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
