"""The cache of what was fetched: its bound, its order, damage, full disks, and processes that are killed in the middle."""

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssl_jax.data.file_cache import DIGEST, SIZE, FileCache, data_cache, key_of


def content_of(number, size=1000):
    return random.Random(number).randbytes(size)


def must_not_fetch():
    raise AssertionError("it is there")


def test_the_least_recently_used_goes_first(tmp_path):
    cache = FileCache(tmp_path, 5 * (1000 + DIGEST))
    for i in range(5):
        cache.read(key_of(i), 1000, lambda i=i: content_of(i))
        os.utime(cache._path(key_of(i)), ns=(i, i))
    assert cache.read(key_of(0), 1000, must_not_fetch) == content_of(0)
    cache.read(key_of(5), 1000, lambda: content_of(5))
    assert [cache._path(key_of(i)).exists() for i in range(6)] == [True, False, False, True, True, True]
    assert cache.used_bytes() <= cache.max_bytes


def test_the_bound_holds_at_every_moment(tmp_path):
    cache = FileCache(tmp_path, 20_000)
    rng = random.Random(0)
    for i in range(60):
        size = rng.randrange(1, 6000)

        def fetch(i=i, size=size):
            assert cache.used_bytes() <= cache.max_bytes  # with room for this one already taken
            return content_of(i, size)

        assert cache.read(key_of(i), size, fetch) == content_of(i, size)
        assert cache.used_bytes() <= cache.max_bytes
    assert cache.used_bytes() > 5_000
    assert cache.read(key_of("large"), 30_000, lambda: content_of(0, 30_000)) == content_of(0, 30_000)
    with pytest.raises(ValueError, match=rf"{SIZE}: the cache .* allow more"):
        cache.open(key_of("large"), 30_000, lambda file: None)


def test_who_finds_no_room_waits_until_others_have_finished(tmp_path):
    cache = FileCache(tmp_path, 2500)
    used = []

    def write(file):
        time.sleep(0.03)
        used.append(cache.used_bytes())
        file.write(content_of(0))

    with ThreadPoolExecutor(6) as pool:
        files = list(pool.map(lambda i: cache.open(key_of(i), 1000, write), range(6)))
    assert len(used) == 6 and max(used) == 2000
    for file in files:
        assert file.read() == content_of(0)
        file.close()


def test_a_damaged_copy_is_fetched_again(tmp_path):
    cache = FileCache(tmp_path, 10**6)
    key = key_of("a")
    for damage in (
        lambda b: b[:-1],
        lambda b: b"",
        lambda b: b"\0" * len(b),
        lambda b: b[:9] + b"x" + b[10:],
    ):
        assert cache.read(key, 1000, lambda: content_of(1)) == content_of(1)
        path = cache._path(key)
        path.write_bytes(damage(path.read_bytes()))
        assert cache.read(key, 1000, lambda: content_of(1)) == content_of(1)
        assert cache.read(key, 1000, must_not_fetch) == content_of(1)
    with cache.open(key_of("b"), 4, lambda file: file.write(b"abcd")) as file:
        cache._path(key_of("b")).write_bytes(b"ab")
    with cache.open(key_of("b"), 4, lambda file: file.write(b"abcd")) as file:
        assert file.read() == b"abcd"


def test_an_open_copy_is_read_on_when_it_is_removed(tmp_path):
    cache = FileCache(tmp_path, 1500)
    with cache.open(key_of("a"), 1000, lambda file: file.write(content_of(0))) as file:
        cache.open(key_of("b"), 1000, lambda file: file.write(content_of(1))).close()
        assert not cache._path(key_of("a")).exists() and file.read() == content_of(0)


