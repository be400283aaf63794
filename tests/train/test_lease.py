"""The lock of a folder in a bucket, on a store that is a dict: who holds it, who may take it, what a lost one does."""

import contextlib
import json
import os
import threading

import pytest

from ssl_jax.core.bucket import BucketPath, describe, to_path
from ssl_jax.core.files import write_atomically
from ssl_jax.train import lease as module
from ssl_jax.train.lease import Lease, WorkdirInUseError
from ssl_jax.train.workdir import Workdir, read_config, workdir_path
from ssl_jax.train.writers import JsonlWriter, read_jsonl

ELSEWHERE = {"pid": 7, "host": "far", "machine": "another boot", "started": "1", "token": "theirs"}


class Objects:
    """The methods of a file system of fsspec that are used, on a dict. ``conditional``: whether it knows conditions."""

    def __init__(self, *, conditional=True):
        self.content, self.conditional, self.hidden = {}, conditional, set()
        self.lock = threading.Lock()

    def _names(self, path):
        prefix = path.partition("://")[2].rstrip("/") + "/"
        return [name for name in sorted(self.content) if name.startswith(prefix) and name not in self.hidden]

    def isfile(self, path):
        return path.partition("://")[2] in self.content

    def isdir(self, path):
        return bool(self._names(path))

    def exists(self, path):
        return self.isfile(path) or self.isdir(path)

    def ls(self, path, detail):
        root = path.partition("://")[2].rstrip("/")
        if not self.isdir(path):
            raise FileNotFoundError(path)
        return sorted({f"{root}/{name[len(root) + 1 :].split('/')[0]}" for name in self._names(path)})

    def cat_file(self, path):
        try:
            return self.content[path.partition("://")[2]]
        except KeyError:
            raise FileNotFoundError(path) from None

    def pipe_file(self, path, data, mode="overwrite"):
        with self.lock:
            if mode == "create" and self.conditional and self.isfile(path):
                raise FileExistsError(path)
            self.content[path.partition("://")[2]] = data

    def find(self, path):
        return self._names(path)

    def rm(self, names):
        for name in names:
            del self.content[name]

    def cp_file(self, source, target):
        self.content[target.partition("://")[2]] = self.content[source]


@pytest.fixture
def objects(monkeypatch):
    found = Objects()
    monkeypatch.setattr(BucketPath, "files", property(lambda path: found))
    return found


def held(number=1, **more):
    return {f"runs/a/.lock/{number:06d}": json.dumps({**ELSEWHERE, **more}).encode()}


def test_a_folder_is_held_by_one_until_it_lets_go(objects):
    with Workdir("gs://runs/a") as workdir:
        workdir.configure({"steps": 1})
        with pytest.raises(WorkdirInUseError, match=f"gs://runs/a is in use by process {os.getpid()} on "):
            Workdir("gs://runs/a")
        Workdir("gs://runs/a", primary=False).close()
        Workdir("gs://runs/b").close()
    assert read_config("gs://runs/a") == {"steps": 1}
    with Workdir("gs://runs/a") as workdir:
        assert workdir.configure({"steps": 1}) == []
    assert len([name for name in objects.content if name.startswith("runs/a/.lock/")]) == 2


def test_of_many_that_start_at_once_one_gets_the_folder(objects):
    found, barrier = [], threading.Barrier(8)

    def start():
        barrier.wait()
        with contextlib.suppress(WorkdirInUseError):
            found.append(Lease(to_path("gs://runs/a")))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    found[0].close()


def test_a_holder_elsewhere_that_renews_is_alive_and_one_that_does_not_is_gone(objects):
    objects.content |= held()
    timer = threading.Timer(0.1, lambda: objects.content.update(held(renewed=1)))
    timer.start()
    with pytest.raises(WorkdirInUseError, match="process 7 on far"):
        Lease(to_path("gs://runs/a"), seconds=30)
    timer.join()
    Lease(to_path("gs://runs/a"), seconds=0.2).close()
    objects.content |= held(3)
    objects.content |= held(3, released=True)
    Lease(to_path("gs://runs/a"), seconds=30).close()


def test_a_process_of_this_machine_that_has_ended_is_gone_at_once(objects):
    mine = {"machine": module._machine(), "started": "1", "pid": os.getpid()}
    objects.content |= held(**mine)  # the number is that of a later process
    Lease(to_path("gs://runs/a"), seconds=3600).close()


