"""Paths in object stores: ``gs://bucket/run`` and ``s3://bucket/run`` with the methods of a path of the file system.

What is behind them is ``etils.epath`` with ``fsspec`` (``gcsfs``, ``s3fs``). Credentials, endpoints and retries are those that
these libraries find by themselves: ``GOOGLE_APPLICATION_CREDENTIALS``, the machine's service account, ``AWS_PROFILE``,
``AWS_ENDPOINT_URL``, and so on. None is an argument here, so that none gets into a config, a record or a report.

A bucket has no folders, no appending and no renaming. An object appears at once and whole when its upload ends, which is what
:func:`ssl_jax.core.files.write_atomically` needs. Listings are not kept: what another process writes is seen.
"""

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PosixPath
from typing import Any, TypeVar, cast

from etils.epath.gpath import PosixGPath

SCHEMES = ("gs://", "s3://")
PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
COMMIT = "commit_success.txt"
"""Object that orbax writes last into a folder of a bucket; a folder without it is not whole."""
_SECRET = re.compile(
    r"(?i)((?:x-amz-(?:signature|credential|security-token)|access_token|authorization|signature)[=:]\s*)[^\s&'\"]+"
)
_Method = TypeVar("_Method", bound=Callable[..., Any])


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is in an object store.

    >>> is_bucket("gs://runs/first"), is_bucket("runs/first"), is_bucket("/gs/runs")
    (True, False, False)
    """
    return isinstance(path, BucketPath) or os.fspath(path).startswith(SCHEMES)


def to_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of the file system, or a :class:`BucketPath`, which has the same methods.

    >>> to_path("runs/first")
    PosixPath('runs/first')
    >>> to_path("gs://runs/first") / "config.json"
    BucketPath('gs://runs/first/config.json')

    Raises:
      ValueError: the bucket has no name, or holds a user or a password.
    """
    if not is_bucket(path):
        return Path(path)
    text = os.fspath(path)
    scheme, _, rest = text.partition("://")
    name = rest.split("/")[0]
    if "@" in name or ":" in name:
        raise ValueError(
            f"{scheme}://...: allowed is the name of a bucket without a user or a password; credentials come from the "
            "environment"
        )
    if not name:
        raise ValueError(f"{text!r}: the bucket is missing, as in {scheme}://bucket/run")
    if ".." in rest.split("/") or "?" in rest or "#" in rest or "*" in rest or "[" in rest:
        raise ValueError(f"{text!r}: allowed are names in a bucket without '..', '?', '#', '*' and '['")
    return BucketPath(f"{scheme}://{'/'.join(part for part in rest.split('/') if part)}")


def _explained(method: _Method) -> _Method:
    """Let what a store refuses be an ``OSError`` of one line, without what must not be shown."""

    @functools.wraps(method)
    def wrapped(self: "BucketPath", *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except FileNotFoundError as error:
            raise FileNotFoundError(2, "No such object", str(self)) from error
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise
        except PermissionError as error:
            raise PermissionError(13, f"the store refuses it ({describe(error)})", str(self)) from error
        except ImportError as error:
            raise ImportError(
                f"{self}: {PACKAGES[self.scheme]} is not installed: pip install 'ssl-jax[{self.scheme}]'"
            ) from error
        except Exception as error:
            raise OSError(5, describe(error), str(self)) from error

    return cast(_Method, wrapped)


def describe(error: BaseException) -> str:
    """Say what a store or its library refused, in a line without signatures, tokens or credentials.

    >>> describe(OSError("403 for https://b/x?X-Amz-Signature=abc&a=1"))
    'OSError: 403 for https://b/x?X-Amz-Signature=...&a=1'
    """
    text = _SECRET.sub(r"\1...", (str(error).strip().splitlines() or [""])[0][:300])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@functools.cache
def _without_listings() -> None:
    """Let no file system of fsspec keep listings: another process may have written since. What is asked for wins."""
    import fsspec

    for name in ("gs", "gcs", "s3"):
        fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)


