"""Clips: windows in training batches, folders of frames, moving garments, and what is refused."""

import pickle

import numpy as np
import pytest

from ssl_jax.augment.views import View
from ssl_jax.config import build
from ssl_jax.data.fashion_mnist import open_embedded
from ssl_jax.data.frames import CANVAS, LENGTH, Clips, Moving, natural_key
from ssl_jax.data.loader import epoch, stream
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import ArraySource, Source, take_evenly
from tests.data.images import encode
from tests.methods.case import config_of

LENGTHS = (5, 9, 4, 6)


def clips(window=3, stride=1):
    frames = np.arange(sum(LENGTHS), dtype=np.uint8)[:, None, None] * np.ones((1, 6, 6), np.uint8)
    return Clips(ArraySource(frames), LENGTHS, window=window, stride=stride)


def batches(source, steps, **options):
    with stream(source, seed=0, threads=0, **options) as found:
        return [next(found) for _ in range(steps)]


def write(folder, lengths, size=8):
    """Clips of gray frames; frame t of clip k has the gray value 16 k + t."""
    for k, (name, length) in enumerate(lengths.items()):
        (folder / name).mkdir(parents=True)
        for t in range(length):
            image = np.full([size, size], 16 * k + t, np.uint8)
            (folder / name / f"{t:03d}.png").write_bytes(encode(image))


