"""Files behind URLs, read from a server on loopback that fails in the ways in which servers fail."""

import io
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_jax.data import stores
from ssl_jax.data.encoded import ReadAhead, read_piece
from ssl_jax.data.fashion_mnist import EMBEDDED
from ssl_jax.data.loader import stream
from ssl_jax.data.masks import open_masks
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import CorruptImage
from tests.data.images import encode
from tests.data.shards import serve, write_tar
from tests.train.object_servers import SECRET, Fault, serving

pytest.importorskip("aiohttp")
IMAGES = [np.full([6, 7, 3], 10 * i, np.uint8) for i in range(12)]
SAMPLES = [(f"{i:02d}", {"png": encode(x), "cls": str(i % 3).encode()}) for i, x in enumerate(IMAGES)]


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "DELAYS", (0.01,) * 3)


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    for part in range(3):
        write_tar(folder / f"train-{part}.tar", SAMPLES[4 * part : 4 * part + 4])
    with serve(folder) as server:
        yield server


def test_shards_behind_a_url_are_those_on_disk(server, tmp_path):
    local = open_source(f"tar:{tmp_path}/served")
    # A pattern, a folder that the server shows as a page of links, and a list.
    for place in (
        f"{server.url}/train-{{0..2}}.tar",
        server.url,
        "::".join(f"{server.url}/train-{i}.tar" for i in range(3)),
    ):
        remote = open_source(f"tar:{place}")
        assert [remote.file_name(i) for i in range(12)] == [local.file_name(i) for i in range(12)]
        with (
            stream(local, seed=0, batch_size=5, threads=0) as a,
            stream(remote, seed=0, batch_size=5, threads=0) as b,
        ):
            for x, y in zip((next(a) for _ in range(3)), (next(b) for _ in range(3)), strict=True):
                np.testing.assert_array_equal(x["image"], y["image"])
                np.testing.assert_array_equal(x["label"], y["label"])


def test_an_image_is_one_read_of_its_range_and_the_second_is_none(server, tmp_path):
    place = f"tar:{server.url}/train-{{0..2}}.tar"
    open_source(place)
    server.requests.clear()
    source = open_source(place)
    # Indices and images are there; whether names of classes lie beside the shards is asked again.
    assert {path for path, _ in server.requests} == {"/classnames.txt"}
    shutil.rmtree(tmp_path / "cache" / "ssl_jax" / "data")
    server.requests.clear()
    assert (source[5]["image"] == 50).all()
    start, size = int(source._starts[5]), int(source._sizes[5])
    assert server.requests == [("/train-1.tar", f"bytes={start}-{start + size - 1}")]
    assert (source[5]["image"] == 50).all() and len(server.requests) == 1


@pytest.mark.parametrize("faults", [[503], [429, 500, 502], ["cut"], ["cut", 503, "cut"]])
def test_what_passes_is_tried_again(server, faults):
    file = stores.stat_file(f"{server.url}/train-0.tar")
    whole = stores.read_range(file, 0, file.size)
    server.faults += faults
    assert stores.read_range(file, 600, 700) == whole[600:700]
    assert not server.faults


def test_what_does_not_pass_is_no_corrupt_image(server):
    source = open_source(f"tar:{server.url}/train-{{0..2}}.tar")
    file = source._files[0]
    server.faults += [503] * 4
    with pytest.raises(
        ConnectionError, match=r"train-0\.tar cannot be read: the server answers 503 \(4 attempts"
    ):
        stores.read_range(file, 0, 10)
    server.faults += [403]
    with pytest.raises(PermissionError, match="may not be read: the server answers 403"):
        stores.read_range(file, 0, 10)
    assert not server.faults
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"train-0\.tar cannot be read: "):
        read_piece(file, 1, 3)


def test_what_is_gone_is_a_corrupt_image_or_said_at_the_opening(server, tmp_path):
    source = open_source(f"tar:{server.url}/train-{{0..2}}.tar")
    with pytest.raises(ValueError, match=r"tar:http://127.*/train-3\.tar does not exist"):
        open_source(f"tar:{server.url}/train-{{0..3}}.tar")
    with pytest.raises(ValueError, match="does not exist"):
        open_source(f"tar:{server.url}/none/")
    os.remove(tmp_path / "served" / "train-1.tar")
    with pytest.raises(CorruptImage, match="it is gone"):
        read_piece(source._files[1], 3, 5)


def test_a_server_without_ranges_is_said_and_read_in_order(server):
    server.ranges = False
    with pytest.raises(
        ConnectionError, match=r"answers no ranges: read whole shards \(tar_in_order:\), or download"
    ):
        stores.read_range(stores.stat_file(f"{server.url}/train-0.tar"), 600, 700)
    source = open_source(f"tar_in_order:{server.url}/train-{{0..2}}.tar")
    assert (source[5]["image"] == 50).all()