class BucketPath(PosixGPath, PosixPath):
    """A path in an object store. Folders are there while something is below them; :meth:`mkdir` does nothing.

    It is a ``pathlib.Path``, so that what takes one takes it; of its methods, those below and those that only look at the name
    are meant for it. Errors of the store are ``OSError`` of one line.

    >>> path = BucketPath("s3://runs/first/config.json")
    >>> path.scheme, path.bucket, path.key, path.parent.name
    ('s3', 'runs', 'first/config.json', 'first')
    """

    @property
    def scheme(self) -> str:
        """``gs`` or ``s3``."""
        return self.parts[1]

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.parts[2]

    @property
    def key(self) -> str:
        """Name in the bucket; empty for the bucket itself."""
        return "/".join(self.parts[3:])

    @property
    def files(self) -> Any:
        """The file system of fsspec that the path is in."""
        _without_listings()
        return self._backend.fs(self._path_str)

    def absolute(self) -> "BucketPath":
        """Return the path: it is absolute."""
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        """Return the path: a bucket has no links."""
        return self

    def expanduser(self) -> "BucketPath":
        """Return the path."""
        return self

    def is_symlink(self) -> bool:
        """Return ``False``: a bucket has no links."""
        return False

    @_explained
    def exists(self) -> bool:
        """Tell whether there is an object of this name, or one below."""
        return bool(self.files.exists(self._path_str))

    @_explained
    def is_file(self) -> bool:
        """Tell whether there is an object of this name."""
        return bool(self.files.isfile(self._path_str))

    @_explained
    def is_dir(self) -> bool:
        """Tell whether there is something below this name."""
        return bool(self.files.isdir(self._path_str))

    @_explained
    def _names(self) -> list[str]:
        found = self.files.ls(self._path_str, detail=False)
        return sorted({str(path).rstrip("/").rsplit("/", 1)[-1] for path in found} - {self.name})

    def iterdir(self) -> Iterator["BucketPath"]:  # type: ignore[override]
        """Yield what is directly below."""
        for name in self._names():
            yield self / name

    def glob(self, pattern: str) -> Iterator["BucketPath"]:  # type: ignore[override]
        """Yield what matches a pattern, of which each part is a pattern of names, as in ``*/process_*``."""
        first, _, rest = pattern.partition("/")
        try:
            names = self._names()
        except FileNotFoundError:
            return
        for name in fnmatch.filter(names, first):
            if rest:
                yield from (self / name).glob(rest)
            else:
                yield self / name

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: folders need not be made."""

    @_explained
    def read_bytes(self) -> bytes:
        """Read the object."""
        return bytes(self.files.cat_file(self._path_str))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Read the object as UTF-8."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    @_explained
    def write_bytes(self, data: bytes) -> int:  # type: ignore[override]
        """Write the object, whole or not at all."""
        self.files.pipe_file(self._path_str, bytes(data))
        return len(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        """Write the object as UTF-8, whole or not at all."""
        return self.write_bytes(data.encode())

    @_explained
    def upload(self, source: Path) -> None:
        """Write a file of this machine as the object, whole or not at all, a part at a time."""
        self.files.put_file(str(source), self._path_str)

    @_explained
    def create(self, data: bytes) -> None:
        """Write an object that must not be there yet: of several that try at once, one succeeds.

        By ``ifGenerationMatch=0`` on Google's stores, by ``If-None-Match: *`` on S3.

        Raises:
          FileExistsError: it is there.
        """
        try:
            self.files.pipe_file(self._path_str, data, mode="create")
        except FileExistsError:
            raise
        except Exception as error:
            if _is_failed_condition(error):
                raise FileExistsError(17, "it is there", str(self)) from error
            raise

    @_explained
    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        try:
            self.files.rm_file(self._path_str)
        except FileNotFoundError:
            if not missing_ok:
                raise

    @_explained
    def rmtree(self, missing_ok: bool = False) -> None:
        """Delete everything below, first what says that it is whole: killed in the middle, it leaves nothing that looks so."""
        objects = self._below()
        if not objects and not missing_ok:
            raise FileNotFoundError(2, "No such object", str(self))
        marks = [path for path in objects if path.endswith(f"/{COMMIT}")]
        for some in (marks, [path for path in objects if path not in marks]):
            if some:
                self.files.rm(some)

    @_explained
    def rename(self, target: Any) -> "BucketPath":
        """Copy what is below, then delete it: not in one step."""
        target = type(self)(os.fspath(target))
        root = self._path_str.partition("://")[2]
        for path in self._below():
            self.files.cp_file(path, f"{target._path_str}{path.removeprefix(root)}")
        self.rmtree()
        return target

    def _below(self) -> list[str]:
        try:
            return list(self.files.find(self._path_str))
        except FileNotFoundError:
            return []


def _is_failed_condition(error: BaseException | None) -> bool:
    """Whether a store said 412, or 409 for a write that another one overtook."""
    while error is not None:
        response = getattr(error, "response", None)
        said = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
        if getattr(error, "code", None) in (409, 412, "409", "412") or said in (
            "PreconditionFailed",
            "ConditionalRequestConflict",
        ):
            return True
        error = error.__cause__
    return False
