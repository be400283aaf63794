import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from ssl_jax.augment.crop import Box, RandomResizedCrop
from ssl_jax.augment.host import host_crop, host_crops
from ssl_jax.augment.views import View
from ssl_jax.data import batches as batches_module
from ssl_jax.data.batches import TooManyCorrupt, example_indices
from ssl_jax.data.frames import Clips
from ssl_jax.data.loader import Stream, epoch, stream
from ssl_jax.data.sources import ArraySource, CorruptImage, Subset

VIEWS = (View(size=6), View(size=4), View(size=6, crop=RandomResizedCrop(area=(0.2, 0.5))))


class Images(ArraySource):
    """Image i is filled with noise of its own; some are corrupt; sizes vary where asked."""

    def __init__(self, count=22, side=8, corrupt=(), vary=False):
        images = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8)
        super().__init__(images, np.arange(count) % 3, name="images")
        self.corrupt = set(corrupt)
        self.reads: list[int] = []
        if vary:
            self.shape = None

    def __getitem__(self, index):
        self.reads.append(index)
        if index in self.corrupt:
            raise CorruptImage(self.file_name(index), "truncated")
        element = super().__getitem__(index)
        if self.shape is None:
            element["image"] = element["image"][: 8 - index % 3]
        return element


def take(source, count, **options) -> list[dict]:
    options = {"seed": 3, "batch_size": 6, "share": (0, 1), "threads": 0} | options
    with stream(source, **options) as batches:
        return [next(batches) for _ in range(count)]


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def crops_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a["crops"], b["crops"], strict=True))


# What a stream holds


def test_every_epoch_holds_every_example_once_in_another_order():
    epochs = np.concatenate([batch["index"] for batch in take(Images(), 11)]).reshape(-1, 22)
    for order in epochs:
        assert sorted(order) == list(range(22))
    assert len({tuple(order) for order in epochs}) == len(epochs)


def test_batches_hold_the_images_and_labels_of_their_index():
    source = Images()
    for batch in take(source, 3):
        np.testing.assert_array_equal(batch["image"], source.images[batch["index"]])
        np.testing.assert_array_equal(batch["label"], source.labels[batch["index"]])
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == batch["index"].dtype == np.int32


def test_the_same_seed_gives_the_same_stream_and_another_seed_another():
    first, again, other = (take(Images(), 2, seed=seed) for seed in (3, 3, 4))
    assert_same(first[1], again[1])
    assert not np.array_equal(first[1]["index"], other[1]["index"])


def test_an_epoch_of_a_seed_is_no_epoch_of_the_next_seed():
    orders = {tuple(example_indices(seed, 50 * e, 50, 50)) for seed in range(4) for e in range(4)}
    assert len(orders) == 16


