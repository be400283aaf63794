"""What tells the images of a source from others, and what is said of a difference."""

import gzip
import os
import shutil

import numpy as np
import pytest

from ssl_jax.data import fingerprint as module
from ssl_jax.data.fingerprint import Changes, Fingerprint, compare, fingerprint
from ssl_jax.data.frames import Clips
from ssl_jax.data.labels import FewLabels
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import ArraySource, CorruptImage, Subset, take_part
from tests.data.images import encode

RNG = np.random.default_rng(0)
NAMES = tuple(f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(6))


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(RNG.integers(0, 255, (8, 8), np.uint8)))
    return root


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "images", *NAMES)


def taken(folder, split="train", kind="folder", **options):
    return fingerprint(open_source(f"{kind}:{folder}", split, **options))


def changes_of(folder, change, **options):
    before = taken(folder, **options)
    change()
    return compare(before, taken(folder, **options))


def test_it_is_the_same_however_often_and_wherever_the_folder_lies(folder, tmp_path):
    before = taken(folder)
    assert before.num_images == 12 and before.names == NAMES and before.classes == ("cat", "dog")
    assert before.sizes == tuple((folder / name).stat().st_size for name in NAMES)
    assert not compare(before, taken(folder))
    shutil.copytree(folder, tmp_path / "elsewhere" / "deeper")
    (tmp_path / "link").symlink_to(folder)
    for other in (tmp_path / "elsewhere" / "deeper", tmp_path / "link"):
        assert taken(other) == before
    os.utime(folder / NAMES[0], (1, 1))
    assert taken(folder) == before, "times are none of it"


def test_relative_and_absolute_paths_are_the_same(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert taken("images") == taken("./images/") == taken(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: write(f, "dog/7.png", "cat/9.png"), "2 added, such as cat/9.png"),
        (lambda f: (f / "cat/0.png").unlink(), "1 removed, such as cat/0.png"),
        (lambda f: (f / "cat/0.png").rename(f / "cat/00.png"), "1 added, such as cat/00.png, 1 removed, such as cat/0.png"),
        (lambda f: (f / "dog/3.png").write_bytes(encode(np.zeros((9, 9), np.uint8))), "1 of another size, such as dog/3.png"),
        (lambda f: (f / "cat/1.png").rename(f / "dog/1b.png"), "1 added, such as dog/1b.png, 1 removed, such as cat/1.png"),
        (lambda f: write(f, "fox/1.png"), "1 added, such as fox/1.png, class fox added"),
        (lambda f: shutil.rmtree(f / "cat"), "6 removed, such as cat/0.png, class cat gone, class dog gone"),
        (lambda f: write(f, "a\nb.png"), None),
    ],
)  # fmt: skip
def test_what_has_changed_is_said_with_an_example(folder, change, expected):
    changes = changes_of(folder, lambda: change(folder))
    assert changes and "\n" not in str(changes)
    assert expected is None or str(changes) == expected


def test_other_pixels_under_the_same_names_and_sizes_are_other_content(folder):
    path = folder / "cat/2.png"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    assert str(changes_of(folder, lambda: path.write_bytes(content))) == "other content"


def test_a_file_that_cannot_be_read_just_now_is_no_change(folder):
    path = folder / "cat/2.png"
    before = taken(folder)
    sizes = list(before.sizes)
    sizes[NAMES.index("cat/2.png")] = module.UNKNOWN
    content = list(before.content)
    content[NAMES.index("cat/2.png")] = ""
    for hidden in (
        before._replace(sizes=tuple(sizes), volume="other"),
        before._replace(content=tuple(content)),
    ):
        assert not compare(before, hidden) and not compare(hidden, before)
    path.unlink()
    assert compare(before, taken(folder))


