"""The directory of a run: one live process at a time, and the configuration and images that it was started with."""

import errno
import fcntl
import json
import logging
import os
import socket
import warnings
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ssl_jax.core.bucket import BucketPath, is_bucket, to_path
from ssl_jax.core.check import shorten
from ssl_jax.core.files import write_atomically
from ssl_jax.core.version import LAYOUT, LAYOUT_KEY, require_layout
from ssl_jax.data.fingerprint import Changes, Fingerprint, compare
from ssl_jax.train.lease import Lease, WorkdirInUseError

_log = logging.getLogger(__name__)

ABSENT = "<absent>"
LOCK = ".lock"
CONFIG = "config.json"
IMAGES = "images.json.gz"
INCIDENTAL = ("host", "watch")
"""Parts of a config that do not change what is trained: where it runs and what only watches. They may differ on resume."""


class Ties(NamedTuple):
    """What would be wrong if a run went on with other images, each in a sentence; empty where nothing would.

    Attributes:
      images: if the images are others, such as ``npid keeps something for each image, which would belong to others``.
      labels: if classes or labels are others, such as ``supervised knows classes by number, which would mean others``.
    """

    images: str = ""
    labels: str = ""


UNTIED = Ties()
"""Of a run that may go on with any images."""


class Difference(NamedTuple):
    """One value in which two configurations differ.

    Attributes:
      path: keys joined by dots.
      old: the value before; ``ABSENT`` if there was none.
      new: the value now; ``ABSENT`` if there is none.
    """

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path}: {_text(self.old)} -> {_text(self.new)}"


