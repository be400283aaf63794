"""Clips: windows in training batches, folders of frames, moving garments, and what is refused."""

import pickle

import numpy as np
import pytest

from ssl_jax.augment.views import View
from ssl_jax.config import build
from ssl_jax.data.fashion_mnist import open_embedded
from ssl_jax.data.frames import CANVAS, LENGTH, Clips, Moving
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
    with pytest.raises(ValueError, match=r"the clip .*/c has no frame, but nothing"):
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
