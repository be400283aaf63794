import io
import json
import os
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_jax.augment.crop import RandomResizedCrop
from ssl_jax.augment.views import View
from ssl_jax.config.images import open_images
from ssl_jax.data import stores
from ssl_jax.data.describe import describe
from ssl_jax.data.fingerprint import compare, fingerprint
from ssl_jax.data.loader import epoch, stream
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import CorruptImage, Source
from ssl_jax.data.tar import open_tar
from ssl_jax.data.tar_index import scan
from tests.data.images import encode, encode_npy, photo
from tests.data.shards import write_tar

CLASSES = ("cat", "dog", "fox")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(count=12):
    """Names, encoded images of several formats and sizes, labels; in the order of the names."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        label = i * len(CLASSES) // count
        pixels = photo(rng, *rng.integers(20, 40, 2).tolist())
        kind, suffix = [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")][i % 3]
        found.append((f"{CLASSES[label]}/{i:03d}", suffix, encode(pixels, kind), label))
    return found


def shards(folder, samples, sizes=(5, 1, 6), name="part-{}.tar"):
    begin = 0
    for number, size in enumerate(sizes):
        write_tar(folder / name.format(number), samples[begin : begin + size])
        begin += size
    return folder


def samples_of(found):
    return [(key, {suffix: data, "cls": str(label).encode()}) for key, suffix, data, label in found]


def assert_same_batches(one, other):
    views = (View(size=16, crop=RandomResizedCrop()), View(size=8, crop=RandomResizedCrop()))
    options = {"views": views, "seed": 5, "batch_size": 7, "start_step": 3, "threads": 0}
    with stream(one, **options) as a, stream(other, **options) as b:
        pairs = [(next(a), next(b)) for _ in range(3)]
    with (
        epoch(one, batch_size=5, size=12, threads=0) as a,
        epoch(other, batch_size=5, size=12, threads=0) as b,
    ):
        pairs += zip(a, b, strict=True)
    for x, y in pairs:
        assert x.keys() == y.keys()
        for name in x:
            for p, q in zip(*(v if isinstance(v, tuple) else (v,) for v in (x[name], y[name])), strict=True):
                np.testing.assert_array_equal(p, q)


def test_folder_shards_and_parquet_give_the_same_batches(tmp_path):
    found = images()
    for key, suffix, data, _ in found:
        path = tmp_path / "folder" / f"{key}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    shards(tmp_path / "tar", samples_of(found))
    names = [{"json": json.dumps({"label": CLASSES[label]}).encode(), s: data} for _, s, data, label in found]
    shards(tmp_path / "json", [(key, parts) for (key, *_), parts in zip(found, names, strict=True)], (12,))
    table = {"image": [data for *_, data, _ in found], "label": [label for *_, label in found]}
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    folder = open_source(f"folder:{tmp_path}/folder")
    assert folder.classes == CLASSES
    for spec in ("tar:{}/tar", "tar:{}/json", "tar:{}/tar/part-{{0..2}}.tar", "parquet:{}/table.parquet"):
        other = open_source(spec.format(tmp_path))
        assert (len(other), other.shape, other.channels, other.dtype) == (12, None, 3, "uint8")
        np.testing.assert_array_equal(other.labels, folder.labels)
        assert_same_batches(folder, other)
    assert open_source(f"tar:{tmp_path}/json").classes == CLASSES


def test_samples_are_groups_of_files_with_one_key(tmp_path):
    png = encode(np.zeros([4, 4], np.uint8))
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("a.b/1", {"seg.png": png, "PNG": png, "txt": b"a caption", "cls": b" 3\n"}),
            ("2", {"cls": b"1"}),
            ("3", {"npy": encode_npy(np.zeros([4, 4], np.uint8)), "json": b'{"label": 2, "x": [1]}'}),
            ("__meta__", {"json": b"{}"}),
            ("4", {"jpg": png, "png": png}),
            ("5", {"png": png, "cls": b"\xff\xfe", "json": b"{nonsense"}),
            ("a.b/1", {"png": png}),
        ],
    )
    index = scan(stores.stat_file(str(path)))
    assert index.names == ("a.b/1.PNG", "3.npy", "4.jpg", "5.png", "a.b/1.png")
    assert index.labels[:3] == (3, 2, None) and index.labels[4] is None
    assert index.odd == {
        "samples without an image": 1,
        "files without a key or an extension": 1,
        "samples with several images, of which .jpg is read": 1,
    }
    content = path.read_bytes()
    with tarfile.open(path) as archive:  # another reader agrees about where they lie
        for name, start, size in zip(index.names, index.starts, index.sizes, strict=True):
            member = archive.extractfile(name)
            assert member is not None and member.read() == content[start : start + size]
    assert scan(stores.stat_file(str(path)), image="seg.png").names == ("a.b/1.seg.png",)
    assert scan(stores.stat_file(str(path)), label="").labels == (None,) * 5
    assert scan(stores.stat_file(str(path)), label="txt").labels[0] == "a caption"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_other_scripts_are_read(tmp_path, form):
    key = "/".join(["ä" * 30] * 2) if form == tarfile.USTAR_FORMAT else "/".join(["ä" * 90] * 3)
    write_tar(
        tmp_path / "a.tar", [(key, {"png": encode(np.zeros([4, 4], np.uint8)), "cls": b"0"})], form=form
    )
    source = open_tar(tmp_path)
    assert len(source) == 1 and source.file_name(0) == f"a.tar/{key}.png" and source[0]["label"] == 0


def test_a_source_says_what_it_is_and_goes_to_workers(tmp_path):
    found = samples_of(images())
    shards(tmp_path / "d", found, name="train-{}.tar")
    write_tar(tmp_path / "d" / "test-0.tar", [(k, {**p, "cls": b"7"}) for k, p in found[:2]])
    source = open_tar(tmp_path / "d")
    assert isinstance(source, Source) and source.splits == ("test", "train")
    assert (
        source.classes == ("0", "1", "2", "7") and open_tar(tmp_path / "d", "test").classes == source.classes
    )
    assert source[0]["label"] == 0 and open_tar(tmp_path / "d", "test")[0]["label"] == 3
    assert len({source.file_name(i) for i in range(12)}) == 12
    assert source.files[1] == ("train-1.tar", (tmp_path / "d" / "train-1.tar").stat().st_size)
    assert describe(source)[0].startswith("12 images, 3 channels of uint8, 4 classes: 0 4, 1 4, 2 4, 7 0")
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[7]["image"], source[7]["image"])
    assert (
        len(open_tar(tmp_path / "d", "train[:50%]")) == 6
        and len(open_tar(tmp_path / "d", "train+test")) == 14
    )
    old = fingerprint(source)
    assert old == fingerprint(open_tar(tmp_path / "d"))
    shards(tmp_path / "d", found[:-1], name="train-{}.tar")
    assert "11 images where there were 12" in str(compare(old, fingerprint(open_tar(tmp_path / "d"))))


def test_classes_have_the_names_that_lie_beside_the_shards(tmp_path):
    shards(tmp_path, samples_of(images()))
    (tmp_path / "classnames.txt").write_text("cat\ndog\nfox\nowl\n")
    assert open_tar(tmp_path).classes == (*CLASSES, "owl")
    (tmp_path / "classnames.txt").write_text("cat\n")
    with pytest.raises(ValueError, match=r"label of tar:.*/train.*--config.data.label_column names another"):
        open_tar(tmp_path)
    assert open_tar(tmp_path, label="").labels.tolist() == [-1] * 12


def test_the_index_is_kept_and_made_again_when_a_shard_has_changed(tmp_path, monkeypatch):
    shards(tmp_path / "d", samples_of(images()))
    scans = []
    monkeypatch.setattr(
        "ssl_jax.data.tar_index.scan", lambda file, **kw: scans.append(file.name) or scan(file, **kw)
    )
    first = open_tar(tmp_path / "d")
    assert sorted(scans) == ["part-0.tar", "part-1.tar", "part-2.tar"]
    assert [open_tar(tmp_path / "d").file_name(i) for i in range(12)] == [
        first.file_name(i) for i in range(12)
    ]
    assert len(scans) == 3
    os.utime(tmp_path / "d" / "part-1.tar", ns=(1, 1))
    open_tar(tmp_path / "d")
    assert scans[3:] == ["part-1.tar"]
    for path in (tmp_path / "cache" / "ssl_jax" / "tar").iterdir():
        path.write_bytes(path.read_bytes()[:-40] if path.stat().st_size % 2 else b"no index")
    assert len(open_tar(tmp_path / "d")) == 12 and len(scans) == 7
    open_tar(tmp_path / "d", label="")  # another question
    assert len(scans) == 10


def test_damaged_shards_are_read_as_far_as_they_go(tmp_path):
    found = samples_of(images())
    whole = write_tar(tmp_path / "whole.tar", found).read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.tar").write_bytes(whole[:9000])
    source = open_tar(tmp_path / "cut")
    assert 0 < len(source) < 12 and "an end in the middle of a file of 1 shard, such as a.tar" in str(
        source.notes
    )
    np.testing.assert_array_equal(source[0]["image"], open_tar(tmp_path / "whole.tar")[0]["image"])
    place = whole.index(found[5][0].encode())
    (tmp_path / "cut" / "a.tar").write_bytes(whole[:place] + b"\1" * 600 + whole[place + 600 :])
    source = open_tar(tmp_path / "cut")
    assert len(source) == 5 and "damage, behind which nothing is read of 1 shard" in str(source.notes)
    (tmp_path / "cut" / "a.tar").write_bytes(whole[: place - 3000])  # while it is open
    with pytest.raises(CorruptImage, match=r"a\.tar/dog/004.jpg: it ends after"):
        source[4]
    os.remove(tmp_path / "cut" / "a.tar")
    with pytest.raises(CorruptImage, match="cannot be opened: No such file"):
        source[0]


def test_a_corrupt_member_is_a_corrupt_image(tmp_path):
    found = samples_of(images())
    found[3] = (found[3][0], {"png": b"text", "cls": b"0"})
    write_tar(tmp_path / "a.tar", found)
    source = open_tar(tmp_path)
    assert any(note.startswith("1 of 12 images looked at cannot be read") for note in source.notes)
    with pytest.raises(CorruptImage, match=r"a\.tar/cat/003.png: not an image"):
        source[3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no tar file at all" * 100, "is no tar file"),
        (b"\x1f\x8b\x08" + bytes(600), "is compressed by gzip, .* unpack it"),
        (bytes(2048), "has no sample with an image"),
    ],
)
def test_what_is_no_plain_tar_file_is_refused(tmp_path, content, message):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_tar(tmp_path / "a.tar")


def test_wrong_places_and_splits_are_said(tmp_path):
    with pytest.raises(ValueError, match=r"tar:.*/none does not exist"):
        open_tar(tmp_path / "none")
    with pytest.raises(ValueError, match=r"tar:.*/b-\{1\.\.2\}\.tar: .*b-1\.tar does not exist"):
        open_tar(tmp_path / "b-{1..2}.tar")
    with pytest.raises(ValueError, match=r"has no file that ends in \.tar"):
        open_tar(tmp_path)
    write_tar(tmp_path / "val-0.tar", samples_of(images(2)))
    with pytest.raises(
        ValueError, match=r"split='test': tar:.* has val\. Name the files of a split test-0\.tar"
    ):
        open_tar(tmp_path, "test")


def test_options_of_a_config_reach_the_shards(tmp_path):
    write_tar(tmp_path / "a.tar", [(k, {**p, "species": b"owl"}) for k, p in samples_of(images(4))])
    data = {"source": f"tar:{tmp_path}", "split": "train", "channels": 1, "label_column": "species"}
    source = open_images({"data": data}, f"tar:{tmp_path}", "train")
    assert source.channels == 1 and source.classes == ("owl",)


def test_links_in_a_shard_are_not_followed(tmp_path):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        inside = tarfile.TarInfo("../../2.png")
        inside.size = 3
        archive.addfile(inside, io.BytesIO(b"abc"))
    (tmp_path / "a.tar").write_bytes(target.getvalue())
    index = scan(stores.stat_file(str(tmp_path / "a.tar")))
    assert index.names == ("../../2.png",) and index.odd == {"links and special files": 1}
