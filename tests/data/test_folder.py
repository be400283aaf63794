import contextlib
import os
import pickle

import numpy as np
import pytest

from ssl_jax.data.folder import FolderSource, open_folder
from ssl_jax.data.sources import CorruptImage, Source
from tests.data.images import encode, encode_npy, encode_png16, write_mixed_folder

COLOUR = np.full([6, 7, 3], (200, 100, 50), np.uint8)
GRAY = COLOUR[..., 0]


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else encode(data))
    return root


def names_of(source):
    return [source.file_name(i) for i in range(len(source))]


def labels_of(source):
    return [source[i]["label"] for i in range(len(source))]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixed")
    return root, write_mixed_folder(root, count=100)


def test_a_mixed_folder_is_read_and_its_damaged_files_are_named(mixed):
    root, damaged = mixed
    source = open_folder(root)
    assert isinstance(source, Source) and len(source) == 100 and len(damaged) == 2
    assert source.shape is None and source.channels == 3 and source.dtype == "uint8"
    found = []
    for i in range(len(source)):
        try:
            image = source[i]["image"]
        except CorruptImage as error:
            assert error.name == source.file_name(i)
            found.append(error.name)
            continue
        assert image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape[:2]) >= 40
        assert image.std() > 3
    assert found == damaged
    assert source.ignored == {"hidden": 1, ".csv": 1, ".txt": 1}
    assert source.classes == ("shoot0", "shoot1", "shoot2", "shoot3")


