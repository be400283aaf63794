"""A folder of copies of what was fetched, of bounded size, shared by processes.

A copy appears whole, by a rename, and is never changed. While it is written it is called ``<key>.part``, has its full
length from the beginning, and is locked by the process that writes it. So others wait for it instead of fetching the same;
and the part of a process that was killed, whose lock the kernel takes away, is known as such and removed. The sum of all
lengths is kept in a file under a lock, and is never below what lies in the folder. What was not used for the longest time
goes first, by the time of change, which every use sets. A copy that is removed while it is open can be read on.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ssl_jax.core import check

FOLDER = "SSL_JAX_DATA_CACHE"
"""Variable of the environment with the folder of the copies; unset: ``ssl_jax/data`` in ``$XDG_CACHE_HOME`` or
``~/.cache``."""
SIZE = "SSL_JAX_DATA_CACHE_GIB"
"""Variable of the environment with their bound in GiB; 0: nothing is kept."""
DEFAULT_GIB = 20.0
DIGEST = 16
"""Bytes of the checksum behind what :meth:`FileCache.read` keeps."""
_LEFT = 0.9  # what stays of the bound once something has to go
_WAIT = 0.02  # seconds until room is looked for again
_log = logging.getLogger(__name__)
_said: set[str] = set()


def cache_root() -> Path:
    """Return the folder of the user's caches of this package.

    >>> cache_root().name
    'ssl_jax'
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ssl_jax"


def data_cache() -> "FileCache | None":
    """Return the cache that the environment describes; ``None``: nothing is kept.

    Raises:
      ValueError: a size that is no number of 0 or more.
    """
    text = os.environ.get(SIZE, str(DEFAULT_GIB))
    try:
        gib = float(text)
    except ValueError:
        gib = -1.0
    check.require(0 <= gib < 2**30, SIZE, text, "a number of GiB of 0 or more")
    folder = os.environ.get(FOLDER)
    return FileCache(folder or cache_root() / "data", int(gib * 2**30)) if gib else None


def key_of(*parts: str | int) -> str:
    """Return the name of a copy, from all that says what it is of.

    >>> key_of("gs://b/0.tar", 10, "etag") == key_of("gs://b/0.tar", 10, "etag"), len(key_of("a"))
    (True, 40)
    """
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=20).hexdigest()


