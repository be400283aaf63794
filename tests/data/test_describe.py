"""What is said of a source: numbers of images and classes, and the notes of its opening."""

import numpy as np
import pytest

from ssl_jax.data.describe import describe
from ssl_jax.data.fashion_mnist import EMBEDDED
from ssl_jax.data.frames import Clips
from ssl_jax.data.labels import FewLabels
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import ArraySource, Subset
from tests.data.images import encode


def arrays(labels, classes=()):
    return ArraySource(np.zeros([len(labels), 4, 6], np.uint8), labels, classes=classes)


def test_images_and_classes_are_counted():
    head = "5 images of 4 x 6 pixels, 1 channel of uint8, "
    assert describe(arrays([1, 1, 0, 1, -1], "ab")) == [head + "2 classes: a 1, b 3; 1 without a label"]
    assert describe(arrays([-1] * 5, "ab")) == [head + "no labels here (classes: a, b)"]
    assert describe(ArraySource(np.zeros([5, 4, 6], np.uint8))) == [head + "no labels"]
    assert describe(Subset(arrays([0, 1, 0], "ab"), [2, 0])) == [
        "2 images of 4 x 6 pixels, 1 channel of uint8, 2 classes: a 2, b 0"
    ]


def test_of_many_classes_the_first_the_smallest_and_the_largest_are_named():
    labels = np.repeat(np.arange(10), [3, 2, 4, 1, 2, 9, 2, 2, 2, 2])
    line = describe(arrays(labels, "abcdefghij"))[0]
    assert line.endswith("10 classes: a 3, b 2, c 4, ...; smallest d 1, largest f 9")
    assert describe(arrays(np.arange(20) % 10, "abcdefghij"))[0].endswith("10 classes: a, b, c, ..., 2 each")


def test_few_labels_say_how_many_there_are():
    source = FewLabels(arrays([0, 1] * 4, "ab"), 2, seed=0)
    assert describe(source)[0].endswith("2 classes: a 1, b 1; 6 without a label")


def test_notes_follow(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/a/1.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(np.zeros([9, 9], np.uint8)))
    assert describe(open_source(f"folder:{tmp_path}", "val")) == [
        "1 image of 9 x 9 pixels, 1 channel of uint8, 2 classes: a 1, b 0",
        "splits: train, val",
        "left out 1 file: 1 .heic, such as val/a/1.heic (images by their content, PNG: rename to end in .png)",
        "only train has the class b",
    ]
    (tmp_path / "train/a/2.png").write_bytes(encode(np.zeros([8, 9], np.uint8)))
    assert (
        describe(open_source(f"folder:{tmp_path}"))[0] == "3 images, 1 channel of uint8, 2 classes: a 2, b 1"
    )


def test_clips_are_counted():
    frames = arrays([0, 0, 0, 1, 1], "ab")
    head = describe(Clips(frames, [3, 2], window=2, stride=1))[0]
    assert (
        head == "2 clips of 2 to 3 frames, 5 frames of 4 x 6 pixels, 1 channel of uint8, 2 classes: a 3, b 2"
    )
    assert "2000 clips of 32 frames each, 64000 frames" in describe(open_source("frames:moving", "test"))[0]


@pytest.mark.parametrize("spec", ["embedded", "embedded_color", f"tfds:{EMBEDDED}"])
def test_every_kind_of_source_is_described_without_reading_an_image(spec, monkeypatch):
    source = open_source(spec, "test")
    monkeypatch.setattr(type(source), "__getitem__", None)
    assert "2000 images of 28 x 28 pixels" in describe(source)[0] and "10 classes: " in describe(source)[0]


def test_a_source_of_the_user_is_described():
    class Mine:
        name, shape, channels, dtype, classes = "mine", None, 3, "uint8", ("a", "b")

        def __len__(self):
            return 7

        def __getitem__(self, index):
            raise AssertionError("no image is read")

        def file_name(self, index):
            return str(index)

    assert describe(Mine()) == ["7 images, 3 channels of uint8, 2 classes: a, b"]
    assert describe(Clips(Mine(), [7], window=2, stride=1)) == [
        "1 clip of 7 frames each, 7 frames, 3 channels of uint8, 2 classes: a, b"
    ]