def test_a_part_is_its_images_only(folder):
    change = lambda: write(folder, "cat/6.png")  # noqa: E731
    before, whole = taken(folder, "train[:50%]"), set(NAMES)
    assert before.num_images == 6 and set(before.names) < whole
    changes = changes_of(folder, change, split="train[:50%]")
    # Most files stay on their side; which are taken may change.
    assert bool(changes) == (taken(folder, "train[:50%]").names != before.names)


def test_a_class_of_another_split_changes_the_numbers_and_is_said(tmp_path):
    write(tmp_path, *(f"{split}/{name}" for split in ("train", "val") for name in NAMES))
    changes = changes_of(tmp_path, lambda: write(tmp_path, "val/ant/0.png"))
    assert changes == Changes((), ("class ant added",))


def test_labels_are_compared_by_the_name_of_their_class():
    images = RNG.integers(0, 255, (4, 2, 2), np.uint8)
    one = ArraySource(images, [0, 1, 1, -1], classes=("cat", "dog"))
    renumbered = ArraySource(images, [1, 2, 2, -1], classes=("ant", "cat", "dog"))
    swapped = ArraySource(images, [1, 0, 0, -1], classes=("dog", "cat"))
    other = ArraySource(images, [0, 1, 0, -1], classes=("cat", "dog"))
    assert fingerprint(one).labels == fingerprint(renumbered).labels == fingerprint(swapped).labels
    found = [str(compare(fingerprint(one), fingerprint(source))) for source in (renumbered, swapped, other)]
    assert found == ["class ant added", "classes in another order", "other labels"]


def test_hidden_labels_and_parts_of_parts_are_of_the_same_images():
    images = RNG.integers(0, 255, (20, 2, 2), np.uint8)
    whole = ArraySource(images, np.arange(20) % 2, classes=("a", "b"))
    assert (
        fingerprint(FewLabels(whole, 4, seed=0))
        == fingerprint(FewLabels(whole, 4, seed=1))
        == fingerprint(whole)
    )
    part = take_part(take_part(whole, "train[10:]"), "train[5:]")
    assert fingerprint(part) == fingerprint(Subset(whole, range(15, 20)))
    assert compare(fingerprint(part), fingerprint(Subset(whole, range(14, 19))))


def test_arrays_and_rows_of_tables_are_compared_by_number_and_content():
    images = RNG.integers(0, 255, (500, 2, 2), np.uint8)
    source = ArraySource(images)
    assert fingerprint(source) == fingerprint(ArraySource(images.copy(), name="other"))
    assert str(compare(fingerprint(source), fingerprint(ArraySource(images[:499])))).startswith(
        "499 images where"
    )
    assert str(compare(fingerprint(source), fingerprint(ArraySource(images[::-1])))) == "other content"


def test_clips_of_other_lengths_are_others():
    frames = ArraySource(RNG.integers(0, 255, (8, 2, 2), np.uint8))
    found = [fingerprint(Clips(frames, lengths, window=2, stride=1)) for lengths in ([4, 4], [3, 5])]
    assert str(compare(*found)) == "other names, or another order"


def test_clips_in_a_folder(tmp_path):
    write(tmp_path, *(f"{clip}/{frame}.png" for clip in ("a", "b") for frame in range(3)))
    options = {"kind": "frames", "window": 2}
    assert not compare(taken(tmp_path, **options), taken(tmp_path, **options))
    changes = changes_of(tmp_path, lambda: write(tmp_path, "b/3.png"), **options)
    assert str(changes) == "1 added, such as b/3.png"


class Table(ArraySource):
    """Rows that come from files, some of which cannot be read."""

    files = (("a.parquet", 100), ("b.parquet", 200))

    def __getitem__(self, index):
        if index == 1:
            raise CorruptImage(self.file_name(index), "null")
        return super().__getitem__(index)