def test_a_shard_that_was_replaced_is_indexed_again(server, tmp_path):
    place = f"tar:{server.url}/train-{{0..2}}.tar"
    open_source(place)
    write_tar(tmp_path / "served" / "train-1.tar", [("new", {"png": encode(IMAGES[3]), "cls": b"2"})])
    source = open_source(place)
    assert len(source) == 9 and (source[4]["image"] == 30).all() and source[4]["label"] == 2


def test_names_hold_no_password_and_no_signature(server):
    port = server.server_address[1]
    source = open_source(f"tar:http://me:secret@127.0.0.1:{port}/train-0.tar?X-Signature=hidden")
    texts = [source.name, source.file_name(0), *source.notes, str(source.files)]
    server.faults += [503] * 4
    with pytest.raises(ConnectionError) as caught:
        stores.read_range(source._files[0], 0, 10)
    assert not any(word in text for text in (*texts, str(caught.value)) for word in ("secret", "hidden"))


def test_folder_table_and_prepared_set_behind_a_url_are_those_on_disk(tmp_path):
    served = tmp_path / "served"
    for i, (key, parts) in enumerate(SAMPLES):
        path = served / "photos" / ("train" if i % 4 else "test") / f"class {i % 3}" / f"{key} ä.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(parts["png"])
    (served / "photos" / "train" / "notes.txt").write_text("no image")
    table = {
        "image": [parts["png"] for _, parts in SAMPLES],
        "label": [int(parts["cls"]) for _, parts in SAMPLES],
    }
    for split, rows in (("train", slice(0, 9)), ("test", slice(9, 12))):
        columns = {name: values[rows] for name, values in table.items()}
        pq.write_table(pa.table(columns), served / f"{split}.parquet", row_group_size=2)
    (served / "prepared").symlink_to(EMBEDDED)
    with serve(served) as server:
        for kind, place, options in (
            ("folder", "photos", {}),
            ("parquet", "test.parquet::{}/train.parquet", {"cache_dir": tmp_path / "arrow"}),
            ("tfds", "prepared", {}),
        ):
            for split in ("train", "test", "test[:50%]"):
                local = {
                    "folder": f"{kind}:{served}/{place}",
                    "parquet": f"parquet:{served}",
                    "tfds": f"tfds:{EMBEDDED}",
                }
                one = open_source(local[kind], split, **options)
                other = open_source(
                    f"{kind}:{server.url}/{place}".replace("{}", server.url), split, **options
                )
                assert (len(one), one.classes, one.shape, one.dtype) == (
                    len(other),
                    other.classes,
                    other.shape,
                    other.dtype,
                )
                if "[" in split and kind == "parquet":
                    continue  # which rows are in a part follows from the name of the source
                for i in range(min(len(one), 5)):
                    np.testing.assert_array_equal(one[i]["image"], other[i]["image"])
                    assert one[i]["label"] == other[i]["label"]
                if kind == "folder":
                    assert [one.file_name(i) for i in range(len(one))] == [
                        other.file_name(i) for i in range(len(one))
                    ]
        with pytest.raises(ValueError, match=r"folder:http://.*/photos has test, train; give one of these"):
            open_source(f"folder:{server.url}/photos", "val")
        with pytest.raises(ValueError, match=r"parquet:http://.*/none\.parquet does not exist"):
            open_source(f"parquet:{server.url}/none.parquet")
        with pytest.raises(
            ValueError, match=r"tfds:http://.*/photos has no dataset_info\.json: give the folder"
        ):
            open_source(f"tfds:{server.url}/photos")
        server.requests.clear()
        open_source(f"tfds:{server.url}/prepared")
        open_source(f"parquet:{server.url}/train.parquet", cache_dir=tmp_path / "arrow")
        fetched = [
            path for path, _ in server.requests if path.startswith("/prepared/") and path != "/prepared/"
        ]
        assert not fetched, "the copy in the cache is taken"


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(stores.PACKAGES, "s3", "a_package_that_is_not_there")
    with pytest.raises(
        ImportError, match=r"s3:// needs a_package_that_is_not_there: pip install 'ssl-jax\[s3\]'"
    ):
        open_source("tar:s3://bucket/a.tar")


def test_a_file_is_read_in_order_and_anywhere(server):
    file = stores.stat_file(f"{server.url}/train-0.tar")
    whole = stores.read_range(file, 0, file.size)
    opened = io.BufferedReader(stores.RangeFile(file, chunk=700), 100)
    assert opened.read() == whole
    rng = np.random.default_rng(0)
    for start, count in zip(
        rng.integers(0, file.size + 99, 30).tolist(), rng.integers(1, 2000, 30).tolist(), strict=True
    ):
        opened.seek(start)
        assert opened.read(count) == whole[start : start + count]
    target = io.BytesIO()
    stores.download(file, target)
    assert target.getvalue() == whole


def test_what_is_read_ahead_is_read_once_whatever_is_asked_for():
    read = []
    ahead = ReadAhead(lambda index: read.append(index) or bytes([index]))
    ahead.start([3, 1, 3])
    assert [ahead.take(i) for i in (1, 3, 2)] == [b"\1", b"\3", b"\2"] and sorted(read) == [1, 2, 3]


