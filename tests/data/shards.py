"""Tar shards, and a server of files on loopback, for tests."""

import contextlib
import functools
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Sample = tuple[str, Mapping[str, bytes]]
"""Key, and the content of each extension."""


def write_tar(path: Path, samples: Sequence[Sample], *, form: int = tarfile.USTAR_FORMAT) -> Path:
    """Write samples in WebDataset's convention, by Python's own module."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for key, parts in samples:
            for extension, content in parts.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files with etags and ranges; what ``faults`` says goes wrong."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server: FileServer = self.server  # type: ignore[assignment]
        server.requests.append((self.path, self.headers.get("Range")))
        path = Path(self.translate_path(self.path))
        if server.faults and path.is_file():
            fault = server.faults.pop(0)
            if isinstance(fault, int):
                self.send_error(fault)
                return
        else:
            fault = ""
        if not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        start, stop = 0, len(content)
        asked = self.headers.get("Range") if server.ranges else None
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or stop - 1) + 1, stop)
        self.send_response(206 if asked else 200)
        self._describe(path, stop - start)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        part = content[start:stop]
        self.wfile.write(part[: len(part) // 2] if fault == "cut" else part)
        if fault == "cut":
            self.close_connection = True

    def do_HEAD(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            super().do_HEAD()
            return
        self.send_response(200)
        self._describe(path, path.stat().st_size)
        self.end_headers()

    def _describe(self, path: Path, length: int) -> None:
        self.send_header("Content-Length", str(length))
        status = path.stat()
        self.send_header("ETag", f'"{status.st_size}-{status.st_mtime_ns}"')


class FileServer(http.server.ThreadingHTTPServer):
    """A server of a folder.

    Attributes:
      requests: path and range of every GET so far.
      faults: what happens to the next GETs of files: a status of HTTP, ``"cut"`` in the middle, or ``""`` for nothing.
      ranges: whether it answers ranges.
    """

    daemon_threads = True

    def __init__(self, folder: str | os.PathLike[str]):
        self.requests: list[tuple[str, str | None]] = []
        self.faults: list[int | str] = []
        self.ranges = True
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=os.fspath(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve(folder: str | os.PathLike[str]) -> Iterator[FileServer]:
    """Serve a folder on a free port of loopback."""
    server = FileServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
