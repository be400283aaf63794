import logging
import os
import time

import pytest

from ssl_jax.data import listing, listing_cache
from ssl_jax.data.listing import list_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose list is kept as soon as it has three images, a cache of its own, and a clock that does not wait."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "CACHED", 3)
    monkeypatch.setattr(listing_cache, "SETTLED", 0)
    root = tmp_path / "images"
    for name in (
        "cat/1.png",
        "cat/inner/2.png",
        "dog/3.png",
        "dog/notes.txt",
        "dog/\udcff.png",
        ".hidden/4.png",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    time.sleep(0.05)
    return root


def kept_lists():
    return list(listing_cache.cache_folder().glob("*")) if listing_cache.cache_folder().exists() else []


def refuse_to_scan(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the folder was listed again")

    monkeypatch.setattr(listing, "_list_below", refuse)


def as_dict(found):
    return {**vars(found), "folders": None, "left_out": {k: vars(part) for k, part in found.left_out.items()}}


@pytest.mark.parametrize(("start", "beside"), [("", ()), ("cat", ("dog",))])
def test_a_kept_list_is_the_list(folder, monkeypatch, caplog, start, beside):
    monkeypatch.setattr(listing, "CACHED", 1)
    first = list_files(folder, start, beside=beside)
    assert len(kept_lists()) == 1
    refuse_to_scan(monkeypatch)
    with caplog.at_level(logging.INFO, "ssl_jax"):
        again = list_files(folder, start, beside=beside)
    assert as_dict(again) == as_dict(first)
    assert again.counts == first.counts
    assert again.left_out["a new reason"].count == 0
    assert "taken from the cache" in caplog.text


def add(root):
    (root / "cat/inner/9.png").write_bytes(b"")


def remove(root):
    (root / "dog/3.png").unlink()


def rename(root):
    (root / "cat/1.png").rename(root / "cat/5.png")


def add_folder(root):
    (root / "new").mkdir()
    (root / "new/6.png").write_bytes(b"")


def replace_folder(root):
    """By another with the same time of its last change."""
    status = os.stat(root / "dog")
    (root / "dog").rename(root.parent / "old")
    (root / "dog").mkdir()
    (root / "dog/8.png").write_bytes(b"")
    os.utime(root / "dog", ns=(status.st_atime_ns, status.st_mtime_ns))


def set_back_the_time(root):
    status = os.stat(root / "cat")
    (root / "cat/7.png").write_bytes(b"")
    os.utime(root / "cat", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [add, remove, rename, add_folder, replace_folder, set_back_the_time])
def test_a_folder_that_has_changed_is_listed_again(folder, monkeypatch, change):
    before = list_files(folder).names
    change(folder)
    monkeypatch.setattr(listing, "CACHED", 10**9)
    after = list_files(folder).names
    assert after != before
    for path in kept_lists():
        path.unlink()
    assert after == list_files(folder).names


def test_other_rules_make_another_list(folder, monkeypatch):
    list_files(folder)
    monkeypatch.setattr(listing, "SUFFIXES", {*listing.SUFFIXES, ".txt"})
    assert "dog/notes.txt" in list_files(folder).names


@pytest.mark.parametrize("damage", [lambda old: old[:-5], lambda old: b"", lambda old: b"\xff" * 40])
def test_a_damaged_list_is_made_again(folder, damage):
    names = list_files(folder).names
    (path,) = kept_lists()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    time.sleep(0.05)
    assert list_files(folder).names == names
    assert path.read_bytes() == whole


def test_a_folder_that_has_just_changed_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(listing_cache, "SETTLED", 10**12)
    list_files(folder)
    assert not kept_lists()


def test_small_folders_and_broken_links_are_not_kept(folder, monkeypatch):
    (folder / "dog/nowhere.png").symlink_to("gone.png")
    time.sleep(0.05)
    assert list_files(folder).broken == ["dog/nowhere.png"]
    assert not kept_lists()
    (folder / "dog/nowhere.png").unlink()
    time.sleep(0.05)
    monkeypatch.setattr(listing, "CACHED", 5)
    list_files(folder)
    assert not kept_lists()


def test_a_cache_that_cannot_be_written_is_done_without(folder, monkeypatch):
    (folder.parent / "cache").write_bytes(b"a file")
    assert len(list_files(folder).names) == 4
    assert len(list_files(folder).names) == 4


def test_the_lists_that_were_not_used_for_longest_are_deleted(folder, monkeypatch):
    monkeypatch.setattr(listing_cache, "MOST_LISTS", 2)
    monkeypatch.setattr(listing, "CACHED", 1)
    list_files(folder, "cat")
    (oldest,) = kept_lists()
    os.utime(oldest, (1, 1))
    list_files(folder, "dog")
    list_files(folder)
    assert len(kept_lists()) == 2
    assert oldest not in kept_lists()


def test_progress_is_shown_where_it_takes_long(folder, monkeypatch, caplog):
    monkeypatch.setattr(listing, "_SAID", 0.0)
    with caplog.at_level(logging.INFO, "ssl_jax"):
        list_files(folder)
    assert "listing: 0 images in 1 folders so far" in caplog.text
