"""Who may write to a folder of a bucket: a lock that its holder keeps renewing.

A store has no locks that end with a process. What it has are objects that can be made once: ``.lock/000001``, ``.lock/000002``
and so on. The highest number holds the folder. Whoever finds its holder gone makes the next one; of several that try, the store
lets one succeed (``ifGenerationMatch=0``, ``If-None-Match: *``). A holder rewrites its object every few seconds. It is gone if
it said so, if it was a process of this machine that has ended, or if the object has not changed for :data:`SECONDS` while
somebody watched: no clocks are compared. A holder that finds a higher number, such as after its network was cut, ends at once
without another write.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
import warnings
from pathlib import Path
from typing import Any, cast

from ssl_jax.core.bucket import BucketPath

_log = logging.getLogger(__name__)

LOCKS = ".lock"
SECONDS = 60.0
"""Without a change after which a holder of another machine counts as gone."""
_BEATS = 6
"""Renewals in that time."""


class WorkdirInUseError(RuntimeError):
    """Another live run holds the directory."""


class Lease:
    """The right to write to a folder of a bucket, until it is closed or this process ends.

    Args:
      folder: a :class:`ssl_jax.core.bucket.BucketPath`.
      seconds: see :data:`SECONDS`.

    Raises:
      WorkdirInUseError: another live run holds it; says which. Takes up to ``seconds`` to find out.
      OSError: the store cannot be reached, or refuses.
    """

    def __init__(self, folder: Path, *, seconds: float = SECONDS) -> None:
        self._folder, self._seconds = folder, seconds
        self._locks = cast(BucketPath, folder / LOCKS)
        self._holder: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "started": _started(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        self._number = self._acquire()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the right back; in a forked child, which does not have it, nothing."""
        if self._holder["pid"] != os.getpid() or self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        try:
            self._write(released=True)
        except OSError as error:
            _log.warning("the lock of %s is not given back (%s): it lapses by itself", self._folder, error)

    def _object(self, number: int) -> BucketPath:
        return cast(BucketPath, self._locks / f"{number:06d}")

    def _latest(self) -> int:
        """The highest number; what a listing does not show yet is found by asking for it."""
        try:
            names = [path.name for path in self._locks.iterdir()]
        except FileNotFoundError:
            names = []
        number = max((int(name) for name in names if name.isdigit()), default=0)
        while self._object(number + 1).is_file():
            number += 1
        return number

    def _acquire(self) -> int:
        while True:
            number = self._latest()
            if number and (holder := self._live_holder(number)):
                raise WorkdirInUseError(
                    f"workdir {self._folder} is in use by process {holder.get('pid')} on {holder.get('host')}: stop it "
                    "first, or use another workdir"
                )
            for _ in range(2):
                try:
                    self._object(number + 1).create(self._content())
                except FileExistsError:
                    # This process's own, if an answer was lost and the request repeated.
                    if self._read(number + 1).get("token") == self._holder["token"]:
                        return number + 1
                    break
            else:
                self._warn()
                return number + 1

    def _warn(self) -> None:
        """Both writes of an object that must not be there were taken."""
        warnings.warn(f"{self._folder} is in a store without locks: start one run only", stacklevel=6)

    def _live_holder(self, number: int) -> dict[str, Any]:
        """The holder, if it is alive; else nothing."""
        first = self._read(number)
        end = time.monotonic() + self._seconds
        said = False
        while True:
            holder = self._read(number)
            if not holder or holder.get("released"):
                return {}
            if self._holder["machine"] and holder.get("machine") == self._holder["machine"]:
                return holder if _started(int(holder["pid"])) == holder.get("started") else {}
            if holder != first:
                return holder
            left = end - time.monotonic()
            if left <= 0:
                return {}
            if not said:
                _log.info(
                    "%s was in use by process %s on %s: waiting up to %.0f s whether it still is",
                    *(self._folder, holder.get("pid"), holder.get("host"), self._seconds),
                )
                said = True
            time.sleep(min(left, self._seconds / _BEATS / 2))

    def _read(self, number: int) -> dict[str, Any]:
        try:
            holder = json.loads(self._object(number).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return holder if isinstance(holder, dict) else {}

    def _content(self, **more: Any) -> bytes:
        return json.dumps({**self._holder, "renewed": time.time_ns(), **more}).encode()

    def _write(self, **more: Any) -> None:
        self._object(self._number).write_bytes(self._content(**more))

    def _renew(self) -> None:
        failed = False
        while not self._ended.wait(self._seconds / _BEATS):
            try:
                if self._object(self._number + 1).is_file():
                    self._end()
                    return
                self._write()
                failed = False
            except Exception as error:
                if not failed:
                    _log.warning("the lock of %s cannot be renewed: %s", self._folder, error)
                failed = True

    def _end(self) -> None:
        holder = self._read(self._number + 1)
        sys.stderr.write(
            f"\nerror: process {holder.get('pid')} on {holder.get('host')} has taken over {self._folder}, as this one could "
            "not renew its lock; it ends here, and what it has saved is whole\n"
        )
        sys.stderr.flush()
        os._exit(1)


def _machine() -> str:
    """Where a number means one process: this boot of this machine, and its container; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process of this machine started, which tells it from later ones of its number; empty if there is none."""
    try:
        # After the name, which may hold blanks: the state first, the time of the start as the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
