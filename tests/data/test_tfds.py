import pickle
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssl_jax.data.fashion_mnist import EMBEDDED, open_embedded
from ssl_jax.data.labels import labels_of
from ssl_jax.data.sources import CorruptImage, Source
from ssl_jax.data.tfds import find_prepared, open_tfds, prepare_command
from tests.data.images import encode


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """Colour images of many sizes, one of them damaged, with a caption and two kinds of labels."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "caption": tfds.features.Text(),
            "picture": tfds.features.Image(shape=(None, None, 3)),
            "animal": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5), "validation": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            data = encode(np.full([6 + i, 7, 3], 10 * i, np.uint8))
            yield i, {"caption": "x", "picture": data[: 40 if i == 1 else None], "animal": i % 2}


class TinyTensors(tfds.core.GeneratorBasedBuilder):
    """Images stored as numbers."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Scalar(np.int64),
            "x": tfds.features.Tensor(shape=(4, 5, 2), dtype=np.uint16),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(3):
            yield i, {"id": i, "x": np.full([4, 5, 2], 1000 * i, np.uint16)}


TRAIN = {
    "coarse": [1, 0],
    "number": [7, -1],
    "text": ["x", "y"],
    "one_hot": [[0, 1], [1, 0]],
    "share": [0.5, 1.0],
}
TEST = {
    "coarse": [-1, 1],
    "number": [3, 7],
    "text": ["", "z"],
    "one_hot": [[1, 0], [1, 0]],
    "share": [0.0, 1.0],
}


