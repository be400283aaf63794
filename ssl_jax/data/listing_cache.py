"""Lists of large folders, kept in the user's cache, and held against the folders before they are used again."""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_jax.core.files import write_atomically

FORMAT = 1
MOST_LISTS = 32
"""Lists that are kept; of more the one that was not used for longest is deleted."""
MOST_BYTES = 2**32
"""A list that is larger is not unpacked."""
SETTLED = 2 * 10**9
"""Nanoseconds: a folder that changed so shortly before it was read may change again without another time."""

Stamp = tuple[int, int, int]
"""Inode of a folder, and when its entries and its inode last changed, in nanoseconds."""


def cache_folder() -> Path:
    """Return where lists are kept: ``ssl_jax/listing`` in ``$XDG_CACHE_HOME`` or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ssl_jax" / "listing"


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """Return what changes when an entry of a folder is added, removed or renamed.

    Raises:
      OSError: there is no such folder, or it may not be looked at.
    """
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def read_list(root: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what :func:`write_list` has kept, where every folder in it is as it was.

    Args:
      root: the folder.
      request: what else the list depends on.

    Returns:
      The list; ``None``: there is none, it is damaged, or a folder has changed.
    """
    path = _path(root, request)
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(path.read_bytes(), MOST_BYTES)
        kept = json.loads(text) if unpacker.eof else None
        if not isinstance(kept, dict) or kept["request"] != _whole(root, request):
            return None
        same = all(stamp(os.path.join(root, folder)) == tuple(old) for folder, old in kept["folders"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error, RecursionError):
        return None
    if not same:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return kept["found"]


def write_list(
    root: str,
    request: Mapping[str, Any],
    names: Mapping[str, Any],
    *,
    folders: Mapping[str, Stamp],
    started: int,
) -> bool:
    """Keep a list, unless a folder may have changed while it was made.

    Args:
      root: the folder.
      request: what else the list depends on.
      names: the list, as JSON takes it.
      folders: for each folder that was read, relative to the root, its stamp before it was read.
      started: when the first of them was read, ``time.time_ns()``.

    Returns:
      Whether it was kept: not where a folder has changed within ``SETTLED`` before ``started`` or since, or where the cache
      cannot be written.
    """
    if any(max(changed) > started - SETTLED for _, *changed in folders.values()):
        return False
    kept = {"request": _whole(root, request), "folders": folders, "found": names}
    path = _path(root, request)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, zlib.compress(json.dumps(kept).encode(), 1))
        _forget_oldest(path.parent)
    except OSError:
        return False
    return True


def _forget_oldest(folder: Path) -> None:
    lists = sorted(folder.glob("*.json.z"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in lists[MOST_LISTS:]:
        path.unlink(missing_ok=True)


def _whole(root: str, request: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "root": root, **request}


def _path(root: str, request: Mapping[str, Any]) -> Path:
    text = json.dumps(_whole(root, request), sort_keys=True)
    return cache_folder() / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.json.z"