class Workdir:
    """A run's directory, locked until it is closed or the process ends, however it ends.

    Args:
      path: a local or mounted directory, created with its parents, or ``gs://bucket/run`` or ``s3://bucket/run``.
      primary: whether this process locks and writes: of a run of several processes, the first one only.

    Raises:
      ValueError: the path is a file, or cannot be written to.
      WorkdirInUseError: another live run holds it; says which.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Workdir(folder) as workdir:
    ...     workdir.configure({"steps": 10})
    ...     read_config(folder)
    []
    {'steps': 10}
    """

    def __init__(self, path: str | Path, *, primary: bool = True) -> None:
        self.path = workdir_path(path).absolute()
        self._primary = primary
        self._lock: int | None = None
        self._lease: Lease | None = None
        self._began_before = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if isinstance(self.path, BucketPath):
                self._lease = Lease(self.path) if primary else None
            elif primary:
                self._lock = _lock(self.path)
        except (FileExistsError, NotADirectoryError) as error:
            found = Path(error.filename)
            what = "a link that leads nowhere" if found.is_symlink() and not found.exists() else "a file"
            raise ValueError(
                f"workdir={str(path)!r}: allowed is a directory, and {found} is {what}"
            ) from error
        except OSError as error:
            raise ValueError(f"workdir={str(path)!r}: it cannot be written to ({error.strerror})") from error
        if self._lock is not None:
            _close_in_children(self)

    def configure(
        self,
        config: Mapping[str, Any],
        *,
        allowed: Iterable[str] = (),
        allow_changes: bool = False,
    ) -> list[Difference]:
        """Record the configuration, and on resuming refuse one that makes it another run.

        Args:
          config: JSON-able mapping.
          allowed: paths (``watch``, ``host.workers``) below which values may change.
          allow_changes: whether any value may.

        Returns:
          What changed since the directory was last configured; all of it is allowed.

        Raises:
          ValueError: a value changed that may not, one line for each; or the config cannot be read.
        """
        try:
            new = _as_json(config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"config: allowed is what JSON can hold ({error})") from error
        self._began_before = self.resuming
        before = read_config(self.path) if self.resuming else {}
        changes = differences(before, new) if self.resuming else []
        allowed = tuple(allowed)
        refused = [change for change in changes if not _is_below(change.path, allowed)]
        if refused and not allow_changes:
            lines = "".join(f"\n  {change}" for change in refused)
            raise ValueError(
                f"the configuration differs from that of the run in {self.path}:{lines}\n"
                f"Use another workdir, restore these values, or allow the changes"
            )
        if self._primary and (changes or not self.resuming):
            write_atomically(self.path / CONFIG, json.dumps({LAYOUT_KEY: LAYOUT, **new}, indent=2) + "\n")
        return changes

    def record_images(
        self, images: Fingerprint, *, ties: Ties = UNTIED, allow_changes: bool = False
    ) -> Changes:
        """Record the images, and on resuming compare them: others are refused where the run is tied to them, else said.

        Comes after :meth:`configure`. A run that began before images were recorded is taken as it is, which is said.

        Args:
          images: of the images as they are now.
          ties: what ties the run to them.
          allow_changes: whether it may go on with others all the same.

        Returns:
          What changed since they were last recorded.

        Raises:
          ValueError: they differ and the run is tied to them, or the record cannot be read.
        """
        recorded = read_images(self.path)
        if recorded is None and self._began_before:
            self._say(
                logging.INFO,
                f"the run in {self.path} began before images were recorded: it goes on with {images.num_images} images as if "
                "they were the same",
            )
        changes = Changes() if recorded is None else compare(recorded, images)
        if changes:
            tie, difference = tie_to(changes, ties), difference_of_images(self.path, changes)
            if tie and not allow_changes:
                raise ValueError(refusal_of_images(self.path, changes, tie))
            why = f"{tie}, and changes are allowed" if tie else "the run keeps nothing that they could spoil"
            order = ", in another order" if changes.images else ""
            self._say(logging.WARNING, f"{difference}. It goes on with them{order}: {why}")
        if self._primary and (changes or recorded is None):
            write_atomically(self.path / IMAGES, images.to_bytes())
        return changes

    def _say(self, level: int, message: str) -> None:
        if self._primary:
            _log.log(level, "%s", message)

    @property
    def resuming(self) -> bool:
        """Whether a run was started here before."""
        return (self.path / CONFIG).exists()

    def close(self) -> None:
        """Let go of the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._lease is not None:
            lease, self._lease = self._lease, None
            lease.close()

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def workdir_path(workdir: str | Path) -> Path:
    """Return the path of the folder of a run from how it was typed: of this file system, or in a bucket.

    Raises:
      ValueError: it is of another store, or no path of this file system.

    >>> workdir_path("gs://runs/first/")
    BucketPath('gs://runs/first')
    >>> workdir_path("http://runs/first")
    Traceback (most recent call last):
    ...
    ValueError: workdir='http://runs/first': allowed is a local path, gs://bucket/run or s3://bucket/run
    """
    if is_bucket(workdir):
        path = to_path(workdir)
        if len(path.parts) < 4:
            raise ValueError(f"workdir={str(path)!r}: allowed is a name in the bucket, as in {path}/run")
        return path
    if "://" in str(workdir):
        raise ValueError(
            f"workdir={str(workdir)!r}: allowed is a local path, gs://bucket/run or s3://bucket/run"
        )
    return local_path(workdir)


def local_path(workdir: str | Path) -> Path:
    """Return the path of a folder of this file system from how it was typed.

    Raises:
      ValueError: it is remote, or no path of this file system.

    >>> local_path("gs://runs/first")
    Traceback (most recent call last):
    ...
    ValueError: workdir='gs://runs/first': allowed is a local path
    """
    if "://" in str(workdir):
        raise ValueError(f"workdir={str(workdir)!r}: allowed is a local path")
    path = Path(os.path.expanduser(workdir))
    try:
        path.exists()
    except OSError as error:
        raise ValueError(f"workdir={shorten(repr(str(workdir)))}: {error.strerror}") from error
    return path


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Read the configuration of the run in a directory.

    Raises:
      ValueError: there is none, it cannot be read, or another version of ssl_jax wrote it.
    """
    path = to_path(workdir) / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"workdir={str(workdir)!r}: there is no run in it ({CONFIG} is missing)") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no configuration: allowed is a JSON object")
    require_layout(config, str(path))
    del config[LAYOUT_KEY]
    return config