def test_the_mixed_folder_is_the_same_every_time(mixed, tmp_path):
    root, damaged = mixed
    assert write_mixed_folder(tmp_path, count=100) == damaged
    first, second = open_folder(root), open_folder(tmp_path)
    assert names_of(first) == names_of(second) == sorted(names_of(first))
    for name in names_of(first):
        assert (root / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_folder_source_survives_pickling(mixed):
    source = open_folder(mixed[0], "train[:30%]")
    copy = pickle.loads(pickle.dumps(source))
    assert names_of(copy) == names_of(source) and (copy[3]["image"] == source[3]["image"]).all()
    assert len(pickle.dumps(open_folder(mixed[0]))) < 20_000


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    write(tmp_path, dict.fromkeys(("b/2.png", "b/10.png", "a.png", "B.png", "a/z/1.png"), GRAY))
    names = names_of(open_folder(tmp_path))
    assert names == ["B.png", "a.png", "a/z/1.png", "b/10.png", "b/2.png"]
    scandir = os.scandir

    @contextlib.contextmanager
    def reversed_scandir(path):
        with scandir(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", reversed_scandir)
    assert names_of(open_folder(tmp_path)) == names


def test_class_folders_give_labels(tmp_path):
    write(tmp_path, {"dog/1.png": GRAY, "cat/x/2.png": GRAY, "cat/1.png": GRAY})
    source = open_folder(tmp_path)
    assert source.classes == ("cat", "dog") and labels_of(source) == [0, 0, 1]


@pytest.mark.parametrize("files", [["cat/1.png", "2.png"], ["cat/1.png", "cat/2.png"], ["1.png", "2.png"]])
def test_without_class_folders_there_are_no_labels(tmp_path, files):
    source = open_folder(write(tmp_path, dict.fromkeys(files, GRAY)))
    assert source.classes == () and labels_of(source) == [-1, -1]


def test_split_folders_are_splits(tmp_path):
    write(tmp_path, {"train/a/1.png": GRAY, "train/b/1.png": GRAY, "val/a/1.png": COLOUR})
    source = open_folder(tmp_path, "train")
    assert source.classes == ("a", "b") and names_of(source) == ["train/a/1.png", "train/b/1.png"]
    assert open_folder(tmp_path, "val").channels == 3
    with pytest.raises(ValueError, match=r"split='test': folder:.* has train, val; give one of these"):
        open_folder(tmp_path, "test")


def test_without_split_folders_only_train_exists(tmp_path):
    write(tmp_path, {"a.png": GRAY})
    with pytest.raises(
        ValueError, match=r"has no splits. Put .*test.*, or take parts of the whole: train\[:90%\]"
    ):
        open_folder(tmp_path, "test")


def test_parts_of_sorted_classes_have_every_class(tmp_path):
    write(tmp_path, {f"{c}/{i}.png": GRAY for c in "abc" for i in range(20)})
    train, test = open_folder(tmp_path, "train[:80%]"), open_folder(tmp_path, "train[80%:]")
    assert len(train) == 48 and len(test) == 12 and not set(names_of(train)) & set(names_of(test))
    assert set(labels_of(test)) == {0, 1, 2} == set(labels_of(train))


def test_channels_and_depth_come_from_the_headers(tmp_path):
    deep = np.full([6, 7, 3], 1000, np.uint16)
    gray = open_folder(write(tmp_path / "1", {"a.png": GRAY, "b.jpg": encode(GRAY, "JPEG")}))
    assert (gray.channels, gray.dtype, gray.shape) == (1, "uint8", (6, 7, 1))
    both = open_folder(write(tmp_path / "2", {"a.png": GRAY, "b.png": COLOUR}))
    assert (both.channels, both[0]["image"].shape) == (3, (6, 7, 3))
    many = np.zeros([6, 7, 5], np.uint8)
    assert open_folder(write(tmp_path / "3", {"a.npy": encode_npy(many)})).channels == 5
    all_deep = open_folder(write(tmp_path / "4", {"a.png": encode_png16(deep), "b.npy": encode_npy(deep)}))
    assert all_deep.dtype == "uint16" and (all_deep[0]["image"] == 1000).all()
    some_deep = open_folder(write(tmp_path / "5", {"a.png": encode_png16(deep), "b.png": COLOUR}))
    assert some_deep.dtype == "uint8" and (some_deep[0]["image"] == 4).all()
    given = open_folder(tmp_path / "2", channels=1, dtype="uint16")
    assert given[1]["image"].shape == (6, 7, 1) and given[1]["image"].dtype == np.uint16
    with pytest.raises(ValueError, match="give channels=N"):
        open_folder(write(tmp_path / "3", {"b.png": COLOUR}))


def test_shape_is_known_only_where_every_header_has_it(tmp_path):
    assert open_folder(write(tmp_path, {"a.png": GRAY, "b.png": GRAY})).shape == (6, 7, 1)
    assert open_folder(write(tmp_path, {"c.png": GRAY[:5]})).shape is None
    write(tmp_path / "new", {"a.png": GRAY, "b.png": GRAY})
    source = open_folder(tmp_path / "new")
    write(tmp_path / "new", {"b.png": GRAY[:5]})
    with pytest.raises(CorruptImage, match="all others have"):
        source[1]


def test_links_are_followed_and_loops_are_not(tmp_path):
    write(tmp_path / "elsewhere", {"1.png": GRAY})
    root = write(tmp_path / "root", {"a/1.png": GRAY})
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "loop").symlink_to(root)
    assert names_of(open_folder(root)) == ["a/1.png", "b/1.png"]


def test_a_file_that_vanishes_is_a_corrupt_image(tmp_path):
    source = open_folder(write(tmp_path, {"a.png": GRAY, "b.png": GRAY}))
    (tmp_path / "b.png").unlink()
    with pytest.raises(CorruptImage, match=r"b.png: cannot be opened: No such file"):
        source[1]


def test_names_that_are_not_utf8_can_be_written_down(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:
        file.write(encode(GRAY))
    source = open_folder(tmp_path)
    assert source.file_name(0) == "caf\\xe9.png" and source[0]["image"].shape == (6, 7, 1)
    source.file_name(0).encode("utf-8")


def test_errors_of_a_folder_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"it is empty. Image files end in .*png"):
        open_folder(tmp_path)
    write(tmp_path, {"a.txt": b"x", "b.txt": b"x", "c.pdf": b"x"})
    with pytest.raises(ValueError, match=r"it has 3 other files: 2 .txt, 1 .pdf"):
        open_folder(tmp_path)
    with pytest.raises(ValueError, match="is a file: give the folder"):
        open_folder(tmp_path / "a.txt")
    write(tmp_path, {"a.png": b"text", "b.png": b""})
    with pytest.raises(ValueError, match=r"none of the 2 images looked at can be read: a.png: not an image"):
        open_folder(tmp_path)


def test_a_bomb_in_a_folder_is_a_corrupt_image(tmp_path):
    write(tmp_path, {"a.png": GRAY, "b.png": np.zeros([90, 90], np.uint8)})
    source = open_folder(tmp_path, max_image_mib=100 / 2**20)
    assert isinstance(source, FolderSource) and source[0]["image"].shape == (6, 7, 1)
    with pytest.raises(CorruptImage, match=r"b.png: 90 x 90 pixels .* too large for max_image_mib"):
        source[1]


def test_images_that_no_conversion_brings_to_the_channels_asked_for_are_said(tmp_path):
    write(tmp_path / "rgb", {"a.png": COLOUR, "b.png": GRAY})
    with pytest.raises(ValueError, match=r"channels=4: the images of folder:.*rgb have 1 or 3"):
        open_folder(tmp_path / "rgb", channels=4)
    write(tmp_path / "mixed", {"a.png": COLOUR, "b.npy": encode_npy(np.zeros([6, 7, 4], np.uint8))})
    source = open_folder(tmp_path / "mixed", channels=3)
    assert source.notes == ("1 of 2 images looked at have 4 channels instead of 3: these count as corrupt",)


def test_images_that_cannot_be_read_are_said_once_whatever_their_values(tmp_path):
    write(tmp_path, {"a.png": COLOUR.astype(np.uint16)[..., 0] * 255, "b.png": b"x"})
    notes = [note for note in open_folder(tmp_path).notes if "cannot be read" in note]
    assert notes == [
        "1 of 2 images looked at cannot be read, such as b.png: not an image of a known format: starts with b'x'"
    ]