class TinyLabels(tfds.core.GeneratorBasedBuilder):
    """Two images with labels of many kinds; the first split has other ones than the second."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "left": tfds.features.Image(shape=(4, 5, 1)),
            "right": tfds.features.Image(shape=(4, 5, 1)),
            "coarse": tfds.features.ClassLabel(names=["a", "b"]),
            "fine": tfds.features.ClassLabel(names=["q", "r"]),
            "number": tfds.features.Scalar(np.int64),
            "text": tfds.features.Text(),
            "one_hot": tfds.features.Tensor(shape=(2,), dtype=np.int64),
            "share": tfds.features.Scalar(np.float32),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(TRAIN), "test": self._generate_examples(TEST)}

    def _generate_examples(self, columns):
        for i in range(2):
            values = {name: column[i] for name, column in columns.items()}
            images = {
                name: encode(np.full([4, 5], value + i, np.uint8))
                for name, value in (("left", 0), ("right", 10))
            }
            yield i, {**values, **images, "fine": i}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for kind in (TinyPhotos, TinyTensors, TinyLabels):
        kind(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_a_prepared_set_is_read(prepared):
    source = open_tfds("tiny_photos", data_dir=prepared)
    assert isinstance(source, Source) and len(source) == 5 and source.name == "tiny_photos/train"
    assert (
        source.shape is None
        and source.channels == 3
        and source.dtype == "uint8"
        and source.classes == ("cat", "dog")
    )
    heights, damaged = set(), []
    for i in range(5):
        try:
            element = source[i]
        except CorruptImage as error:
            damaged.append(error.name)
            continue
        height = element["image"].shape[0]
        assert (element["image"] == 10 * (height - 6)).all() and element["label"] == height % 2
        heights.add(height)
    assert heights == {6, 8, 9, 10} and len(damaged) == 1 and damaged[0].startswith("tiny_photos/train/0000")


def test_parts_of_splits_follow_tfds(prepared):
    sizes = {"train[:40%]": 2, "train[3:]": 2, "train+validation": 7, "validation": 2}
    assert {split: len(open_tfds("tiny_photos", split, data_dir=prepared)) for split in sizes} == sizes


def test_a_tfds_source_survives_pickling(prepared):
    source = open_tfds("tiny_tensors", data_dir=prepared)
    copy = pickle.loads(pickle.dumps(source))
    assert (copy[2]["image"] == source[2]["image"]).all() and copy.file_name(2) == source.file_name(2)


def test_images_stored_as_numbers_are_read(prepared):
    source = open_tfds("tiny_tensors", data_dir=prepared)
    assert source.shape == (4, 5, 2) and source.dtype == "uint16" and source.classes == ()
    assert sorted(int(source[i]["image"][0, 0, 0]) for i in range(3)) == [0, 1000, 2000]
    assert source[0]["label"] == -1


def test_a_folder_of_a_prepared_set_is_read():
    source, embedded = open_tfds(str(EMBEDDED), "test"), open_embedded("test")
    assert len(source) == 2000 and source.shape == (28, 28, 1) and source.classes == embedded.classes
    assert (source[5]["image"] == embedded[5]["image"]).all() and source[5]["label"] == embedded[5]["label"]


def test_the_newest_version_is_found_and_configs_are_told_apart(tmp_path, prepared):
    for version in ("1.2.0", "1.10.0", "incomplete.XY_2.0.0"):
        shutil.copytree(prepared / "tiny_photos" / "1.0.0", tmp_path / "a" / version)
    shutil.copytree(prepared / "tiny_photos" / "1.0.0", tmp_path / "b" / "small" / "1.0.0")
    assert find_prepared("a", data_dir=tmp_path) == tmp_path / "a" / "1.10.0"
    assert find_prepared("a:1.2.0", data_dir=tmp_path) == tmp_path / "a" / "1.2.0"
    assert find_prepared("a:3.0.0", data_dir=tmp_path) is None
    assert find_prepared("b/small", data_dir=tmp_path) == find_prepared("b", data_dir=tmp_path)
    shutil.copytree(tmp_path / "b" / "small", tmp_path / "b" / "large")
    assert find_prepared("b", data_dir=tmp_path) is None
    assert find_prepared("b/large", data_dir=tmp_path) == tmp_path / "b" / "large" / "1.0.0"


def test_the_default_place_is_that_of_tfds(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(open_tfds("tiny_tensors")) == 3


def test_a_set_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    command = prepare_command("cifar10", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"not prepared in .*TensorFlow installed") as caught:
        open_tfds("cifar10", data_dir=tmp_path)
    assert str(caught.value).endswith(command)
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        open_tfds("cifra10", data_dir=tmp_path)


def test_the_command_asks_tfds_for_array_record(tmp_path, monkeypatch):
    asked = []

    class Builder:
        def __init__(self, *args, **options):
            asked.append((args, options))

        def download_and_prepare(self):
            asked.append("prepare")

    monkeypatch.setattr(tfds, "builder", Builder)
    python, flag, code = shlex.split(prepare_command("cifar10", data_dir=tmp_path))
    exec(code)
    assert (python, flag) == ("python", "-c")
    assert asked == [(("cifar10",), {"data_dir": str(tmp_path), "file_format": "array_record"}), "prepare"]


def test_a_missing_split_is_named(prepared):
    with pytest.raises(ValueError, match="split='test': tfds:tiny_photos has train, validation"):
        open_tfds("tiny_photos", "test", data_dir=prepared)
    with pytest.raises(ValueError, match="has train, validation"):
        open_tfds("tiny_photos", "train+test", data_dir=prepared)


def test_a_set_in_another_format_is_refused(prepared, tmp_path):
    folder = tmp_path / "tiny_photos" / "1.0.0"
    shutil.copytree(prepared / "tiny_photos" / "1.0.0", folder)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(
        ValueError, match="prepared as tfrecord, which has no random access: prepare it again"
    ):
        open_tfds("tiny_photos", data_dir=tmp_path)


def test_reading_needs_no_tensorflow():
    code = (
        "import sys\n"
        "from ssl_jax.data.open import open_source\n"
        f"source = open_source({f'tfds:{EMBEDDED}'!r}, 'test')\n"
        "assert source[3]['image'].shape == (28, 28, 1)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def open_labels(prepared, split="train", **options):
    return open_tfds("tiny_labels", split, data_dir=prepared, **{"image": "left", **options})


def names_by_image(source):
    """The name of the label of the first and second image of a split, None for none."""
    labels = {int(e["image"].max()): e["label"] for e in (source[i] for i in range(len(source)))}
    assert labels_of(source).tolist() == [source[i]["label"] for i in range(len(source))]
    return [None if labels[i] < 0 else source.classes[labels[i]] for i in range(2)]


@pytest.mark.parametrize(
    ("label", "classes", "train", "test"),
    [
        ("coarse", ("a", "b"), ["b", "a"], [None, "b"]),
        ("number", ("3", "7"), ["7", None], ["3", "7"]),
        ("text", ("x", "y", "z"), ["x", "y"], [None, "z"]),
        ("one_hot", ("0", "1"), ["1", "0"], ["0", "0"]),
        ("", (), [None, None], [None, None]),
    ],
)
def test_labels_of_any_kind_have_one_table_for_all_splits(prepared, label, classes, train, test):
    sources = [
        open_labels(prepared, split, label=label) for split in ("train", "test", "train+test", "train[:1]")
    ]
    assert all(source.classes == classes for source in sources)
    assert names_by_image(sources[0]) == train and names_by_image(sources[1]) == test
    assert labels_of(sources[2]).tolist() == [*labels_of(sources[0]), *labels_of(sources[1])]
    assert labels_of(sources[3]).tolist() == labels_of(sources[0])[:1].tolist()
    assert pickle.loads(pickle.dumps(sources[0]))[0]["label"] == sources[0][0]["label"]
    assert len({name for name, size in sources[2].files if size}) == 2


def test_what_was_mapped_is_said_and_what_is_no_class_is_refused(prepared):
    assert open_labels(prepared, label="number").notes == (
        "label numbers 3, 7 are the classes 0 to 1 here, named by their number",
        "only test has the class 3",
    )
    with pytest.raises(
        ValueError, match=r"label='share' of train of tfds:tiny_labels holds float.*label_column"
    ):
        open_labels(prepared, label="share")


def test_a_class_that_only_one_split_has_is_said_of_a_set_with_names_too(prepared, monkeypatch):
    notes = open_tfds("tiny_labels", "test", image="left", label="coarse", data_dir=prepared).notes
    assert notes == ("only train has the class a",)
    monkeypatch.setattr("ssl_jax.data.tfds._COUNTED", 3)
    assert not open_tfds("tiny_labels", "test", image="left", label="coarse", data_dir=prepared).notes


def test_numbers_with_the_channels_first_are_refused(tmp_path):
    class TinyPlanes(TinyTensors):
        def _info(self):
            features = {"x": tfds.features.Tensor(shape=(3, 8, 8), dtype=np.uint8)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _generate_examples(self):
            yield 0, {"x": np.zeros([3, 8, 8], np.uint8)}

    TinyPlanes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(ValueError, match=r"'x' of shape \(3, 8, 8\) has the channels first"):
        open_tfds("tiny_planes", data_dir=tmp_path)


def test_features_are_chosen_by_name_in_one_order(prepared):
    with pytest.raises(
        ValueError, match=r"give image= one of \['left', 'right'\], on the command line --config"
    ):
        open_tfds("tiny_labels", data_dir=prepared)
    assert sorted(
        int(e["image"].max()) for e in (open_labels(prepared, image="right")[i] for i in range(2))
    ) == [10, 11]
    source = open_labels(prepared)
    assert source.classes == ("a", "b") and "one of ['coarse', 'fine']" in source.notes[0]
    with pytest.raises(
        ValueError, match=r"image='text': the features .* that can hold images are \['left', 'right'\]"
    ):
        open_labels(prepared, image="text")
    with pytest.raises(ValueError, match="label='kind' is not a feature of tfds:tiny_labels"):
        open_labels(prepared, label="kind")


def test_a_label_beyond_the_names_is_a_corrupt_record(prepared):
    source = open_labels(prepared)
    source.classes = ("a",)
    row = labels_of(open_labels(prepared)).tolist().index(1)
    with pytest.raises(CorruptImage, match="its label is 1: allowed are 0 to 0, and -1 for none"):
        source[row]
    assert labels_of(source)[row] == -1