def test_masks_behind_urls_are_those_on_disk(server, tmp_path):
    local, numbers = tmp_path / "served", range(5)
    masks = [np.array([[i, 1, 255], [0, 2, i]], np.uint8) for i in numbers]
    for i in numbers:
        for folder, name, content in (("images", f"{i}.png", IMAGES[i]), ("masks", f"{i}.png", masks[i])):
            path = local / "pairs" / folder / f"cut {i % 2}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(content))
    (local / "pairs/masks/cut 0/notes.txt").write_text("no mask")
    (local / "pairs/masks/cut 1/3.png").unlink()
    columns = {"image": [encode(IMAGES[i]) for i in numbers], "mask": [encode(mask) for mask in masks]}
    pq.write_table(pa.table(columns), local / "masks.parquet")
    for spec, options in (
        ("folder:{}/pairs", {}),
        ("folder:{}/pairs/images", {"masks": "{}/pairs/masks/"}),
        ("parquet:{}/masks.parquet", {}),
    ):
        one, other = (
            open_masks(spec.format(place), **{name: text.format(place) for name, text in options.items()})
            for place in (local, server.url)
        )
        assert len(one) == len(other) == (5 if "parquet" in spec else 4)
        assert one.mask_classes == other.mask_classes == ("0", "1", "2", "3", "4")
        for i in range(len(one)):
            np.testing.assert_array_equal(one[i]["image"], other[i]["image"])
            np.testing.assert_array_equal(one[i]["target"], other[i]["target"])
        for mixed in (f"{local}/pairs/masks", f"{server.url}/pairs/masks"):
            both = open_masks(f"folder:{server.url}/pairs/images", masks=mixed)
            np.testing.assert_array_equal(
                both[2]["target"], np.where(masks[4] == 255, -1, masks[4].astype(int))
            )
    with pytest.raises(ValueError, match=r"^masks='http://.*/none': allowed is a folder that exists$"):
        open_masks(f"folder:{server.url}/pairs/images", masks=f"{server.url}/none")


def test_frames_behind_a_url_are_refused_with_what_to_do():
    with pytest.raises(
        ValueError, match=r"^frames='gs://bucket/clips': allowed is a folder of this machine: copy"
    ):
        open_source("frames:gs://bucket/clips")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs, of an upload
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_images_in_a_bucket_are_those_on_disk(tmp_path, scheme):
    local = tmp_path / "local"
    for part in range(3):
        write_tar(local / f"train-{part}.tar", SAMPLES[4 * part : 4 * part + 4])
    for i, (key, parts) in enumerate(SAMPLES):
        path = local / "photos" / f"class {i % 3}" / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(parts["png"])
    columns = {"image": [p["png"] for _, p in SAMPLES], "label": [int(p["cls"]) for _, p in SAMPLES]}
    pq.write_table(pa.table(columns), local / "table.parquet")
    shutil.copytree(EMBEDDED, local / "prepared")
    with serving(scheme) as store:
        system = stores.file_system(store.root)
        for path in sorted(path for path in local.rglob("*") if path.is_file()):
            system.put_file(str(path), f"{store.root}/{path.relative_to(local)}")
        texts = []
        for spec in (
            *("tar:{}/train-{{0..2}}.tar", "tar:{}/train-*.tar", "tar_in_order:{}"),
            *("folder:{}/photos", "parquet:{}/table.parquet", "tfds:{}/prepared"),
        ):
            one, other = open_source(spec.format(local)), open_source(spec.format(store.root))
            assert (len(one), one.classes) == (len(other), other.classes)
            with (
                stream(one, seed=0, batch_size=5, threads=0) as a,
                stream(other, seed=0, batch_size=5, threads=0) as b,
            ):
                for x, y in zip((next(a) for _ in range(3)), (next(b) for _ in range(3)), strict=True):
                    for name in ("image", "label", "index"):
                        np.testing.assert_array_equal(x[name], y[name])
            texts += [other.name, *other.notes]
        file = stores.stat_file(f"{store.root}/train-0.tar")
        assert file.stamp
        whole = (local / "train-0.tar").read_bytes()
        for status in (503, 429, 0):
            store.proxy.faults[:] = [Fault(lambda method, path: "train-0.tar" in path, status, 1)]
            assert stores.read_range(file, 600, 700) == whole[600:700]
            assert len(store.proxy.made) > 0
            store.proxy.made.clear()
        store.proxy.faults[:] = [Fault(lambda method, path: "train-0.tar" in path, 403, 9)]
        with pytest.raises(PermissionError) as caught:
            stores.read_range(file, 600, 700)
        texts.append(str(caught.value))
        store.proxy.faults.clear()
        system.put_file(str(local / "train-1.tar"), f"{store.root}/train-0.tar")
        again = open_source(f"tar:{store.root}/train-{{0..2}}.tar")
        assert (again[0]["image"] == 40).all()
        assert not any(SECRET in text for text in texts)
        with pytest.raises(ValueError, match=r"none\.tar does not exist"):
            open_source(f"tar:{store.root}/none.tar")
