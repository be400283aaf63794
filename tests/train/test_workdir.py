"""One live run a directory, and the configuration that it was started with."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ssl_jax.core.files import write_atomically
from ssl_jax.train.workdir import (
    ABSENT,
    CONFIG,
    LOCK,
    Workdir,
    WorkdirInUseError,
    differences,
    local_path,
    read_config,
)

CONFIGURATION = {"method": {"name": "byol", "decay": 0.99}, "steps": 100, "sizes": [8, 4], "resume": True}

HOLDER = """
    import os, sys, time
    from ssl_jax.train.workdir import Workdir

    workdir = Workdir({path!r})
    if {fork!r} and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    elif {fork!r}:
        time.sleep(60)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def holder(path, *, fork: bool = False) -> tuple[subprocess.Popen, int]:
    """A process that holds a directory, and the process id that it prints: its own, or its forked child's."""
    code = textwrap.dedent(HOLDER).format(path=str(path), fork=fork)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_live_run_is_named_and_a_killed_one_is_no_obstacle(tmp_path):
    process, pid = holder(tmp_path)
    try:
        with pytest.raises(WorkdirInUseError, match=f"in use by process {pid} on "):
            Workdir(tmp_path)
    finally:
        kill(process)
    with Workdir(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / LOCK).read_text()


def test_a_forked_worker_that_outlives_its_run_does_not_hold_the_directory(tmp_path):
    process, child = holder(tmp_path, fork=True)
    kill(process)
    try:
        Workdir(tmp_path).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_second_run_in_the_same_process_is_refused_until_the_first_lets_go(tmp_path):
    first = Workdir(tmp_path)
    with pytest.raises(WorkdirInUseError, match=str(os.getpid())):
        Workdir(tmp_path)
    first.close()
    first.close()
    Workdir(tmp_path).close()


def test_only_the_primary_process_locks_and_writes(tmp_path):
    with Workdir(tmp_path) as primary, Workdir(tmp_path, primary=False) as other:
        assert other.configure(CONFIGURATION) == []
        assert not primary.resuming
        primary.configure(CONFIGURATION)
        with pytest.raises(ValueError, match="steps: 100 -> 200"):
            other.configure({**CONFIGURATION, "steps": 200})


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="without locks"):
        Workdir(tmp_path).close()


def test_the_directory_is_created_and_the_configuration_recorded(tmp_path):
    with Workdir(tmp_path / "a" / "b") as workdir:
        assert not workdir.resuming
        assert workdir.configure(CONFIGURATION) == []
        assert workdir.resuming
        assert workdir.configure(CONFIGURATION) == []
    assert read_config(tmp_path / "a" / "b") == CONFIGURATION
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [LOCK, CONFIG]


def test_a_changed_value_is_refused_in_one_line_each_unless_allowed(tmp_path):
    changed = {"method": {"name": "byol", "decay": 0.9}, "steps": 200, "sizes": (8, 2), "log": {"every": 5}}
    with Workdir(tmp_path) as workdir:
        workdir.configure(CONFIGURATION)
        with pytest.raises(ValueError) as error:
            workdir.configure(changed, allowed=("steps", "log"))
        lines = str(error.value).splitlines()
        assert str(tmp_path) in lines[0]
        assert lines[1:-1] == [
            "  method.decay: 0.99 -> 0.9",
            "  sizes: [8, 4] -> [8, 2]",
            "  resume: True -> <absent>",
        ]
        assert read_config(tmp_path) == CONFIGURATION, "refused: nothing is written"
        changes = workdir.configure({**CONFIGURATION, "steps": 200}, allowed=("steps",))
        assert changes == [("steps", 100, 200)]
        assert read_config(tmp_path)["steps"] == 200
        assert len(workdir.configure(changed, allow_changes=True)) == 4
        assert read_config(tmp_path)["sizes"] == [8, 2]


@pytest.mark.parametrize(
    ("mark", "version"), [({}, r"ssl_jax 0\.1"), ({"written_by": "ssl_jax 0.9"}, r"ssl_jax 0\.9")]
)
def test_a_run_of_another_version_is_refused_by_name(tmp_path, mark, version):
    (tmp_path / CONFIG).write_text(json.dumps({**mark, **CONFIGURATION}))
    with Workdir(tmp_path) as workdir, pytest.raises(ValueError, match=f"was written by {version}; this is"):
        workdir.configure(CONFIGURATION, allow_changes=True)


def test_an_allowed_path_covers_what_is_below_it_but_not_its_namesakes(tmp_path):
    with Workdir(tmp_path) as workdir:
        workdir.configure({"log": {"every": 1}, "logic": 1})
        assert workdir.configure({"log": {"every": 2}, "logic": 1}, allowed=("log",))
        with pytest.raises(ValueError, match="logic: 1 -> 2"):
            workdir.configure({"log": {"every": 2}, "logic": 2}, allowed=("log",))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": True}, [("a", 1, True)]),
        ({"a": {}}, {"a": {"b": 1}}, [("a", {}, ABSENT), ("a.b", ABSENT, 1)]),
        ({"a": None}, {}, [("a", None, ABSENT)]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", [1, 2], [1])]),
    ],
)
def test_differences_are_listed_by_path(old, new, expected):
    assert differences(old, new) == expected


def test_paths_that_cannot_be_a_workdir_are_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"file'?(/below')?: allowed is a directory, and .* is a file"):
            Workdir(path)
    with pytest.raises(ValueError, match="cannot be written to"):
        Workdir("/proc/ssl_jax")
    for other in ("http://bucket/run", "gs://", "gs://bucket", "s3://user:word@bucket/run"):
        with pytest.raises(ValueError, match=r"allowed is|the bucket is missing"):
            Workdir(other)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="link is a link that leads nowhere"):
        Workdir(tmp_path / "link")
    with pytest.raises(ValueError, match=r"workdir='.*characters\): File name too long"):
        Workdir(tmp_path / ("n" * 300))


def test_a_remote_folder_is_not_taken_for_a_local_one():
    """As a ``Path``, which has one slash less, would be."""
    for path in ("gs://bucket/run", "s3://bucket"):
        with pytest.raises(ValueError, match=f"workdir='{path}': allowed is a local path"):
            local_path(path)
    assert local_path("runs/s3:/x") == Path("runs/s3:/x")


def test_a_tilde_that_the_shell_left_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/runs") == tmp_path / "runs"
    assert local_path("runs/~") == Path("runs/~")
    assert Workdir("~/runs").path == tmp_path / "runs"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_directory_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be written to"):
        Workdir(tmp_path)


def test_a_configuration_that_cannot_be_read_or_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no run in it"):
        read_config(tmp_path)
    with Workdir(tmp_path) as workdir:
        with pytest.raises(ValueError, match="JSON"):
            workdir.configure({"a": object()})
        (tmp_path / CONFIG).write_text('{"a": ')
        with pytest.raises(ValueError, match="cannot be read"):
            workdir.configure({"a": 1})


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / CONFIG
    write_atomically(path, "before")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