class FileCache:
    """Copies in a folder, the least recently used of which are removed above a bound.

    Args:
      folder: for the copies; is made.
      max_bytes: bound of their sizes together, what is being written counted, by every process that uses the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = FileCache(folder, 1000)
    ...     cache.read(key_of("a"), 3, lambda: b"new"), cache.read(key_of("a"), 3, lambda: b"not asked again")
    (b'new', b'new')
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int):
        check.require(max_bytes > 0, "max_bytes", max_bytes, "an integer above 0")
        self.folder = Path(folder).expanduser()
        self.max_bytes = max_bytes

    def read(self, key: str, size: int, fetch: Callable[[], bytes]) -> bytes:
        """Return the bytes of a copy, fetched where there is none, or where it is damaged.

        Where the disk is full, or the copy would be larger than the bound, nothing is kept.

        Args:
          key: from :func:`key_of`.
          size: number of the bytes.
          fetch: returns them.
        """
        if size + DIGEST > self.max_bytes:
            return fetch()
        content = self._verified(key, size)
        if content is not None:
            return content
        fetched: list[bytes] = []

        def write(file: BinaryIO) -> None:
            fetched.append(fetch())
            file.write(fetched[0])
            file.write(_digest(fetched[0]))

        try:
            self._make(key, size + DIGEST, write, durable=False)  # the checksum tells
        except OSError as error:
            if not self._is_own(error):
                raise
            self._say(error)
            return fetched[0] if fetched else fetch()
        if fetched:
            return fetched[0]
        content = self._verified(key, size)  # another process fetched it
        return fetch() if content is None else content

    def open(self, key: str, size: int, write: Callable[[BinaryIO], None]) -> BinaryIO:
        """Open a copy for reading; it stays readable even when it is removed meanwhile.

        Args:
          key: from :func:`key_of`.
          size: its length in bytes.
          write: writes it to an open file, where there is none yet.

        Raises:
          ValueError: it is larger than the bound.
          OSError: the disk is full, or what ``write`` raises.
        """
        if size > self.max_bytes:
            raise ValueError(
                f"{SIZE}: the cache {self.folder} may have {self.max_bytes / 2**30:.3g} GiB, and a file of "
                f"{size / 2**30:.3g} GiB is to lie in it whole: allow more"
            )
        while True:
            with contextlib.suppress(FileNotFoundError):
                file = open(self._path(key), "rb")  # noqa: SIM115 (the caller closes it)
                if os.fstat(file.fileno()).st_size == size:
                    os.utime(file.fileno())
                    return file
                file.close()
                self._path(key).unlink(missing_ok=True)
            self._make(key, size, write, durable=True)

    def used_bytes(self) -> int:
        """Return the sizes of all files in the folder together, unfinished ones too."""
        return sum(size for _, size, _ in self._files())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _verified(self, key: str, size: int) -> bytes | None:
        try:
            with open(self._path(key), "rb") as file:
                content = file.read()
                os.utime(file.fileno())
        except OSError:
            return None
        if len(content) == size + DIGEST and _digest(content[:-DIGEST]) == content[-DIGEST:]:
            return content[:-DIGEST]
        self._path(key).unlink(missing_ok=True)
        return None

    def _make(self, key: str, size: int, write: Callable[[BinaryIO], None], *, durable: bool) -> None:
        """Make a copy, unless another process does so meanwhile."""
        final = self._path(key)
        part = final.with_name(f"{key}.part")
        final.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_same(part, descriptor):
                    if final.exists():
                        return
                    continue
                if final.exists():
                    part.unlink(missing_ok=True)
                    return
                try:
                    while not self._reserve(descriptor, size):
                        time.sleep(_WAIT)
                    with open(os.dup(descriptor), "wb") as file:
                        file.seek(0)
                        write(file)
                        file.flush()
                        length = file.tell()
                    if length != size:
                        raise ConnectionError(f"{length} bytes came where {size} were announced")
                    if durable:
                        os.fsync(descriptor)
                    with self._locked():  # a count under way sees it once
                        os.replace(part, final)
                except BaseException:
                    part.unlink(missing_ok=True)
                    raise
                return
            finally:
                os.close(descriptor)

    def _reserve(self, descriptor: int, size: int) -> bool:
        """Give an unfinished file its length, if there is room for it; there is none while others write that much."""
        with self._locked() as sum_file:
            os.ftruncate(descriptor, 0)
            text = os.pread(sum_file, 32, 0)
            used = int(text) if text.strip().isdigit() else None
            if used is None or used + size > self.max_bytes:
                used = self._evict(size)
            if used + size > self.max_bytes:
                return False
            os.ftruncate(descriptor, size)
            os.pwrite(sum_file, b"%32d" % (used + size), 0)
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self.folder / "used", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _evict(self, size: int) -> int:
        """Remove parts that nobody writes, then the oldest copies until ``size`` more fit; return what is left."""
        copies, used = [], 0
        for path, length, changed in self._files():
            if path.suffix == ".part" and _remove_abandoned(path):
                continue
            used += length
            if path.suffix != ".part":
                copies.append((changed, length, path))
        if used + size <= self.max_bytes:
            return used
        for _, length, path in sorted(copies):
            if used + size <= _LEFT * self.max_bytes:
                break
            path.unlink(missing_ok=True)
            used -= length
        return used

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        """Path, length and time of change of every copy, finished or not."""
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        yield Path(entry.path), status.st_size, status.st_mtime_ns

    def _is_own(self, error: OSError) -> bool:
        """Whether it is the disk of the cache that fails, not the store."""
        return not isinstance(error, ConnectionError | FileNotFoundError | PermissionError) or str(
            self.folder
        ) in str(error.filename or "")

    def _say(self, error: OSError) -> None:
        text = f"{self.folder}: nothing is kept: {error.strerror or error}"
        if text not in _said:
            _said.add(text)
            _log.warning("%s", text)


def _remove_abandoned(part: Path) -> bool:
    """Remove a part that no process writes any more."""
    try:
        descriptor = os.open(part, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        if _is_same(part, descriptor):
            part.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
