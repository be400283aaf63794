"""Files on disk and behind URLs: their sizes, lists of them, and ranges of their bytes.

URLs go through fsspec and the libraries of the stores, which find their own credentials; none are taken or kept here. A read
that fails for a passing reason is tried again; one that keeps failing is a `ConnectionError`: an image that cannot be had
for a moment is no corrupt image.
"""

import glob
import importlib
import io
import itertools
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from ssl_jax.data.files import open_file, printable

PACKAGES = {"http": "aiohttp", "https": "aiohttp", "gs": "gcsfs", "s3": "s3fs", "hf": "huggingface_hub"}
"""Schemes of URLs that are read, and the package that each needs beside fsspec."""
EXTRAS = {"http": "http", "https": "http", "gs": "gs", "s3": "s3", "hf": "hub"}
"""Extra of this package that installs it."""
DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between two attempts, each times a random number from 0.5 to 1.5."""
CHUNK = 4 * 2**20
"""Bytes of a file that are read at once where it is read in order."""
AT_ONCE = 16
"""Files whose sizes are asked for at the same time."""
_TIMEOUT = 60.0  # seconds without a byte
_PASSING = frozenset({408, 425, 429})
_STAMPS = ("ETag", "etag", "generation", "md5Hash", "blob_id", "Content-MD5", "Last-Modified", "LastModified")
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"})
T = TypeVar("T")


class StoredFile(NamedTuple):
    """A file, as it was when it was looked at.

    Attributes:
      location: path or URL.
      size: bytes.
      stamp: what changes with the content: time of the last change of a file on disk, else the etag, generation or date that
        the store gives; ``""``: it gives none.
    """

    location: str
    size: int
    stamp: str

    @property
    def name(self) -> str:
        """Last part of the location, without what a query of a URL may hold."""
        return base_name(self.location)


def is_url(location: str | os.PathLike[str]) -> bool:
    """Tell whether something is the URL of a store that is read.

    >>> is_url("gs://bucket/train-0.tar"), is_url("/data/train-0.tar")
    (True, False)
    """
    return str(location).partition("://")[0] in PACKAGES and "://" in str(location)


def redact(location: str) -> str:
    """Write a path or URL for people: without user, password and query, which may hold a signature.

    >>> redact("https://me:secret@host/a.tar?token=1"), redact("/data/a.tar")
    ('https://host/a.tar', '/data/a.tar')
    """
    if is_url(location):
        parts = urlsplit(location)
        location = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return printable(location)


def base_name(location: str) -> str:
    """Return the last part of a path or URL.

    >>> base_name("https://host/a%20b.tar?token=1"), base_name("/data/a.tar")
    ('a b.tar', 'a.tar')
    """
    if location.startswith(("http://", "https://")):
        location = unquote(urlsplit(location).path)
    return location.rstrip("/").rpartition("/")[2]


def expand_braces(pattern: str) -> list[str]:
    """Write out the braces of a pattern, as shells do.

    >>> expand_braces("train-{08..10}.tar"), expand_braces("{a,b}{1..2}")
    (['train-08.tar', 'train-09.tar', 'train-10.tar'], ['a1', 'a2', 'b1', 'b2'])
    """
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    if match[3] is None:
        first, last = int(match[1]), int(match[2])
        width = max(len(match[1]), len(match[2])) if "0" in (match[1][:1], match[2][:1]) else 0
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        middles: Sequence[str] = [str(number).zfill(width) for number in numbers]
    else:
        middles = match[3].split(",")
    rest = expand_braces(pattern[match.end() :])
    return [f"{pattern[: match.start()]}{middle}{end}" for middle in middles for end in rest]


def find_files(pattern: str, suffix: str) -> tuple[list[StoredFile], list[str], str]:
    """Find the files that somebody means.

    Args:
      pattern: a file, a folder (all files below it that end in ``suffix``), either with braces or, except on http servers,
        asterisks, or several of these joined by ``::``.
      suffix: such as ``.tar``.

    Returns:
      The files, in the order given and sorted by their names where a folder or an asterisk stands for several; their names
      relative to the folder that holds them all; and that folder, with ``/`` at its end.

    Raises:
      ValueError: a pattern without a file.
      OSError: a file that does not exist, or a store that cannot be reached.
    """
    found: list[StoredFile] = []
    folders: list[str] = []
    for part in pattern.split("::"):
        for place in expand_braces(part):
            if place.lower().endswith(suffix) or urlsplit(place).path.lower().endswith(suffix):
                wild = "*" in place and not place.startswith("http") and not os.path.exists(place)
                if wild:
                    found += _glob(place)
                else:
                    found.append(StoredFile(place, -1, ""))
            else:
                below = list_below(place)
                folders.append(os.path.expanduser(place).rstrip("/") + "/")
                found += [file for file in below if file.name.lower().endswith(suffix)]
    if not found:
        raise ValueError(f"{redact(pattern)} has no file that ends in {suffix}, at any depth")
    places = [i for i, file in enumerate(found) if file.size < 0]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        looked_at = pool.map(lambda i: stat_file(found[i].location), places)
        for i, file in zip(places, looked_at, strict=True):
            found[i] = file
    plain = [_without_query(file.location) for file in found]
    root = folders[0] if len(folders) == 1 else ""
    if not root or not all(location.startswith(root) for location in plain):
        above = [location.split("/")[:-1] for location in plain]
        shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*above, strict=False))
        root = "".join(f"{parts[0]}/" for parts in shared)
    return found, [relative_name(file, root) for file in found], root


def _without_query(location: str) -> str:
    return location.partition("?")[0] if location.startswith(("http://", "https://")) else location


def stat_file(location: str) -> StoredFile:
    """Ask for the size and stamp of a file.

    Raises:
      FileNotFoundError: there is none.
      OSError: the store cannot be reached, refuses, or does not know the size.
    """
    if not is_url(location):
        path = os.path.expanduser(location)
        status = os.stat(path)
        return StoredFile(path, status.st_size, str(status.st_mtime_ns))
    return _of_info(location, _persist(lambda: file_system(location).info(location), location))


def list_below(folder: str) -> list[StoredFile]:
    """List all files below a folder, hidden ones left out, sorted by their names.

    An http server must show its folders as pages of links.

    Raises:
      FileNotFoundError: there is no such folder.
      OSError: the store cannot be reached, or refuses.
    """
    if not is_url(folder):
        root = os.path.expanduser(folder)
        if not os.path.isdir(root):
            raise FileNotFoundError(f"{redact(folder)} does not exist")
        found = []
        for parent, folders, names in os.walk(root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [os.path.join(parent, name) for name in names if not name.startswith(".")]
        return [stat_file(path) for path in sorted(found) if os.path.isfile(path)]
    root = folder.rstrip("/")
    system = file_system(folder)
    if folder.startswith("http"):
        root += "/"  # a page of links is that of the folder's own name
    listed = _persist(lambda: system.find(root, detail=True), folder)
    files = [_of_info(_url_of(folder, name), info, known=False) for name, info in listed.items()]
    files = [file for file in files if not _is_hidden(file.location[len(root) :])]
    if folder.startswith("http"):  # pages of links hold some that sort the page
        files = [file for file in files if "?" not in file.location[len(root) :]]
    if not files:
        raise FileNotFoundError(f"{redact(folder)} has no file, or does not exist")
    unknown = [i for i, file in enumerate(files) if file.size < 0]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for i, file in zip(unknown, pool.map(lambda i: stat_file(files[i].location), unknown), strict=True):
            files[i] = file
    return sorted(files, key=lambda file: relative_name(file, root))


def relative_name(file: StoredFile, folder: str) -> str:
    """Return the name of a file relative to its folder or URL, without what stands in a URL for other characters.

    >>> relative_name(StoredFile("http://host/a/b%20c.png?x=1", 0, ""), "http://host/a/")
    'b c.png'
    """
    name = file.location.removeprefix(folder)
    return unquote(name.partition("?")[0]) if file.location.startswith(("http://", "https://")) else name


def read_range(file: StoredFile, start: int, stop: int) -> bytes:
    """Read the bytes ``start ... stop - 1`` of a file; fewer where it ends before.

    Raises:
      CorruptImage: a file on disk that cannot be opened.
      FileNotFoundError: it is gone from its store.
      ConnectionError: the store cannot be reached, or its server answers no ranges.
    """
    if stop <= start:
        return b""
    if not is_url(file.location):
        with open_file(file.location, name=redact(file.location)) as opened:
            opened.seek(start)
            return opened.read(stop - start)
    stop = min(stop, file.size)
    whole = start == 0 and stop == file.size
    system = file_system(file.location)

    def read() -> bytes:
        content = system.cat_file(file.location, **({} if whole else {"start": start, "end": stop}))
        if len(content) > stop - start and len(content) == file.size:
            raise _NoRanges
        if len(content) != stop - start:
            raise ConnectionError(f"{len(content)} bytes came where {stop - start} were asked for")
        return content

    try:
        return _persist(read, file.location)
    except _NoRanges:
        raise ConnectionError(
            f"{redact(file.location)}: its server answers no ranges: read whole shards (tar_in_order:), or download them"
        ) from None


class _NoRanges(Exception):
    pass


class RangeFile(io.RawIOBase):
    """A file behind a URL, or on disk, that can be read anywhere, in chunks that stay until another is read.

    Args:
      file: the file.
      chunk: bytes that are read at once.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"0123456789"), file.flush()
    ...     opened = RangeFile(stat_file(file.name), chunk=4)
    ...     opened.seek(5), opened.read(3)
    (5, b'567')
    """

    def __init__(self, file: StoredFile, *, chunk: int = CHUNK):
        self._file, self._chunk = file, chunk
        self._position, self._start, self._held = 0, 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        content = self._take(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _take(self, count: int) -> bytes:
        """Up to ``count`` bytes from the position on, from what is held, or after one more read."""
        offset = self._position - self._start
        if not 0 <= offset < len(self._held):
            self._start = self._position
            stop = min(self._position + max(self._chunk, count), self._file.size)
            self._held = read_range(self._file, self._position, stop)
            offset = 0
        content = self._held[offset : offset + count]
        self._position += len(content)
        return content


def open_to_read(file: StoredFile) -> str | BinaryIO:
    """Return what pyarrow reads a file from: its path, or an open file where it is behind a URL."""
    return io.BufferedReader(RangeFile(file)) if is_url(file.location) else file.location


def download(file: StoredFile, target: IO[bytes]) -> None:
    """Write the whole of a file to an open one, chunk by chunk.

    Raises:
      OSError: as :func:`read_range`, or what writing raises.
    """
    for start in range(0, file.size, 4 * CHUNK):
        stop = min(start + 4 * CHUNK, file.size)
        try:
            content = read_range(file, start, stop)
        except ConnectionError as error:
            if "answers no ranges" not in str(error):
                raise
            target.write(read_range(file, 0, file.size))
            return
        target.write(content)


def file_system(location: str) -> Any:
    """Return fsspec's file system of a URL, the same for all URLs of a store in a process.

    Raises:
      ImportError: its package is not installed; names it.
    """
    scheme = location.partition("://")[0]
    try:
        fsspec = importlib.import_module("fsspec")
        importlib.import_module(PACKAGES[scheme])
    except ImportError as error:
        raise ImportError(
            f"{scheme}:// needs {error.name or PACKAGES[scheme]}: pip install 'ssl-jax[{EXTRAS[scheme]}]'"
        ) from error
    options: dict[str, Any] = {}
    if scheme.startswith("http"):
        timeout = importlib.import_module("aiohttp").ClientTimeout(
            total=None, sock_connect=_TIMEOUT, sock_read=_TIMEOUT
        )
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    elif scheme in ("s3", "gs"):
        options = {"use_listings_cache": False}
    return fsspec.filesystem(scheme, **options)


def _of_info(location: str, info: dict[str, Any], *, known: bool = True) -> StoredFile:
    size = info.get("size")
    if known and size is None:
        raise ConnectionError(f"{redact(location)}: its server does not say how large it is")
    stamps = (str(info[name]) for name in _STAMPS if info.get(name))
    return StoredFile(location, -1 if size is None else int(size), next(stamps, ""))


def _glob(pattern: str) -> list[StoredFile]:
    if not is_url(pattern):
        return [stat_file(path) for path in sorted(glob.glob(os.path.expanduser(pattern), recursive=True))]
    listed = _persist(lambda: file_system(pattern).glob(pattern, detail=True), pattern)
    return sorted(_of_info(_url_of(pattern, name), info) for name, info in listed.items())


def _url_of(like: str, name: str) -> str:
    """The URL of a name that fsspec lists: of buckets it leaves the scheme out."""
    scheme = like.partition("://")[0]
    return name if "://" in name else f"{scheme}://{name}"


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _persist(action: Callable[[], T], location: str) -> T:
    """Do it again until it works; what cannot pass is raised at once, and what does not pass at the end."""
    begin = time.monotonic()
    for delay in (*DELAYS, None):
        try:
            return action()
        except (_NoRanges, ImportError):
            raise
        except Exception as error:  # every store's library has errors of its own
            final = _final(error, location)
            if final is not None:
                raise final from error
            if delay is None:
                waited = time.monotonic() - begin
                raise ConnectionError(
                    f"{redact(location)} cannot be read: {_reason(error)} ({len(DELAYS) + 1} attempts in {waited:.0f} s)"
                ) from error
            time.sleep(delay * random.uniform(0.5, 1.5))
    raise AssertionError


def _final(error: BaseException, location: str) -> OSError | None:
    """What to raise where another attempt would be of no use."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any(type(each).__name__ in _NO_CREDENTIALS for each in chain):
        return PermissionError(f"{redact(location)}: its library finds no credentials")
    statuses = [status for each in chain if (status := _status(each)) is not None]
    if statuses:
        status = statuses[-1]
        if status in (404, 410):
            return FileNotFoundError(f"{redact(location)} does not exist")
        if 400 <= status < 500 and status not in _PASSING:
            return PermissionError(f"{redact(location)} may not be read: the server answers {status}")
        return None
    if isinstance(error, FileNotFoundError) and len(chain) == 1:
        return FileNotFoundError(f"{redact(location)} does not exist")
    if isinstance(error, FileNotFoundError) and not location.startswith("http"):
        return FileNotFoundError(f"{redact(location)} does not exist")
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):  # gcsfs says so
        return PermissionError(f"{redact(location)} may not be read: {_reason(error)}")
    return None


def _status(error: BaseException) -> int | None:
    if type(error).__module__ == "aiohttp.http_exceptions":
        return None  # an answer that was cut off has the code 400
    for name in ("status", "code", "status_code"):
        try:
            value = int(getattr(error, name, ""))
        except (TypeError, ValueError):
            continue
        if 400 <= value < 600:
            return value
    return None


def _reason(error: BaseException) -> str:
    """The innermost reason in one line, without the address, which may hold a signature."""
    while error.__cause__ is not None:
        error = error.__cause__
    status = _status(error)
    if status is not None:
        return f"the server answers {status}"
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"\?[^\s'\"]*", "", text)