def test_a_listing_that_shows_no_lock_lets_nobody_in(objects):
    with Workdir("gs://runs/a"):
        objects.hidden |= set(objects.content)
        with pytest.raises(WorkdirInUseError):
            Workdir("gs://runs/a")


def test_an_answer_that_was_lost_is_no_second_holder(objects, monkeypatch):
    """The request was carried out, and made again by the library."""
    original = Objects.pipe_file

    def twice(self, path, data, mode="overwrite"):
        original(self, path, data, mode)
        if mode == "create":
            original(self, path, data, mode)

    monkeypatch.setattr(Objects, "pipe_file", twice)
    Lease(to_path("gs://runs/a"), seconds=3600).close()


def test_a_store_without_conditions_is_a_warning(objects):
    objects.conditional = False
    with pytest.warns(UserWarning, match="gs://runs/a is in a store without locks: start one run only"):
        workdir = Workdir("gs://runs/a")
    workdir.close()


def test_a_holder_that_was_replaced_ends_without_another_write(objects, monkeypatch, capsys):
    ended = threading.Event()

    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    lease = Lease(to_path("gs://runs/a"), seconds=0.3)
    before = dict(objects.content)
    objects.content |= held(2)
    assert ended.wait(10)
    lease._thread.join()
    assert "process 7 on far has taken over gs://runs/a" in capsys.readouterr().err
    assert len(objects.content) == len(before) + 1


def test_a_forked_child_does_not_give_the_lock_back(objects):
    lease = Lease(to_path("gs://runs/a"))
    lease._holder["pid"] += 1  # as in a child
    lease.close()
    assert b"released" not in next(iter(objects.content.values()))
    lease._holder["pid"] -= 1
    lease.close()
    assert b"released" in next(iter(objects.content.values()))


def test_records_are_in_the_bucket_after_flush_and_go_on_after_a_kill(objects):
    path = to_path("gs://runs/a/metrics.jsonl")
    writer = JsonlWriter(path)
    for step in range(1, 4):
        writer.write(step, {"loss": 1.0})
    writer.flush()
    assert [record["step"] for record in read_jsonl(path)] == [1, 2, 3]
    writer.write(4, {"loss": 1.0})  # never published: the process is killed
    again = JsonlWriter(path, resume_step=3)
    again.write(3, {"loss": 2.0})
    again.close()
    assert [(r["step"], r["loss"]) for r in read_jsonl(path)] == [(1, 1.0), (2, 1.0), (3, 2.0)]
    writer._file._ended.set()


def test_paths_of_buckets_behave_as_paths(objects):
    path = workdir_path("s3://runs//a/")
    assert str(path) == "s3://runs/a" and str(path / "b" / "c.json") == "s3://runs/a/b/c.json"
    write_atomically(path / "b" / "c.json", "é")
    assert (path / "b" / "c.json").read_text() == "é" and (path / "b").is_dir() and not path.is_file()
    assert [str(found) for found in path.iterdir()] == ["s3://runs/a/b"]
    assert list(path.glob("*/c.*")) == [path / "b" / "c.json"] and not list((path / "none").glob("*"))
    path.rename("s3://runs/d")
    assert list(objects.content) == ["runs/d/b/c.json"] and not path.exists()
    with pytest.raises(FileNotFoundError, match="s3://runs/a/none"):
        (path / "none").read_text()


@pytest.mark.parametrize(
    "path", ["gs://", "s3://runs", "s3://key:hunter2@runs/a", "gs://runs/../a", "gs://runs/a?b"]
)
def test_what_is_no_folder_of_a_bucket_is_refused(path):
    with pytest.raises(ValueError, match=r"allowed|missing") as told:
        workdir_path(path)
    assert "hunter2" not in str(told.value)


def test_messages_of_a_store_show_no_signature():
    said = describe(OSError("403: https://x/y?X-Amz-Credential=AKIA&X-Amz-Signature=abc access_token=ya29.z"))
    assert all(secret not in said for secret in ("AKIA", "abc", "ya29"))


def test_errors_of_a_store_are_lines_that_name_the_object(objects, monkeypatch):
    class HttpError(Exception):
        code = 503

    def fail(self, path):
        raise HttpError("busy\nmore")

    monkeypatch.setattr(Objects, "cat_file", fail)
    with pytest.raises(OSError, match=r"HttpError: busy: 'gs://runs/a/b'$"):
        to_path("gs://runs/a/b").read_bytes()