@pytest.mark.parametrize("stride", [1, 2])
def test_batches_are_windows_and_an_epoch_has_one_of_every_clip(stride):
    source = clips(window=2, stride=stride)
    found = batches(source, 3, batch_size=8)
    for batch in found:
        index = batch["index"].reshape(4, 2)
        np.testing.assert_array_equal(np.diff(index, axis=1), stride)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
        np.testing.assert_array_equal(batch["clip"], source.clips[batch["index"]])
        np.testing.assert_array_equal(batch["time"], source.times[batch["index"]])
        assert sorted(batch["clip"].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len({batch["index"].tobytes() for batch in found}) == 3


def test_windows_begin_anywhere_in_a_clip():
    source = clips(window=3)
    first = {c: set() for c in range(4)}
    for batch in batches(source, 60, batch_size=12):
        for clip, time in zip(batch["clip"][::3], batch["time"][::3], strict=True):
            first[int(clip)].add(int(time))
    assert first == {c: set(range(length - 2)) for c, length in enumerate(LENGTHS)}


def test_batches_do_not_depend_on_processes_or_on_where_the_run_resumed():
    source = clips(window=3)
    whole = batches(source, 4, batch_size=8)
    halves = [batches(source, 4, batch_size=8, share=(k, 2)) for k in (0, 1)]
    late = batches(source, 2, batch_size=8, start_step=2)
    for name in ("index", "clip", "time", "image"):
        for step in range(4):
            np.testing.assert_array_equal(
                whole[step][name], np.concatenate([half[step][name] for half in halves])
            )
        for step in range(2):
            np.testing.assert_array_equal(whole[step + 2][name], late[step][name])


def test_crops_on_the_host_have_clips_too_and_given_indices_are_taken_as_they_are():
    source = clips()
    (batch,) = batches(source, 1, batch_size=6, views=(View(size=4),), crop_on="host")
    assert batch["crops"][0].shape == (6, 1, 4, 4, 1)
    assert len(set(batch["clip"][:3].tolist())) == 1
    (batch,) = batches(source, 1, batch_size=4, among=np.array([1, 23]))
    assert sorted(batch["index"].tolist()) == [1, 1, 23, 23]
    assert sorted(batch["clip"].tolist()) == [0, 0, 3, 3]


def test_evaluation_sees_single_frames():
    source = clips()
    assert isinstance(source, Source)
    with epoch(source, batch_size=24, size=6, threads=0) as found:
        np.testing.assert_array_equal(next(found)["index"], np.arange(24))
    assert len(take_evenly(source, 4)) == 4


def test_parts_are_whole_clips():
    source = open_source("frames:moving", "test")
    parts = [source.part(split) for split in ("test[:25%]", "test[25%:]")]
    names = [{part.file_name(i).rsplit("/", 1)[0] for i in range(0, len(part), LENGTH)} for part in parts]
    assert [len(n) for n in names] == [500, 1500]
    assert not names[0] & names[1]
    assert parts[0].lengths.tolist() == [LENGTH] * 500
    assert parts[0][40]["image"].shape == (CANVAS, CANVAS, 1)
    assert parts[0].times[40] == 8


def test_moving_frames_are_a_function_of_the_index_and_show_the_garment_whole():
    frames, garments = Moving("test"), open_embedded("test")
    again = pickle.loads(pickle.dumps(frames))
    for clip in (0, 7, 1999):
        corners = []
        for time in range(LENGTH):
            element = frames[clip * LENGTH + time]
            np.testing.assert_array_equal(element["image"], again[clip * LENGTH + time]["image"])
            assert element["label"] == garments[clip]["label"]
            shown = garments[clip]["image"]
            assert element["image"].sum() == shown.sum()
            places = [
                (r, c)
                for r, c in np.ndindex(13, 13)
                if (element["image"][r : r + 28, c : c + 28] == shown).all()
            ]
            corners.append(places[0])
        steps = np.abs(np.diff(corners, axis=0))
        assert 0 < steps.max() <= 4
    # Another clip, another path.
    assert not np.array_equal(frames[0]["image"] > 0, frames[LENGTH * 7]["image"] > 0)


def test_a_folder_is_read_clip_by_clip_in_the_order_of_names(tmp_path):
    write(tmp_path, {"a": 4, "a-2": 3, "b": 5})
    source = open_source(f"frames:{tmp_path}", window=3)
    assert source.lengths.tolist() == [4, 3, 5]
    values = [int(source[i]["image"][0, 0, 0]) for i in range(12)]
    assert values == [0, 1, 2, 3, 16, 17, 18, 32, 33, 34, 35, 36]
    assert (source[0]["label"], source.classes) == (-1, ())
    part = open_source(f"frames:{tmp_path}", "train[:1]", window=3)
    assert len(part.lengths) == 1


def test_classes_are_the_folders_above_the_clips_and_splits_are_found(tmp_path):
    write(tmp_path / "train", {"cat/a": 3, "cat/b": 3, "dog/a": 3})
    write(tmp_path / "test", {"cat/c": 3, "dog/d": 4})
    source = open_source(f"frames:{tmp_path}", "test", window=3)
    assert source.classes == ("cat", "dog")
    assert [source[i]["label"] for i in range(7)] == [0, 0, 0, 1, 1, 1, 1]


def order_of(folder, names):
    """Names of the frames of a clip ``c`` in the order of the source, and what is said."""
    write(folder, {"z": 2})
    (folder / "c").mkdir(exist_ok=True)
    for name in names:
        (folder / "c" / name).write_bytes(encode(np.zeros([4, 4], np.uint8)))
    source = open_source(f"frames:{folder}", window=2)
    assert source.times[: len(names)].tolist() == list(range(len(names)))
    files = [source.file_name(i) for i in range(len(names))]
    assert all(file.startswith("c/") for file in files)
    return [file[2:] for file in files], "\n".join(source.notes)


ORDERS = {
    "without zeros": ([f"{i}.png" for i in range(1, 13)], ""),
    "with zeros": ([f"{i:04d}.png" for i in (8, 9, 10, 11, 100)], "88 frames are missing"),
    "some zeros": (["f7.png", "f008.png", "f09.png", "f10.png", "f0011.png"], ""),
    "twice": (["06.png", "07.png", "7.png", "8.png"], "a number stands twice in 1 of 2 clips, such as c/07.png and c/7.png"),
    "two formats": (["1.bmp", "1.png", "2.png"], "a number stands twice in 1 of 2 clips, such as c/1.bmp and c/1.png"),
    "negative": (["-10.png", "-9.png", "-8.png"], "numbers are negative in 1 of 2 clips, such as c/-10.png"),
    "both signs": (["t=-2.png", "t=-1.png", "t=0.png", "t=1.png"], "numbers are negative in 1 of 2 clips, such as c/t=-2"),
    "dashes": (["shot-1.png", "shot-2.png", "shot-3.png"], ""),
    "dates": (["2024-01-09.png", "2024-01-10.png", "2024-02-01.png"], "several numbers of a name vary in 1 of 2 clips"),
    "several": (["cam2_9.png", "cam2_10.png", "cam10_1.png"], "several numbers of a name vary in 1 of 2 clips"),
    "one is fixed": (["cam2_9.png", "cam2_10.png", "cam2_11.png"], ""),
    "every fifth": ([f"{i}.png" for i in range(0, 60, 5)], ""),
    "missing": (["1.png", "2.png", "5.png", "6.png", "9.png"], "4 frames are missing in 1 of 2 clips, by the numbers in the "
                "names, such as between c/2.png and c/5.png"),
    "irregular": (["100.png", "133.png", "171.png", "201.png", "238.png"], ""),
    "no numbers": (["a.png", "b.png", "c.png"], "names differ in more than their numbers in 1 of 2 clips"),
    "a cover": (["1.png", "2.png", "10.png", "cover.png"], "such as c/10.png and c/cover.png"),
    "capitals": (["Frame1.png", "frame2.png", "FRAME10.png"], "7 frames are missing"),
    "decimals": (["0.1.png", "0.2.png", "0.15.png"], "decimals have different lengths in 1 of 2 clips"),
    "enormous": ([f"1{'0' * 200}.png", f"2{'0' * 200}.png"], ""),
}  # fmt: skip


@pytest.mark.parametrize("names, note", ORDERS.values(), ids=ORDERS)
def test_frames_are_in_their_natural_order_and_what_is_odd_is_said(tmp_path, names, note):
    found, said = order_of(tmp_path, names[::-1])
    assert found == names
    assert note in said if note else said == ""


def test_natural_order_is_that_of_names_where_numbers_have_as_many_digits(tmp_path):
    rng = np.random.default_rng(0)
    names = [
        f"f{a:03d}_{b:05d}.png"
        for a, b in zip(rng.integers(0, 999, 50), rng.integers(0, 99999, 50), strict=True)
    ]
    assert sorted(names, key=natural_key) == sorted(names)


def test_clips_of_all_splits_have_one_table_of_classes(tmp_path):
    write(tmp_path / "train", {"ant/k": 3, "bee/k": 3, "cow/k": 3})
    write(tmp_path / "test", {"bee/k": 3, "cow/k": 4})
    write(tmp_path / "val", {"one": 3, "two": 3})
    for split, labels in {"train": [0, 1, 2], "test": [1, 2], "val": [-1, -1]}.items():
        source = open_source(f"frames:{tmp_path}", split, window=3)
        assert source.classes == ("ant", "bee", "cow")
        np.testing.assert_array_equal(source.labels, np.array(labels)[source.clips])
        assert [source[i]["label"] for i in range(len(source))] == source.labels.tolist()
        assert source.notes[:2] == (
            "splits: test, train, val",
            "val: images that lie in no class's folder, such as val/one/000.png, have no label",
        )
        assert "only train has the class ant" in source.notes
        part = open_source(f"frames:{tmp_path}", f"{split}[:1]", window=3)
        assert part.notes == source.notes and part.classes == source.classes
        assert set(part.labels.tolist()) <= set(labels)


def test_a_class_of_clips_may_be_empty_in_one_split(tmp_path):
    write(tmp_path / "train", {"ant/k": 3, "bee/k": 3})
    write(tmp_path / "test", {"bee/k": 3})
    (tmp_path / "test" / "ant" / "@eaDir").mkdir(parents=True)
    source = open_source(f"frames:{tmp_path}", "test", window=3)
    assert "sub-folders without an image in test: ant" in source.notes and len(source) == 3


def test_a_clip_with_the_name_of_a_split_is_a_clip(tmp_path):
    write(tmp_path, {"test": 3, "walk": 3, "run": 3})
    source = open_source(f"frames:{tmp_path}", window=3)
    assert source.lengths.tolist() == [3, 3, 3] and "test is the name of a split" in source.notes[0]
    with pytest.raises(ValueError, match=r"split='test': frames:.* has no splits"):
        open_source(f"frames:{tmp_path}", "test", window=3)


def test_a_corrupt_frame_is_replaced_and_named(tmp_path):
    write(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a" / "001.png").write_bytes(b"text")
    source = open_source(f"frames:{tmp_path}", window=4)
    with (
        pytest.warns(UserWarning, match=r"skipped the corrupt image a/001\.png"),
        stream(source, seed=0, batch_size=8, threads=0, max_corrupt_fraction=0.5) as found,
    ):
        batch = next(found)
    assert sorted(batch["index"].tolist()) == [0, 2, 2, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(batch["time"], batch["index"] % 4)


def test_what_makes_no_clips_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="a folder with a folder for each clip, or moving"):
        open_source(f"frames:{tmp_path / 'none'}")
    write(tmp_path, {"a": 4, "b": 2})
    with pytest.raises(ValueError, match=r"1 of 2 clips are shorter than the 3 frames .* b/000\.png has 2"):
        open_source(f"frames:{tmp_path}", window=3)
    with pytest.raises(ValueError, match="window=2 and stride=2"):
        open_source(f"frames:{tmp_path}", window=2, stride=2)
    with pytest.raises(ValueError, match="window=0"):
        open_source(f"frames:{tmp_path}", window=0)
    with pytest.raises(ValueError, match="has no clip"):
        open_source(f"frames:{tmp_path}", "train[:0]", window=2)
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match=r"the clip .*/c is empty: remove it"):
        open_source(f"frames:{tmp_path}", window=2)
    (tmp_path / "c" / "notes.txt").write_text("later")
    with pytest.raises(ValueError, match="but 1 other files"):
        open_source(f"frames:{tmp_path}", window=2)
    with pytest.raises(ValueError, match="channels=3: allowed is None"):
        open_source("frames:moving", channels=3)
    with pytest.raises(ValueError, match="lengths=23"):
        Clips(ArraySource(np.zeros([24, 2, 2], np.uint8)), [20, 3], window=2, stride=1)


def test_a_method_of_clips_refuses_single_images():
    config = config_of("time_contrastive")
    config["data"] |= {"source": "embedded"}
    with pytest.raises(ValueError, match=r"config\.data\.source='embedded': allowed is frames:<path>"):
        build.run_objects(config)
