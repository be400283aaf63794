"""Folders: splits, one table of classes for all of them, and what is left out and said."""

import os
from pathlib import Path

import numpy as np
import pytest

from ssl_jax.data import listing
from ssl_jax.data.files import identify_bytes
from ssl_jax.data.folder import open_folder
from ssl_jax.data.listing import SYSTEM_FOLDERS, holds_image, list_files
from ssl_jax.data.sources import Source
from tests.data.images import encode

GRAY = np.full([6, 7], 90, np.uint8)
PNG, JPEG = encode(GRAY), encode(GRAY, "JPEG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def write(root: Path, *names: str, data: bytes = PNG, count: int = 1) -> Path:
    """Write image files; a name that ends in a slash is a folder, of ``count`` images."""
    for name in names:
        for path in [root / name / f"{i}.png" for i in range(count)] if name[-1] == "/" else [root / name]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def names_by_label(source: Source) -> dict[str, str | None]:
    """Name of the class of each file, by the table of the source."""
    labels = [source[i]["label"] for i in range(len(source))]
    names = [None if label < 0 else source.classes[label] for label in labels]
    return dict(zip([source.file_name(i) for i in range(len(source))], names, strict=True))


def said(source: Source) -> str:
    return "\n".join(source.notes)  # type: ignore[attr-defined]


# Classes of several splits


SPLITS = {
    "lacks one": ({"train": "abc", "val": "ac"}, "abc"),
    "lacks the first": ({"train": "abc", "val": "bc"}, "abc"),
    "has another": ({"train": "ac", "val": "abc"}, "abc"),
    "nothing shared": ({"train": "ac", "val": "bd"}, "abcd"),
    "three": ({"train": "ab", "val": "bc", "test": "ad"}, "abcd"),
    "one class": ({"train": "b", "test": "ab"}, "ab"),
    "one other class": ({"train": "ab", "test": "c"}, "abc"),
}


@pytest.mark.parametrize("folders, classes", SPLITS.values(), ids=SPLITS)
def test_all_splits_have_one_table_of_classes_and_labels_mean_the_folder(tmp_path, folders, classes):
    write(tmp_path, *(f"{split}/{c}/" for split, names in folders.items() for c in names), count=2)
    for split in folders:
        source = open_folder(tmp_path, split)
        assert source.classes == tuple(classes)
        assert all(name == file.split("/")[1] for file, name in names_by_label(source).items())
        part = open_folder(tmp_path, f"{split}[:50%]")
        assert part.classes == source.classes and part.notes == source.notes
        for other in folders:
            alone = set(folders[other]).difference(*(set(v) for k, v in folders.items() if k != other))
            assert (f"only {other} has the class" in said(source)) == bool(alone)


def test_a_class_that_some_splits_lack_is_said(tmp_path):
    write(tmp_path, *(f"train/{c}/" for c in "abc"), *(f"val/{c}/" for c in "abc"), "test/b/", "test/c/")
    for split in ("train", "val", "test"):
        assert (
            said(open_folder(tmp_path, split)) == "splits: test, train, val\ntest has no image of the class a"
        )


@pytest.mark.parametrize(
    "files", [["val/x.png", "val/y.png"], ["val/images/x.png"], ["val/Images/deep/x.png"]]
)
def test_a_split_without_folders_of_classes_has_no_labels_and_this_is_said(tmp_path, files):
    write(tmp_path, "train/cat/", "train/dog/", *files)
    train, val = open_folder(tmp_path, "train"), open_folder(tmp_path, "val")
    assert train.classes == val.classes == ("cat", "dog")
    assert set(names_by_label(val).values()) == {None}
    assert "have no label" in said(train) and "val" in said(train) and said(val) == said(train)


def test_the_sub_folders_of_a_split_unlabeled_are_no_classes(tmp_path):
    write(tmp_path, "train/cat/", "train/dog/", "unlabeled/part1/", "unlabeled/part2/", "unlabeled/dog/")
    source = open_folder(tmp_path, "unlabeled")
    assert source.classes == ("cat", "dog") and list(names_by_label(source).values()) == ["dog", None, None]
    assert "unlabeled: images in part1, part2, no class of the other splits, have no label" in said(source)


def test_an_image_beside_the_classes_of_a_split_has_no_label(tmp_path):
    write(tmp_path, "train/cat/", "train/dog/", "val/cat/", "val/dog/", "val/x.png")
    val = open_folder(tmp_path, "val")
    expected = {"val/cat/0.png": "cat", "val/dog/0.png": "dog", "val/x.png": None}
    assert names_by_label(val) == expected
    assert "val: images that lie in no class's folder, such as val/x.png, have no label" in said(val)


def test_images_beside_the_only_folders_take_their_labels_and_this_is_said(tmp_path):
    source = open_folder(write(tmp_path, "cat/", "dog/", "x.png"))
    assert source.classes == () and "no labels, as images lie beside the sub-folders, such as x.png" in said(
        source
    )


def test_a_class_without_images_in_a_split_is_said(tmp_path):
    write(tmp_path, "train/a/", "train/b/", "val/a/", "val/b/", "val/c/")
    (tmp_path / "train" / "c").mkdir()
    (tmp_path / "val" / "nothing").mkdir()
    train, val = open_folder(tmp_path, "train"), open_folder(tmp_path, "val")
    assert train.classes == val.classes == ("a", "b", "c")
    assert "sub-folders without an image in train: c" in said(train)
    assert "sub-folders without an image in val: nothing" in said(val)


@pytest.mark.parametrize(
    "one, other", [("Cat", "cat"), ("cat", "cat "), ("caf\u00e9", "cafe\u0301"), ("a b", "a  b")]
)
def test_names_that_differ_in_form_only_are_two_classes_and_said(tmp_path, one, other):
    write(tmp_path, f"train/{one}/", "train/x/", f"val/{other}/", "val/x/")
    source = open_folder(tmp_path, "val")
    assert len(source.classes) == 3 and names_by_label(source)[f"val/{other}/0.png"] == other
    assert "are different classes, though only capitals, blanks or the form of accents differ" in said(source)


def test_numbers_as_names_of_classes_are_said(tmp_path):
    source = open_folder(write(tmp_path, *(f"{i}/" for i in range(11))))
    assert source.classes[2] == "10" and "folder 10 has label 2" in said(source)
    write(tmp_path / "few", *(f"{i}/" for i in range(9)))
    assert said(open_folder(tmp_path / "few")) == ""


# Splits


NAMES_OF_SPLITS = ("train", "Test", "val", "DEV", "training", "unlabeled")


@pytest.mark.parametrize("name", NAMES_OF_SPLITS)
@pytest.mark.parametrize("inner", ["", "day/"])
def test_a_class_with_the_name_of_a_split_is_a_class_among_others(tmp_path, name, inner):
    write(tmp_path, *(f"{c}/{inner}" for c in ("bus", name, "tram")), count=10)
    source = open_folder(tmp_path)
    assert len(source) == 30 and source.classes == tuple(sorted(("bus", name, "tram")))
    assert all(c == file.split("/")[0] for file, c in names_by_label(source).items())
    assert f"warning: {name} is the name of a split, but bus, tram beside it are none" in said(source)
    for split in {"test", "val", name} - {"train"}:
        with pytest.raises(
            ValueError, match=rf"split='{split}': .* has no splits: {name} is the name .* bus, tram"
        ):
            open_folder(tmp_path, split)


def test_splits_are_none_where_images_lie_beside_them(tmp_path):
    write(tmp_path, "train/a/", "train/b/", "val/a/", "x.png")
    source = open_folder(tmp_path)
    assert len(source) == 4 and "images lie beside them, such as x.png" in said(source)
    with pytest.raises(ValueError, match=r"split='val': .* images lie beside them, such as x.png: move"):
        open_folder(tmp_path, "val")


def test_what_holds_no_image_does_not_hide_splits(tmp_path):
    write(tmp_path, "train/a/", "train/b/", "val/a/", ".hidden/", "@eaDir/", ".x.png")
    write(tmp_path, "labels/a.xml", "readme.txt", data=b"text")
    (tmp_path / "empty").mkdir()
    source = open_folder(tmp_path)
    assert len(source) == 2
    for sentence in (
        "splits: train, val",
        "beside the splits: empty, labels",
        "1 .txt, such as readme.txt",
        "@eaDir",
    ):
        assert sentence in said(source)


def test_folders_of_files_that_are_not_read_are_counted_beside_the_one_that_is_taken_for_a_split(tmp_path):
    write(tmp_path, "train/", count=3)
    write(tmp_path, *(f"{c}/{i}.heic" for c in ("bus", "tram") for i in range(4)), data=HEIC)
    source = open_folder(tmp_path)
    assert len(source) == 3 and "beside the splits: bus, tram" in said(source)
    assert "left out 8 files: 8 .heic, such as bus/0.heic (not read: convert" in said(source)
    assert "warning: more files are left out (8) than read (3)" in said(source)


def test_an_empty_folder_with_the_name_of_a_split_is_no_split_among_classes(tmp_path):
    write(tmp_path, "cat/", "dog/").joinpath("test").mkdir()
    source = open_folder(tmp_path)
    assert source.classes == ("cat", "dog") and said(source) == "sub-folders without an image: test"
    with pytest.raises(ValueError, match="has no splits"):
        open_folder(tmp_path, "test")


def test_a_split_of_another_name_is_one_where_all_others_are(tmp_path):
    write(tmp_path, "train/a/", "train/b/", "held/b/")
    held = open_folder(tmp_path, "held")
    assert held.classes == ("a", "b") and names_by_label(held) == {"held/b/0.png": "b"}
    assert "held is no usual name of a split" in said(held)
    for split in ("train", "held"):
        source = open_folder(tmp_path, split, splits=["held"])
        assert source.classes == ("a", "b") and "usual" not in said(source)
    write(tmp_path, "more/a/")
    with pytest.raises(
        ValueError, match=r"split='held': .* held, train are names of splits, but more beside them is none"
    ):
        open_folder(tmp_path, "held")
    with pytest.raises(
        ValueError, match=r"split='cat': .* cat is no usual name of one, but dog beside it is none"
    ):
        open_folder(write(tmp_path / "pets", "cat/", "dog/"), "cat")


def test_splits_are_found_in_any_case_and_two_of_one_name_are_said(tmp_path):
    write(tmp_path, "Train/a/", "Train/b/", "VAL/a/", count=2)
    assert len(open_folder(tmp_path, "train")) == 4 and len(open_folder(tmp_path, "val[:1]")) == 1
    write(tmp_path, "train/c/")
    source = open_folder(tmp_path, "train")
    assert set(names_by_label(source)) == {"train/c/0.png"} and source.classes == ("a", "b", "c")
    assert "warning: Train, train are different folders with the name of one split" in said(source)
    with pytest.raises(ValueError, match="has Train, VAL, train; give one of these"):
        open_folder(tmp_path, "TRAIN")


def test_splits_below_the_top_are_said(tmp_path):
    classes_first = open_folder(write(tmp_path / "a", "cat/train/", "cat/test/", "dog/train/"))
    assert len(classes_first) == 3
    assert "warning: sub-folders test, train inside of cat, dog are read together" in said(classes_first)
    assert "inside of images are read together" in said(
        open_folder(write(tmp_path / "b", "images/train/", "images/val/"))
    )
    with pytest.raises(
        ValueError, match=r"split='val': .*images has a sub-folder val: .* give folder:.*b/images;"
    ):
        open_folder(tmp_path / "b", "val")


# What is left out


def test_what_is_left_out_is_counted_with_an_example_and_what_to_do(tmp_path):
    write(tmp_path, "a/", count=3)
    for i in range(100):
        write(tmp_path, f"a/{i:03d}.HEIC", data=HEIC)
    for i in range(50):
        write(tmp_path, f"b/{i}.avif", data=b"\0\0\0\x1cftypavif")
        write(tmp_path, f"b/n{i}", data=JPEG)
    source = open_folder(tmp_path)
    notes = source.notes  # type: ignore[attr-defined]
    assert len(source) == 3 and source.ignored == {".avif": 50, ".heic": 100, "no suffix": 50}  # type: ignore[attr-defined]
    assert notes[0] == (
        "left out 200 files: 100 .heic, such as a/000.HEIC (not read: convert to JPEG or PNG); "
        "50 .avif, such as b/0.avif (not read: convert to JPEG or PNG); "
        "50 without suffix, such as b/n0 (images by their content, JPEG: rename to end in .jpg)"
    )
    assert notes[1] == "warning: more files are left out (200) than read (3)"
    assert "sub-folders without an image: b" in notes


@pytest.mark.parametrize(
    "name, data, hint",
    [
        ("x.jpg~", JPEG, "(images by their content, JPEG: rename to end in .jpg)"),
        ("x.heic", PNG, "(images by their content, PNG: rename to end in .png)"),
        ("x", HEIC, "(HEIC by content, not read: convert to JPEG or PNG)"),
        ("x.nef", b"II*\0" + bytes(30), "(not read: convert to JPEG or PNG)"),
        ("x.zip", b"PK", "(unpack it)"),
        ("x.mp4", b"", "(films are not read: write their frames as images)"),
        ("x.txt", b"text", None),
        ("x", b"", None),
    ],
)
def test_files_that_may_be_images_are_looked_into(tmp_path, name, data, hint):
    write(write(tmp_path, "a.png"), name, data=data)
    (note,) = open_folder(tmp_path).notes  # type: ignore[attr-defined]
    assert note.endswith(hint or f"such as {name}")


def test_a_folder_without_images_says_what_there_is_instead(tmp_path):
    write(tmp_path, "a/x.heic", "a/y.heic", data=HEIC)
    with pytest.raises(ValueError, match=r"it has 2 other files: 2 .heic\..*convert to JPEG or PNG"):
        open_folder(tmp_path)


SYSTEM = (
    "@eaDir",
    "$RECYCLE.BIN",
    "lost+found",
    "#recycle",
    "System Volume Information",
    "__MACOSX",
    ".ipynb_checkpoints",
)


@pytest.mark.parametrize("start", ["", "train/"])
def test_what_the_system_puts_among_images_is_never_read(tmp_path, start):
    write(tmp_path, f"{start}cat/", f"{start}dog/", *(f"{start}{name}/" for name in SYSTEM))
    write(
        tmp_path,
        *(
            f"{start}cat/{name}"
            for name in ("@eaDir/SYNO.jpg", "._x.jpg", ".DS_Store", "Thumbs.db", "desktop.ini")
        ),
    )
    source = open_folder(tmp_path)
    assert source.classes == ("cat", "dog") and len(source) == 2
    assert source.ignored == {"hidden": 2, "hidden folder": 1, "system file": 2, "system folder": 7}  # type: ignore[attr-defined]
    assert "left out 4 files and 8 folders: 7 system folders, such as" in said(
        source
    ) and "warning" not in said(source)


def test_names_like_those_of_the_system_are_classes(tmp_path):
    names = ("@ead", "recycle", "lost", "found", "thumbs.db", "macosx")
    assert not SYSTEM_FOLDERS & set(names)
    source = open_folder(write(tmp_path, *(f"{name}/" for name in names)))
    assert source.classes == tuple(sorted(names)) and said(source) == ""


def test_links_are_said(tmp_path):
    write(tmp_path, "a/", "b/")
    (tmp_path / "a" / "gone.png").symlink_to("/nowhere/x.png")
    (tmp_path / "c").symlink_to("/nowhere/c")
    (tmp_path / "d").symlink_to(tmp_path / "b")
    (tmp_path / "e").symlink_to("e")
    source = open_folder(tmp_path)
    assert len(source) == 3 and source.classes == ("a", "b")
    for sentence in (
        "2 broken links, such as c",
        "1 broken link, such as a/gone.png: each counts as a corrupt image",
        "1 link to folders that are read already and not again, such as d (read as b)",
    ):
        assert sentence in said(source)
    assert "without an image" not in said(source)


def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    write(tmp_path, "a/", "b/", "locked/")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    source = open_folder(tmp_path)
    assert source.classes == ("a", "b")
    assert "warning: 1 folder that cannot be read, such as locked: Permission denied" in said(source)


def test_an_image_of_another_format_behind_its_suffix_is_said(tmp_path):
    write(write(tmp_path, "a.png"), "b.jpg", data=HEIC)
    assert "1 of 2 images looked at cannot be read, such as b.jpg: " in said(open_folder(tmp_path))
    assert said(open_folder(tmp_path)).endswith("(HEIC by content: convert to JPEG or PNG)")


def test_formats_are_told_by_their_first_bytes():
    images = {kind: encode(GRAY, kind)[:32] for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}
    assert {kind: identify_bytes(head) for kind, head in images.items()} == {kind: kind for kind in images}
    assert [identify_bytes(head) for head in (b"", b"P", b"BM", b"RIFF", b"P5 is a text", bytes(32))] == [
        None
    ] * 6


def test_names_of_what_is_left_out_cannot_write_on_the_terminal(tmp_path):
    write(write(tmp_path, "a/", "b/"), "a/x\x1b[2J", "e\x1b[2J\nx/y.txt", data=b"")
    assert all(note.isprintable() for note in open_folder(tmp_path).notes)  # type: ignore[attr-defined]


def test_a_look_for_an_image_ends_at_the_first_and_in_loops(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "loop").symlink_to(tmp_path)
    assert not holds_image(tmp_path)
    write(tmp_path, "a/x.png")
    assert (
        holds_image(tmp_path) and holds_image(tmp_path, depth=2) and not holds_image(tmp_path / "a", depth=2)
    )
    assert list_files(tmp_path).names == ["a/x.png"]