def test_what_cannot_be_fetched_or_comes_short_leaves_nothing(tmp_path):
    cache = FileCache(tmp_path, 10**6)

    def fail(*_):
        raise ConnectionError("away")

    for _ in range(2):
        with pytest.raises(ConnectionError, match="away"):
            cache.read(key_of("a"), 10, fail)
        with pytest.raises(ConnectionError, match="away"):
            cache.open(key_of("a"), 10, fail)
        with pytest.raises(ConnectionError, match="3 bytes came where 10 were announced"):
            cache.open(key_of("a"), 10, lambda file: file.write(b"abc"))
    assert cache.used_bytes() == 0
    assert cache.read(key_of("a"), 3, lambda: b"abc") == b"abc"


def test_a_full_disk_costs_the_copy_only(tmp_path, monkeypatch, caplog):
    cache = FileCache(tmp_path, 10**6)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    for i in range(3):
        assert cache.read(key_of(i), 10, lambda: b"0123456789") == b"0123456789"
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: nothing is kept: No space left on device"
    ]
    assert cache.used_bytes() == 0


def test_the_environment_says_where_and_how_much(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(SIZE, raising=False)
    cache = data_cache()
    assert (
        cache is not None and cache.folder == tmp_path / "ssl_jax" / "data" and cache.max_bytes == 20 * 2**30
    )
    monkeypatch.setenv("SSL_JAX_DATA_CACHE", str(tmp_path / "x"))
    monkeypatch.setenv(SIZE, "0.5")
    cache = data_cache()
    assert cache is not None and cache.folder == tmp_path / "x" and cache.max_bytes == 2**29
    monkeypatch.setenv(SIZE, "0")
    assert data_cache() is None
    for wrong in ("-1", "much", "nan"):
        monkeypatch.setenv(SIZE, wrong)
        with pytest.raises(ValueError, match=f"{SIZE}='{wrong}': allowed is a number of GiB of 0 or more"):
            data_cache()


WORKER = textwrap.dedent("""
    import random, sys
    from ssl_jax.data.file_cache import FileCache, key_of
    cache, rng = FileCache(sys.argv[1], 40_000), random.Random(int(sys.argv[2]))
    print("ready", flush=True)
    for _ in range(int(sys.argv[3])):
        number = rng.randrange(60)
        content = random.Random(number).randbytes(1000)
        if number % 2:
            assert cache.read(key_of(number), 1000, lambda: content) == content
        else:
            def write(file):
                for i in range(0, 1000, 50):
                    file.write(content[i : i + 50])
            with cache.open(key_of(number), 1000, write) as file:
                assert file.read() == content
    print("done", flush=True)
""")


def start(folder, seed, count):
    command = [sys.executable, "-c", WORKER, str(folder), str(seed), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def require_whole(folder):
    """Nothing but whole copies and parts is there, within the bound; parts of the dead go when room is needed."""
    cache = FileCache(folder, 40_000)
    assert cache.used_bytes() <= cache.max_bytes
    for number in range(60):
        content = random.Random(number).randbytes(1000)
        path = cache._path(key_of(number))
        if path.exists():
            assert path.read_bytes()[:1000] == content
    with cache._locked():
        assert cache._evict(0) == cache.used_bytes()
    assert not list(folder.rglob("*.part"))


def test_processes_that_are_killed_leave_whole_copies(tmp_path):
    rng = random.Random(0)
    for life in range(3):
        workers = [start(tmp_path, 10 * life + i, 10**6) for i in range(2)]
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.05, 0.2))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        for worker in workers:
            _, said = worker.communicate()
            assert worker.returncode == -signal.SIGKILL, said
        require_whole(tmp_path)
    worker = start(tmp_path, 99, 100)  # none of them left a lock behind
    out, said = worker.communicate(timeout=60)
    assert out == "ready\ndone\n", said


@pytest.mark.long
def test_forty_killed_processes_leave_whole_copies(tmp_path):
    rng = random.Random(1)
    for life in range(10):
        workers = [start(tmp_path, 10 * life + i, 10**6) for i in range(4)]
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        for worker in workers:
            time.sleep(rng.uniform(0, 0.1))
            worker.send_signal(signal.SIGKILL)
        for worker in workers:
            _, said = worker.communicate()
            assert worker.returncode == -signal.SIGKILL, said
        require_whole(tmp_path)