def read_images(workdir: str | Path) -> Fingerprint | None:
    """Read the fingerprint of the images of the run in a directory; ``None`` if there is none.

    Raises:
      ValueError: it cannot be read.
    """
    path = to_path(workdir) / IMAGES
    try:
        return Fingerprint.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it, and the run goes on whatever its images are"
        ) from error


def tie_to(changes: Changes, ties: Ties) -> str:
    """Return what would be wrong now that these things have changed; empty if nothing would.

    >>> ties = Ties(labels="supervised knows classes by number, which would mean others")
    >>> tie_to(Changes(images=("1 added",)), ties), tie_to(Changes(labels=("class fox added",)), ties)
    ('', 'supervised knows classes by number, which would mean others')
    """
    return (ties.images if changes.images else "") or (ties.labels if changes.labels else "")


def difference_of_images(workdir: Path, changes: Changes) -> str:
    """Say what has changed of the images of a run."""
    return f"the images differ from those of the run in {workdir}: {changes}"


def refusal_of_images(workdir: Path, changes: Changes, tie: str, *, possible: bool = True) -> str:
    """Say why a run does not go on with its images as they are now.

    Args:
      workdir: folder of the run.
      changes: what has changed.
      tie: what would be wrong.
      possible: whether it could go on all the same.
    """
    ways = ["restore the images", "use another workdir"]
    ways += ["go on all the same with --allow_changes"] if possible else []
    return f"{difference_of_images(workdir, changes)}. {tie}: {', '.join(ways[:-1])} or {ways[-1]}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """List where two configurations differ, by path; lists are compared whole.

    >>> for change in differences({"optim": {"lr": 0.1, "name": "sgd"}}, {"optim": {"lr": 0.2}, "seed": 1}):
    ...     print(change)
    optim.lr: 0.1 -> 0.2
    optim.name: 'sgd' -> <absent>
    seed: <absent> -> 1
    """
    before, after = _leaves(old), _leaves(new)
    paths = [*before, *(path for path in after if path not in before)]
    pairs = [Difference(path, before.get(path, ABSENT), after.get(path, ABSENT)) for path in paths]
    # 1 and 1.0 are the same value, 1 and True are not.
    return [p for p in pairs if p.old != p.new or isinstance(p.old, bool) != isinstance(p.new, bool)]


def _leaves(config: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(config, Mapping) or (path and not config):
        return {path: config}
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        leaves |= _leaves(value, f"{path}.{key}" if path else str(key))
    return leaves


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config))


def _is_below(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root}.") for root in roots)


def _text(value: Any) -> str:
    return value if value == ABSENT else repr(value)


def _lock(directory: Path) -> int | None:
    """File descriptor that holds the directory; ``None`` where the file system has no locks.

    The kernel drops the lock when the process ends, so there is no stale lock to clear; what the file says is
    for people. It is never deleted: a lock on a deleted file would keep nobody out.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise WorkdirInUseError(_who_holds(directory)) from error
        if error.errno in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
            warnings.warn(f"{directory} is on a file system without locks: start one run only", stacklevel=3)
            return None
        raise
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
    return descriptor


def _who_holds(directory: Path) -> str:
    try:
        holder = json.loads((directory / LOCK).read_text())
        who = f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return f"workdir {directory} is in use by {who}: stop it first, or use another workdir"


def _close_in_children(workdir: Workdir) -> None:
    """A forked data worker that outlives a killed run must not hold its lock."""
    reference = weakref.ref(workdir)

    def close() -> None:
        held = reference()
        if held is not None:
            held.close()

    os.register_at_fork(after_in_child=close)