def test_files_of_a_table_are_named():
    images = RNG.integers(0, 255, (6, 2, 2), np.uint8)
    one, other = Table(images), Table(np.concatenate([images, images]))
    other.files = (*one.files, ("c.parquet", 50))
    assert fingerprint(one).names == ("a.parquet", "b.parquet")
    assert (
        str(compare(fingerprint(one), fingerprint(other)))
        == "1 added, such as c.parquet, 12 images where there were 6"
    )
    other = Table(images)
    other.files = (one.files[0], ("b.parquet", 201))
    assert str(compare(fingerprint(one), fingerprint(other))) == "1 of another size, such as b.parquet"


def test_a_folder_of_parquet_files_may_be_moved_and_its_files_are_named(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write_table(folder, number, rows):
        cells = [{"bytes": encode(RNG.integers(0, 255, (8, 8), np.uint8)), "path": ""} for _ in range(rows)]
        folder.mkdir(exist_ok=True)
        parquet.write_table(
            pyarrow.table({"image": cells, "label": [0, 1] * (rows // 2)}), folder / f"train-{number}.parquet"
        )

    def take(folder):
        return fingerprint(open_source(f"parquet:{folder}", cache_dir=tmp_path / "cache"))

    write_table(tmp_path / "set", 0, 4)
    before = take(tmp_path / "set")
    shutil.move(tmp_path / "set", tmp_path / "moved")
    assert take(tmp_path / "moved") == before
    write_table(tmp_path / "moved", 1, 6)
    changes = compare(before, take(tmp_path / "moved"))
    assert str(changes) == "1 added, such as train-1.parquet, 10 images where there were 4"


def test_more_names_than_are_listed_are_compared_all_the_same(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_LISTED", 5)
    before = taken(folder)
    assert before.names is None and before.sizes is None
    assert str(changes_of(folder, lambda: write(folder, "cat/6.png"))) == "13 images where there were 12"
    moved = changes_of(folder, lambda: (folder / "cat/6.png").rename(folder / "cat/7.png"))
    assert str(moved) == "other names, or another order"
    resized = changes_of(folder, lambda: (folder / "cat/7.png").write_bytes(b"x"))
    assert str(resized) == "other sizes"


def test_sizes_are_looked_at_of_some_where_there_are_many(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_SIZES", 4)
    sizes = taken(folder).sizes
    assert sum(size != module.UNKNOWN for size in sizes) == 4 and sizes[0] > 0 and sizes[-1] > 0


def test_it_is_packed_and_unpacked(folder):
    write(folder, "café/a b.png", "cat/line\nbreak.png")
    found = taken(folder)
    assert Fingerprint.from_bytes(found.to_bytes()) == found
    assert found.to_bytes() == found.to_bytes()


@pytest.mark.skipif(os.name != "posix", reason="names that are no text")
def test_names_that_are_no_text_are_packed_and_shown(tmp_path):
    write(tmp_path, *NAMES)
    before = taken(tmp_path)
    (tmp_path / os.fsdecode(b"cat/\xff\xfe.png")).write_bytes(encode(np.zeros((8, 8), np.uint8)))
    after = Fingerprint.from_bytes(taken(tmp_path).to_bytes())
    assert after == taken(tmp_path)
    assert str(compare(before, after)) == r"1 added, such as cat/\xff\xfe.png"


def packed(text):
    return gzip.compress(text.encode())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content, text: b"",
        lambda content, text: b"{}",
        lambda content, text: content[:-20],
        lambda content, text: packed("[]"),
        lambda content, text: packed("[" * 100_000),
        lambda content, text: packed('{"num_images": 1}'),
        lambda content, text: packed(text.replace('"num_images": 2', '"num_images": "2"')),
        lambda content, text: packed(text.replace('"names": null', '"names": 3')),
        lambda content, text: packed(text.replace('"names": null', '"names": []')),
    ],
)
def test_what_is_no_fingerprint_is_refused(spoil):
    content = fingerprint(ArraySource(np.zeros([2, 2, 2], np.uint8))).to_bytes()
    with pytest.raises(ValueError, match="no fingerprint of images"):
        Fingerprint.from_bytes(spoil(content, gzip.decompress(content).decode()))