def test_orders_are_uniform_over_permutations():
    counts: dict[tuple, int] = {}
    for seed in range(1200):
        order = tuple(example_indices(seed, 0, 3, 3).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 20.5  # chi-squared, 5 degrees: p = 0.001


@pytest.mark.parametrize("processes", [2, 3])
def test_the_parts_of_all_processes_side_by_side_are_the_batch_of_one(processes):
    source = Images()
    whole = take(source, 4, views=VIEWS, crop_on="host")
    parts = [take(source, 4, views=VIEWS, crop_on="host", share=(k, processes)) for k in range(processes)]
    for step, batch in enumerate(whole):
        for name in ("index", "label"):
            np.testing.assert_array_equal(np.concatenate([p[step][name] for p in parts]), batch[name])
        for group, crops in enumerate(batch["crops"]):
            np.testing.assert_array_equal(np.concatenate([p[step]["crops"][group] for p in parts]), crops)


def test_a_resumed_stream_is_the_tail_of_an_unbroken_one_and_replays_nothing():
    source, resumed = Images(), Images()
    whole = take(source, 9, views=VIEWS, crop_on="host")
    tail = take(resumed, 2, views=VIEWS, crop_on="host", start_step=7)
    assert_same(whole[7], tail[0])
    assert_same(whole[8], tail[1])
    assert len(resumed.reads) == 12


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_the_stream(threads):
    options = {"views": VIEWS, "crop_on": "host"}
    for a, b in zip(take(Images(), 6, **options), take(Images(), 6, threads=threads, **options), strict=True):
        assert_same(a, b)


def test_steps_beyond_int32_and_seeds_beyond_int31_work():
    batch = take(Images(), 1, seed=2**32 - 1, start_step=2**61, views=VIEWS, crop_on="host")[0]
    assert set(batch["index"]) <= set(range(22))
    assert_same(batch, take(Images(), 1, seed=2**32 - 1, start_step=2**61, views=VIEWS, crop_on="host")[0])


def test_a_source_smaller_than_the_batch_repeats_in_it():
    (batch,) = take(Images(count=5), 1, batch_size=20)
    assert np.bincount(batch["index"]).tolist() == [4] * 5


# Crops


def test_chosen_examples_take_the_place_of_the_source():
    """Twice as often where it stands twice; a later start is the tail, as without a choice."""
    among = np.array([5, 5, 9, 20], np.int32)
    batches = take(Images(), 4, among=among, batch_size=4)
    assert all(sorted(batch["index"].tolist()) == among.tolist() for batch in batches)
    assert_same(batches[2:], take(Images(), 2, among=among, batch_size=4, start_step=2))
    for wrong in (np.array([22]), np.array([-1]), np.zeros(0, np.int32)):
        with pytest.raises(ValueError, match="among"):
            take(Images(), 1, among=wrong)


def test_host_crops_have_one_array_a_size_and_differ_between_epochs_and_views():
    source = Images(count=1)
    first, second = take(source, 2, views=VIEWS, crop_on="host", batch_size=2)
    assert [crops.shape for crops in first["crops"]] == [(2, 2, 6, 6, 3), (2, 1, 4, 4, 3)]
    assert "image" not in first
    assert not crops_equal(first, second)
    assert not np.array_equal(first["crops"][0][0], first["crops"][0][1])


def test_host_crops_are_those_of_the_generator_of_their_position():
    source = Images()
    batch = take(source, 1, views=VIEWS, crop_on="host", start_step=2)[0]
    part = batches_module.Part(12, 0, 1)
    rng = batches_module.TrainingBatches(source, part, seed=3, views=VIEWS).rng(2 * 6 + 5)
    expected = host_crops(rng, source.images[batch["index"][5]], VIEWS)
    for crops, own in zip(batch["crops"], expected, strict=True):
        np.testing.assert_array_equal(crops[5], own)


def test_boxes_of_host_crops_come_with_them_where_a_view_asks():
    source, wanted = Images(), (dataclasses.replace(VIEWS[0], boxes=True), *VIEWS[1:])
    (plain,) = take(source, 1, views=VIEWS, crop_on="host", batch_size=2)
    (batch,) = take(source, 1, views=wanted, crop_on="host", batch_size=2)
    assert "boxes" not in plain and batch["boxes"].shape == (2, 3, 4)
    assert crops_equal(plain, batch)
    for image, boxes, crops in zip(
        source.images[batch["index"]], batch["boxes"], batch["crops"][0], strict=True
    ):
        # The third view is the second one of its size.
        for (top, left, bottom, right), found in zip(boxes[[0, 2]].astype(int), crops, strict=True):
            box = Box(top, left, bottom - top, right - left)
            np.testing.assert_array_equal(host_crop(image, box, size=6, interpolation="bicubic"), found)


def test_positions_far_apart_have_generators_of_their_own():
    part = batches_module.Part(1, 0, 1)
    made = batches_module.TrainingBatches(Images(), part, seed=0, views=())
    draws = {made.rng(position).random() for position in (0, 1, 2**32, 2**64 - 1, 2**64, 2**64 + 1)}
    assert len(draws) == 6


@pytest.mark.parametrize(
    "side, vary, expected",
    [(8, False, "image"), (8, True, "crops"), (97, False, "crops"), (96, False, "image")],
)
def test_auto_crops_on_the_device_only_small_images_of_one_shape(side, vary, expected):
    (batch,) = take(Images(count=2, side=side, vary=vary), 1, batch_size=1, views=(View(size=4),))
    assert expected in batch


# Corrupt images


def test_a_corrupt_image_is_replaced_by_the_next_readable_one_and_named_once():
    with pytest.warns(UserWarning, match="truncated") as record:
        whole = take(Images(corrupt=[7, 8]), 6, max_corrupt_fraction=0.2)
    assert sorted(str(warning.message) for warning in record) == [
        f"images: skipped the corrupt image images/00000{i}: truncated" for i in (7, 8)
    ]
    plain = take(Images(), 6)
    for with_corrupt, without in zip(whole, plain, strict=True):
        expected = np.where(np.isin(without["index"], [7, 8]), 9, without["index"])
        np.testing.assert_array_equal(with_corrupt["index"], expected)
        np.testing.assert_array_equal(with_corrupt["image"], Images().images[expected])


def test_a_corrupt_image_is_read_once_only():
    source = Images(count=6, corrupt=[2])
    with pytest.warns(UserWarning):
        take(source, 4, max_corrupt_fraction=0.5)
    assert source.reads.count(2) == 1


def test_the_last_image_has_the_first_as_its_substitute():
    with pytest.warns(UserWarning):
        (batch,) = take(Images(count=3, corrupt=[2]), 1, batch_size=3, max_corrupt_fraction=1.0)
    assert sorted(batch["index"]) == [0, 0, 1]


def test_more_corrupt_images_than_allowed_are_an_error_that_names_them_and_the_option():
    source = Images(count=200, corrupt=range(0, 200, 4))
    with (
        warnings.catch_warnings(),
        pytest.raises(TooManyCorrupt, match=r"images/\d+: truncated.*raise max_corrupt_fraction"),
    ):
        warnings.simplefilter("ignore")
        take(source, 20, batch_size=10)


def test_few_corrupt_images_early_on_are_no_error():
    source = Images(count=2000, corrupt=range(0, 2000, 200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        take(source, 201, batch_size=10, max_corrupt_fraction=0.005)


def test_the_share_is_exact_once_the_whole_source_was_seen():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        take(Images(corrupt=[3, 4]), 4, max_corrupt_fraction=2 / 22)
        with pytest.raises(TooManyCorrupt, match=r"2 of the 22 images"):
            take(Images(corrupt=[3, 4]), 4, max_corrupt_fraction=1.9 / 22)


def test_a_part_of_a_source_may_hold_more_than_its_share_by_chance():
    source = Images(count=40, corrupt=[3, 9, 21, 30])
    for part, fraction in (([*range(3, 11)], 0.1), ([3, 9, 0, 1, 2], 0.2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with epoch(Subset(source, part), batch_size=4, size=8, max_corrupt_fraction=fraction) as batches:
                assert sum(int(batch["mask"].sum()) for batch in batches) == len(part) - 2
            with (
                pytest.raises(TooManyCorrupt, match="2 of the"),
                epoch(Subset(source, part), batch_size=4, size=8, max_corrupt_fraction=0.01) as batches,
            ):
                list(batches)


@pytest.mark.parametrize(
    "options", [{}, {"among": np.array([1, 4, 7, 8, 9, 9, 12])}, {"crop_on": "host", "views": VIEWS}]
)
@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_whatever_stands_in_comes_with_its_own_label_and_index(options):
    """Whatever is corrupt, a row is an image of the source with the index and label of that image."""
    source = Images(corrupt=[0, 7, 8, 13, 21])
    for batch in take(source, 8, max_corrupt_fraction=0.5, **options):
        assert not set(batch["index"].tolist()) & source.corrupt
        np.testing.assert_array_equal(batch["label"], batch["index"] % 3)
        if "image" in batch:
            np.testing.assert_array_equal(batch["image"], source.images[batch["index"]])


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_an_image_stands_in_for_one_of_its_kind_only():
    among = np.array([3, 9, 15, 9])
    rows = np.concatenate(
        [b["index"] for b in take(Images(corrupt=[9]), 4, among=among, max_corrupt_fraction=0.5)]
    )
    plain = np.concatenate([b["index"] for b in take(Images(), 4, among=among)])
    np.testing.assert_array_equal(rows, np.where(plain == 9, 15, plain))

    source = Images(corrupt=[2, 6, 21])
    source.labels = np.where(np.arange(22) % 5 == 1, 1, -1)  # 1, 6, 11, 16, 21 are labelled
    batches = take(source, 12, labeled_fraction=0.5, max_corrupt_fraction=0.5)
    whole = Images()
    whole.labels = source.labels
    for batch, plain in zip(batches, take(whole, 12, labeled_fraction=0.5), strict=True):
        assert (batch["label"][:3] == 1).all() and (batch["label"][3:] == -1).all()
        stand_in = {2: 3, 6: 11, 21: 1}
        assert batch["index"].tolist() == [stand_in.get(i, i) for i in plain["index"].tolist()]


def test_labelled_images_of_which_none_can_be_read_are_an_error():
    source = Images(corrupt=[1, 2])
    source.labels = np.where(np.isin(np.arange(22), [1, 2]), 0, -1)
    with pytest.raises(TooManyCorrupt, match="2 images of images in a row cannot be read"):
        take(source, 1, labeled_fraction=0.5, max_corrupt_fraction=1.0)


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_a_frame_stands_in_for_one_of_its_clip_the_nearest():
    frames = Images(count=10, corrupt=[3, 4, 9])
    clips = Clips(frames, [5, 5], window=5, stride=1)
    batch = take(clips, 1, batch_size=10, max_corrupt_fraction=0.5)[0]
    assert sorted(batch["index"].tolist()) == [0, 1, 2, 2, 2, 5, 6, 7, 8, 8]
    np.testing.assert_array_equal(batch["clip"], batch["index"] // 5)
    np.testing.assert_array_equal(batch["time"], batch["index"] % 5)
    gone = Clips(Images(count=10, corrupt=range(5)), [5, 5], window=5, stride=1)
    batch = take(gone, 1, batch_size=10, max_corrupt_fraction=0.5)[0]
    assert set(batch["index"].tolist()) == {5, 6, 7, 8, 9}, "a clip without a readable frame: those after it"


def test_the_search_among_corrupt_images_ends(monkeypatch):
    with pytest.raises(TooManyCorrupt, match="22 images of images in a row"):
        take(Images(corrupt=range(22)), 1)
    monkeypatch.setattr(batches_module, "SEARCH", 5)
    with pytest.raises(TooManyCorrupt, match=r"in a row cannot be read, among them images/"):
        take(Images(corrupt=range(20)), 1, batch_size=22)


def test_corrupt_images_are_counted_by_name():
    with stream(Images(corrupt=[7]), seed=0, batch_size=22, threads=0, max_corrupt_fraction=0.1) as batches:
        with pytest.warns(UserWarning):
            next(batches)
        assert batches.corrupt == {"images/000007": "truncated"}


# Evaluation


def test_an_evaluation_pass_holds_every_example_once_in_order():
    source = Images()
    found = list(epoch(source, batch_size=6, size=8))
    assert [batch["image"].shape for batch in found] == [(6, 8, 8, 3)] * 4
    mask = np.concatenate([batch["mask"] for batch in found])
    assert mask.sum() == 22
    assert not mask[22:].any()
    for name, expected in (("index", np.arange(22)), ("label", source.labels), ("image", source.images)):
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in found])[mask], expected)
    assert (found[-1]["label"][~found[-1]["mask"]] == -1).all()


def test_every_process_gets_as_many_evaluation_batches():
    parts = [list(epoch(Images(count=7), batch_size=6, size=8, share=(k, 3))) for k in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    index = np.concatenate([batch["index"][batch["mask"]] for part in parts for batch in part])
    assert sorted(index) == list(range(7))


def test_evaluation_images_come_out_in_the_asked_size():
    (batch,) = epoch(Images(count=3, vary=True), batch_size=3, size=5, crop_ratio=0.875, threads=0)
    assert batch["image"].shape == (3, 5, 5, 3)
    assert batch["image"].dtype == np.uint8


def test_corrupt_images_are_masked_out_of_the_evaluation():
    batches = epoch(Images(corrupt=[4]), batch_size=22, size=8, max_corrupt_fraction=0.1)
    with pytest.warns(UserWarning, match="000004"):
        (batch,) = batches
    assert np.flatnonzero(~batch["mask"]).tolist() == [4]
    assert batch["index"][4] == batch["label"][4] == -1
    assert list(batches.corrupt) == ["images/000004"]
    with pytest.raises(TooManyCorrupt):
        list(epoch(Images(corrupt=[4]), batch_size=22, size=8, max_corrupt_fraction=0.04))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_the_share_is_allowed_and_more_is_not(training):
    def read(source, **options):
        if training:
            return take(source, 30, batch_size=10, **options)
        return list(epoch(source, batch_size=10, size=8, **options))

    read(Images(count=100, corrupt=range(0, 100, 10)))
    with pytest.raises(TooManyCorrupt) as error:
        read(Images(count=100, corrupt=[*range(0, 100, 10), 5]))
    for part in (
        "11 of the 100 images",
        "max_corrupt_fraction=0.1",
        "images/000000: truncated",
        "and 6 more",
    ):
        assert part in str(error.value)
    assert "--config.data.max_corrupt_fraction" in str(error.value) and "\n" not in str(error.value)
    read(Images(count=100, corrupt=[*range(0, 100, 10), 5]), max_corrupt_fraction=0.11)


# Lifetime


def test_a_closed_stream_ends_and_may_be_closed_again():
    batches = stream(Images(), seed=0, batch_size=2)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []


def test_an_error_of_the_source_reaches_the_consumer_and_closes_the_stream():
    class Broken(Images):
        def __getitem__(self, index):
            raise OSError("disk gone")

    batches = stream(Broken(), seed=0, batch_size=2)
    with pytest.raises(OSError, match="disk gone"):
        next(batches)
    assert list(batches) == []


def test_the_time_spent_waiting_is_counted():
    class Slow(Images):
        def __getitem__(self, index):
            time.sleep(0.02)
            return super().__getitem__(index)

    with stream(Slow(), seed=0, batch_size=2, threads=0) as batches:
        next(batches)
        assert batches.wait_seconds >= 0.04


def test_workers_do_not_change_the_stream_and_a_killed_one_is_named_clearly():
    options = {"views": VIEWS, "crop_on": "host", "seed": 3, "batch_size": 6, "max_corrupt_fraction": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = take(Images(corrupt=[7]), 5, **options)
        with stream(Images(corrupt=[7]), start_step=1, workers=2, threads=1, **options) as batches:
            for expected in plain[1:]:
                assert_same(expected, next(batches))
            assert list(batches.corrupt) == ["images/000007"]
            for worker in multiprocessing.active_children():
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(RuntimeError, match=r"a data worker died .*memory ran out"):
                for _ in range(20):
                    next(batches)


FORGETFUL = """
import numpy as np, jax
from ssl_jax.data.loader import stream
from ssl_jax.data.device_put import prefetch
from ssl_jax.data.sources import ArraySource
if __name__ == "__main__":
    batches = stream(ArraySource(np.zeros([9, 4, 4], np.uint8)), seed=0, batch_size=4, workers=2)
    placed = prefetch(batches, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    batch = [next(placed) for _ in range(3)]
    other = stream(ArraySource(np.zeros([9, 4, 4], np.uint8)), seed=0, batch_size=4, workers=1)
    held = next(other)
"""


@pytest.mark.long
def test_a_program_that_forgets_to_close_ends_without_complaint(tmp_path):
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    command = [sys.executable, "-W", "error", "forgetful.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.long
def test_workers_end_when_their_program_is_killed(tmp_path):
    script = FORGETFUL + "    import multiprocessing\n"
    script += "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
    script += "    while True: next(placed)\n"
    (tmp_path / "forgetful.py").write_text(script)
    command = [sys.executable, "forgetful.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 3
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
            os.kill(worker, signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.kill()
    deadline = time.monotonic() + 20
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(worker) for worker in workers)


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


# Arguments


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size=0"),
        (
            {"batch_size": 5, "share": (0, 2)},
            "batch_size=5: .*multiple of the 2 processes",
        ),
        ({"share": (2, 2)}, r"share=\(2, 2\)"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed="),
        ({"start_step": -1}, "start_step=-1"),
        ({"workers": -1}, "workers=-1"),
        ({"threads": -1}, "threads=-1"),
        ({"max_corrupt_fraction": 1.5}, "max_corrupt_fraction=1.5"),
        ({"views": VIEWS, "crop_on": "gpu"}, "crop_on='gpu'"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        stream(Images(), **({"seed": 0, "batch_size": 2} | options))


@pytest.mark.parametrize(
    "options, message", [({"views": VIEWS, "crop_on": "device"}, "crop_on='device'"), ({}, "views")]
)
def test_images_of_many_sizes_are_refused_where_no_host_crop_makes_them_one(options, message):
    with pytest.raises(ValueError, match=message):
        stream(Images(vary=True), seed=0, batch_size=2, **options)


@pytest.mark.parametrize(
    "options, message", [({"size": 0}, "size=0"), ({"size": 8, "crop_ratio": 1.5}, "crop_ratio")]
)
def test_evaluation_sizes_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        epoch(Images(), batch_size=2, **options)


def test_an_empty_source_is_refused():
    class Empty(Images):
        def __len__(self):
            return 0

    for make in (lambda: stream(Empty(), seed=0, batch_size=2), lambda: epoch(Empty(), batch_size=2, size=8)):
        with pytest.raises(ValueError, match=r"source='images'.*at least one image"):
            make()


def test_streams_are_iterators():
    assert isinstance(epoch(Images(), batch_size=2, size=8), Stream)
