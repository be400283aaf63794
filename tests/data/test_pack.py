import fcntl
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ssl_jax.cli.pack import Curation, pack_images
from ssl_jax.core.bucket import to_path
from ssl_jax.data import pack as packing
from ssl_jax.data.batches import TooManyCorrupt
from ssl_jax.data.folder import open_folder
from ssl_jax.data.open import open_source
from ssl_jax.data.pack import FORMATS, Shards, pack
from ssl_jax.data.sources import ArraySource, CorruptImage, take_part
from ssl_jax.data.stored_image import Encoding, encode_pixels, store_image
from ssl_jax.train.lease import Lease
from tests.data.images import encode, encode_npy
from tests.train.object_servers import SECRET, Fault, serving

KINDS = {"tar": "tar", "parquet": "parquet", "array_record": "tfds"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Ten images of two classes, of several sizes, as JPEG and PNG, gray and in color."""
    rng = np.random.default_rng(0)
    for i in range(10):
        shape = (20 + i, 31) if i % 3 == 0 else (20 + i, 31, 3)
        path = tmp_path / "images" / ("dog" if i % 4 else "cat") / f"{i}.{'jpg' if i % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rng.integers(0, 256, shape, np.uint8), "JPEG" if i % 2 else "PNG"))
    return tmp_path / "images"


def reopen(form, out, split="train"):
    return open_source(f"{KINDS[form]}:{out}", split)


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.mark.parametrize("form", FORMATS)
def test_shards_hold_the_images_of_the_folder_in_its_order(folder, tmp_path, form):
    source = open_folder(folder)
    packed = pack(source, tmp_path / "out", Shards(form, images=4), threads=3)
    assert packed.examples == 10 and len(packed.files) == 3 and not packed.corrupt
    again = reopen(form, tmp_path / "out")
    assert len(again) == 10 and again.classes == source.classes == ("cat", "dog")
    assert (again.channels, again.dtype) == (source.channels, source.dtype)
    for i in range(10):
        np.testing.assert_array_equal(again[i]["image"], source[i]["image"])
        assert again[i]["label"] == source[i]["label"]
        assert again.read_encoded(i) == source.read_encoded(i)


def test_a_tar_is_what_the_convention_says(folder, tmp_path):
    source = open_folder(folder)
    pack(source, tmp_path / "out", Shards("tar", images=10))
    with tarfile.open(tmp_path / "out/train-00000-of-00001.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members[:3]] == ["000000000.png", "000000000.cls", "000000000.json"]
        assert all(m.mtime == 0 and m.uid == 0 and m.isfile() for m in members)
        stored = {m.name: tar.extractfile(m).read() for m in members}
    for i in range(10):
        told = json.loads(stored[f"{i:09d}.json"])
        assert told == {"file_name": source.file_name(i), "class_name": source.classes[source.labels[i]]}
        assert int(stored[f"{i:09d}.cls"]) == source.labels[i]
        extension = source.file_name(i).rpartition(".")[2]
        assert stored[f"{i:09d}.{extension}"] == source.read_encoded(i)


def test_others_read_parquet_and_array_record(folder, tmp_path):
    source = open_folder(folder)
    pack(source, tmp_path / "p", Shards("parquet", images=10))
    pack(source, tmp_path / "a", Shards("array_record", images=10))
    rows = pyarrow.parquet.read_table(tmp_path / "p").to_pylist()
    records = tfds.builder_from_directory(tmp_path / "a").as_data_source(
        split="train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    for i, (row, record) in enumerate(zip(rows, records, strict=True)):
        assert row["image"] == {"bytes": source.read_encoded(i), "path": source.file_name(i)}
        assert record["image"] == source.read_encoded(i)
        assert record["file_name"].decode() == source.file_name(i)
        assert row["label"] == record["label"] == source.labels[i]


@pytest.mark.parametrize("form", FORMATS)
def test_arrays_are_stored_without_loss_and_missing_labels_stay_missing(tmp_path, form):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 1), np.uint8)
    source = ArraySource(images, [2, -1, 0, 1, 2], classes=("zebra", "ant", "cow"))
    pack(source, tmp_path, Shards(form, images=3))
    again = reopen(form, tmp_path)
    assert again.classes == source.classes
    for i in range(5):
        np.testing.assert_array_equal(again[i]["image"], images[i])
        assert again[i]["label"] == source[i]["label"]


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_floats_and_many_channels_are_stored_as_numbers(tmp_path, form):
    images = np.random.default_rng(0).random((3, 6, 5, 4), np.float32)
    pack(ArraySource(images), tmp_path, Shards(form))
    again = reopen(form, tmp_path)
    assert again.dtype == "float32" and again.classes == ()
    np.testing.assert_array_equal(np.stack([again[i]["image"] for i in range(3)]), images)


def test_16_bits_survive_in_array_record(tmp_path):
    images = np.random.default_rng(0).integers(0, 2**16, (3, 6, 5, 1), np.uint16)
    pack(ArraySource(images), tmp_path, Shards("array_record"))
    again = reopen("array_record", tmp_path)
    np.testing.assert_array_equal(np.stack([again[i]["image"] for i in range(3)]), images)


def test_what_array_record_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^format='array_record' for 4 channels of float32: allowed is tar"):
        pack(ArraySource(np.zeros([2, 4, 4, 4], np.float32)), tmp_path, Shards("array_record"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.npy").write_bytes(encode_npy(np.zeros([4, 4, 3], np.uint8)))
    with pytest.raises(ValueError, match=r"a\.npy is npy.*give tar or parquet"):
        pack(open_folder(tmp_path / "in"), tmp_path / "out", Shards("array_record"))
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_two_splits_lie_in_one_folder(folder, tmp_path):
    source = open_folder(folder)
    for form in FORMATS:
        for split, part in (("train", "[:70%]"), ("test", "[70%:]")):
            pack(take_part(source, f"train{part}"), tmp_path / form, Shards(form, images=4), split=split)
        train, test = reopen(form, tmp_path / form), reopen(form, tmp_path / form, "test")
        assert (len(train), len(test)) == (7, 3)
        assert train.classes == test.classes == ("cat", "dog")


def test_larger_images_are_resized_as_pillow_does(folder, tmp_path):
    source = open_folder(folder)
    side = Encoding(shorter_side=22)
    for i in range(10):
        image, stored = source[i]["image"], store_image(source, i, side)
        height = image.shape[0]
        if height <= 22:
            assert stored.content == source.read_encoded(i)
            continue
        resized = np.asarray(
            Image.fromarray(image).resize((round(31 * 22 / height), 22), Image.Resampling.BICUBIC)
        )
        kind = {"png": "PNG", "jpg": "JPEG"}[stored.extension]
        assert stored.extension == source.file_name(i).rpartition(".")[2]
        assert stored.content == encode(resized, kind, **({"quality": 95} if kind == "JPEG" else {}))


def test_numbers_stay_in_their_range_when_they_are_resized():
    image = np.zeros([9, 9, 2], np.float32)
    image[4:] = 1
    stored = store_image(ArraySource(image[None]), 0, Encoding(shorter_side=5))
    (name, content) = stored.extension, np.load(io.BytesIO(stored.content))
    assert name == "npy" and content.shape == (5, 5, 2) and content.min() >= 0 and content.max() <= 1


def test_the_bytes_do_not_depend_on_threads(folder, tmp_path):
    source = open_folder(folder)
    for form in FORMATS:
        for threads in (1, 5):
            pack(source, tmp_path / f"{form}{threads}", Shards(form, images=3), threads=threads)
        one, five = contents(tmp_path / f"{form}1"), contents(tmp_path / f"{form}5")
        assert one == five


def test_checksums_are_those_of_the_files(folder, tmp_path):
    packed = pack(open_folder(folder), tmp_path / "out", Shards(images=4), about={"why": "a test"})
    told = json.loads((tmp_path / "out/.pack-train/manifest.json").read_text())
    assert told["about"] == {"why": "a test"} and told["classes"] == ["cat", "dog"] and told["examples"] == 10
    for shard, path in zip(told["shards"], packed.files, strict=True):
        content = path.read_bytes()
        assert (shard["file"], shard["bytes"]) == (path.name, len(content))
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_size_of_shards_is_about_what_was_asked_for(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    packed = pack(ArraySource(images), tmp_path, Shards("parquet", mib=0.05))
    assert len(packed.files) == 4
    for path in packed.files[:-1]:
        assert abs(path.stat().st_size / (0.05 * 2**20) - 1) < 0.1


@pytest.mark.parametrize("form", FORMATS)
def test_an_interrupted_packing_goes_on(folder, tmp_path, monkeypatch, form):
    source = open_folder(folder)
    pack(source, tmp_path / "whole", Shards(form, images=3))

    def fail_late(source, index, encoding):
        if index == 7:
            raise OSError("no space left")
        return store_image(source, index, encoding)

    monkeypatch.setattr(packing, "store_image", fail_late)
    with pytest.raises(OSError, match="no space"):
        pack(source, tmp_path / "out", Shards(form, images=3))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[!.]*")}
    assert len(written) == 2, "two whole shards, nothing half-written, no word of completeness"
    monkeypatch.setattr(packing, "store_image", store_image)
    packed = pack(source, tmp_path / "out", Shards(form, images=3))
    assert packed.reused == 2
    assert all(path.stat().st_mtime_ns == changed for path, changed in written.items())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_or_missing_shard_is_written_again(folder, tmp_path):
    source = open_folder(folder)
    files = pack(source, tmp_path / "out", Shards(images=3)).files
    before = contents(tmp_path / "out")
    content = bytearray(files[1].read_bytes())
    content[700] ^= 1
    files[1].write_bytes(bytes(content))
    files[2].unlink()
    assert pack(source, tmp_path / "out", Shards(images=3)).reused == 2
    assert contents(tmp_path / "out") == before


def test_other_images_or_options_are_refused(folder, tmp_path):
    pack(open_folder(folder), tmp_path / "out", Shards(images=3))
    with pytest.raises(ValueError, match=r"another packing \(quality=95\): give another folder"):
        pack(open_folder(folder), tmp_path / "out", Shards(images=3, encoding=Encoding(quality=90)))
    with pytest.raises(ValueError, match=r"another packing \(format=tar\)"):
        pack(open_folder(folder), tmp_path / "out", Shards("parquet", images=3))
    (folder / "dog/new.png").write_bytes(encode(np.zeros([9, 9, 3], np.uint8)))
    with pytest.raises(ValueError, match=r"other images, count=10"):
        pack(open_folder(folder), tmp_path / "out", Shards(images=3))


def test_two_processes_do_not_pack_into_one_folder(folder, tmp_path):
    pack(open_folder(folder), tmp_path / "out", Shards())
    with open(tmp_path / "out/.pack-train/lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="packed by another process"):
            pack(open_folder(folder), tmp_path / "out", Shards())


def test_images_that_cannot_be_read_are_left_out_and_named(folder, tmp_path):
    whole = (folder / "dog/1.jpg").read_bytes()
    (folder / "dog/1.jpg").write_bytes(whole[:-150])
    source = open_folder(folder)
    for form in FORMATS:
        packed = pack(source, tmp_path / form, Shards(form, images=4), max_corrupt_fraction=0.1)
        ((name, reason),) = packed.corrupt
        assert name == "dog/1.jpg" and "truncated" in reason.lower()
        assert len(reopen(form, tmp_path / form)) == packed.examples == 9
    with pytest.raises(TooManyCorrupt, match=r"1 of 10 images cannot be read.*dog/1\.jpg"):
        pack(source, tmp_path / "strict", Shards(images=4), max_corrupt_fraction=0.05)
    assert not (tmp_path / "strict/.pack-train/manifest.json").exists()
    # A look at the headers does not find it: the shards then hold what the folder holds.
    packed = pack(source, tmp_path / "fast", Shards(encoding=Encoding(verify="header")))
    assert packed.examples == 10
    again = reopen("tar", tmp_path / "fast")
    with pytest.raises(CorruptImage, match=r"(?i)truncated"):
        [again[i] for i in range(10)]


def test_a_choice_in_another_order_is_packed_in_that_order(folder, tmp_path):
    source, order = open_folder(folder), np.array([7, 2, 9])
    pack(source, tmp_path / "out", Shards(), indices=order)
    again = reopen("tar", tmp_path / "out")
    for place, index in enumerate(order):
        np.testing.assert_array_equal(again[place]["image"], source[int(index)]["image"])
        assert again[place]["label"] == source.labels[index]


def test_progress_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_SAID", 0.0)
    lines = []
    pack(open_folder(folder), tmp_path / "out", Shards(images=4), say=lines.append)
    assert lines[-1].startswith("10 of 10 images, ")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Shards("zip"), "format='zip'"),
        (lambda: Shards(mib=0), "shard_mib=0"),
        (lambda: Shards(images=0), "shard_images=0"),
        (lambda: Encoding(shorter_side=0), "shorter_side=0"),
        (lambda: Encoding(quality=101), "quality=101"),
        (lambda: Encoding(verify="hope"), "verify='hope'"),
    ],
)
def test_wrong_options_are_named(make, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        make()


def test_pixels_are_encoded_by_what_can_hold_them():
    kinds = [(np.uint8, 1, "png"), (np.uint8, 3, "png"), (np.uint8, 4, "npy"), (np.float32, 1, "npy")]
    for dtype, channels, extension in kinds:
        assert encode_pixels(np.zeros([4, 4, channels], dtype)).extension == extension
    assert encode_pixels(np.zeros([4, 4, 3], np.uint8), quality=90).extension == "jpg"


@pytest.mark.long
def test_hugging_face_reads_the_folder_of_parquet_shards(folder, tmp_path):
    import datasets

    source = open_folder(folder)
    pack(source, tmp_path / "out", Shards("parquet", images=10))
    read = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))["train"]
    assert read.features["label"].names == ["cat", "dog"]
    for i in range(10):
        pixels = np.asarray(read[i]["image"].convert("RGB"))
        np.testing.assert_array_equal(pixels, source[i]["image"])
        assert read[i]["label"] == source.labels[i]


SCRIPT = """
import sys
from pathlib import Path
from ssl_jax.data.folder import open_folder
from ssl_jax.data.pack import Shards, pack
print("ready", flush=True)
pack(open_folder(sys.argv[1]), Path(sys.argv[2]), Shards(sys.argv[3], images=20), threads=2)
"""


@pytest.mark.long
@pytest.mark.parametrize("form", FORMATS)
def test_a_packing_that_is_killed_gives_the_same_bytes_when_it_goes_on(tmp_path, form):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(200):
        (tmp_path / f"in/{i:03d}.png").write_bytes(encode(rng.integers(0, 256, (300, 300, 3), np.uint8)))
    pack(open_folder(tmp_path / "in"), tmp_path / "whole", Shards(form, images=20))
    words = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        "-c",
        SCRIPT,
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        form,
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = 0
    for delay in (0.3, 0.8):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        for note in (tmp_path / "out").glob(".pack-*/manifest.json"):
            assert json.loads(note.read_text())["examples"] == 200
    assert killed
    pack(open_folder(tmp_path / "in"), tmp_path / "out", Shards(form, images=20))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs, of an upload
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_shards_in_a_bucket_are_those_of_a_folder(folder, tmp_path, scheme, capsys):
    for form in FORMATS:
        for split in ("train[:70%]", "test"):
            source = take_part(open_folder(folder), "train[:70%]")
            pack(source, tmp_path / form, Shards(form, images=4), split=split)
    with serving(scheme) as store:
        for form in FORMATS:
            out = to_path(f"{store.root}/sets/{form}")
            shards = Shards(form, images=4)
            for split in ("train[:70%]", "test"):
                source = take_part(open_folder(folder), "train[:70%]")
                pack(source, out, shards, split=split, threads=2)
            names = {p.name: p.read_bytes() for p in (tmp_path / form).iterdir() if p.is_file()}
            assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == names
            assert not any("partial" in name for name in out.files.find(str(out)))
            one, other = reopen(form, tmp_path / form, "test"), reopen(form, out, "test")
            assert len(one) == len(other) == 7 and one.classes == other.classes
            for i in range(7):
                np.testing.assert_array_equal(one[i]["image"], other[i]["image"])
                assert one[i]["label"] == other[i]["label"]
        # It goes on: a shard that is gone, one of other bytes, an upload that is cut, a store that is busy.
        files = sorted(p for p in out.iterdir() if "array_record-" in p.name and "train" in p.name)
        before = [p.read_bytes() for p in files]
        files[0].unlink()
        files[1].write_bytes(before[1][:100] + bytes([before[1][100] ^ 1]) + before[1][101:])
        source = take_part(open_folder(folder), "train[:70%]")
        uploads = lambda method, path: method in ("POST", "PUT") and "array_record" in path  # noqa: E731
        store.proxy.faults[:] = [Fault(uploads, 503, 1), Fault(uploads, 0, 1)]
        packed = pack(source, out, shards, split="train[:70%]")
        assert packed.reused == len(files) - 2 and [p.read_bytes() for p in files] == before
        # One that may not be written: a line, and no word of completeness.
        store.proxy.faults[:] = [Fault(lambda method, path: method in ("POST", "PUT"), 403, 99)]
        with pytest.raises(OSError, match=re.escape(store.root)) as caught:
            pack(source, to_path(f"{store.root}/refused"), shards)
        assert "\n" not in str(caught.value) and SECRET not in str(caught.value)
        store.proxy.faults.clear()
        assert not to_path(f"{store.root}/refused/.pack-train/manifest.json").exists()
        # The launcher's body, with a choice that is kept, and a lock.
        out = to_path(f"{store.root}/chosen")
        for _ in range(2):
            pack_images(f"folder:{folder}", out, Shards(images=4), Curation(dedup="exact", shuffle=True))
        assert "10 images in 3 shards of tar (3 were there)" in capsys.readouterr().out
        lease = Lease(out / ".pack-train")
        with pytest.raises(OSError, match="being packed by another process"):
            pack_images(f"folder:{folder}", out, Shards(images=4), Curation())
        lease.close()
        assert (out / ".pack-train/duplicates.html").exists()
