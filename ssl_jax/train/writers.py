"""Where the numbers of a run go: a line of JSON each, TensorBoard, Weights & Biases."""

import functools
import importlib
import json
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from ssl_jax.core.bucket import BucketPath, to_path

PUBLISH_SECONDS = 10.0
"""In a bucket, where nothing can be appended, a file of records is written anew, this often at most."""


class Writer(Protocol):
    """Takes named scalars at steps, and is closed once; :func:`flush` calls its ``flush``, if it has one."""

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Record scalars (Python numbers, numpy or JAX scalars) of one step."""

    def close(self) -> None:
        """Flush and release; writing afterwards is an error."""


class JsonlWriter:
    """One JSON object a line: ``{"step": 10, "loss": 1.5}``, flushed line by line.

    A number that is not finite becomes ``null``: JSON has none, and readers such as pandas make NaN of it. A
    resumed run drops the records that it will write again, through a new file that takes the old one's place
    in one step; a record of the step before, which a hook that is made up for writes once more, is not doubled.

    Args:
      path: the file; missing folders are made, an existing file is appended to. In a bucket it is written as a whole, every
        :data:`PUBLISH_SECONDS` and with :meth:`flush`.
      resume_step: drop records with a step at or after this one; ``None``: keep all. A last line cut off by a kill
        is dropped, and with a warning lines that are no records.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> writer = JsonlWriter(path)
    >>> writer.write(0, {"loss": 1.5})
    >>> writer.close()
    >>> path.read_text()
    '{"step": 0, "loss": 1.5}\\n'
    """

    def __init__(self, path: str | os.PathLike[str], *, resume_step: int | None = None) -> None:
        self.path = to_path(path).absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._written: set[str] = set()
        if self.path.exists():
            self._rewrite(resume_step)
        bucket = isinstance(self.path, BucketPath)
        self._file = _Published(self.path) if bucket else self.path.open("a", encoding="utf-8")

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Append one record; on disk, as far as this process is concerned, when it returns."""
        record = {"step": int(step), **{name: _number(value) for name, value in scalars.items()}}
        line = json.dumps(record, allow_nan=False)
        if line not in self._written:
            self._file.write(line + "\n")
            if not isinstance(self._file, _Published):
                self._file.flush()

    def flush(self) -> None:
        """Return when all records are where another process reads them."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._file.close()

    def _rewrite(self, resume_step: int | None) -> None:
        text = self.path.read_bytes()
        lines = [line for line in text.split(b"\n") if line]
        if lines and not text.endswith(b"\n"):
            lines.pop()  # cut off by a kill
        steps = [_step(line) for line in lines]
        if None in steps:
            warnings.warn(f"{self.path}: left out {steps.count(None)} damaged lines", stacklevel=4)
        remaining = [
            line
            for line, step in zip(lines, steps, strict=True)
            if step is not None and (resume_step is None or step < resume_step)
        ]
        if resume_step is not None:
            self._written = {line.decode() for line in remaining if _step(line) == resume_step - 1}
        content = b"".join(line + b"\n" for line in remaining)
        if content == text:
            return
        if isinstance(self.path, BucketPath):
            self.path.write_bytes(content)
            return
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)


class _Published:
    """A text of a bucket that grows: kept here, and written there as a whole by a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = [path.read_text()] if path.exists() else []
        self._changed, self._ended = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._publish, name="publish", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        self._lines.append(line)
        self._changed.set()

    def flush(self) -> None:
        with self._writing:
            if self._changed.is_set():
                self._changed.clear()
                try:
                    self._path.write_text("".join(self._lines))
                except BaseException:
                    self._changed.set()
                    raise

    def close(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self.flush()

    def _publish(self) -> None:
        while not self._ended.wait(PUBLISH_SECONDS):
            try:
                self.flush()
            except OSError as error:
                warnings.warn(f"{error}; it is tried again", stacklevel=2)


class TensorBoardWriter:
    """Scalars as TensorBoard events; needs the extra ``tensorboard``.

    Args:
      folder: where the event file goes.
      resume_step: events at or after this step of earlier files are hidden by TensorBoard; ``None``: keep
        all.

    Raises:
      ImportError: tensorboardX is not installed; the message names the extra.
    """

    def __init__(self, folder: str | os.PathLike[str], *, resume_step: int | None = None) -> None:
        module = _optional("tensorboardX", extra="tensorboard")
        self._writer = module.SummaryWriter(str(to_path(folder).absolute()), purge_step=resume_step)

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Record scalars of one step."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(value), step)

    def flush(self) -> None:
        """Write the events so far."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbWriter:
    """Scalars to Weights & Biases; needs the extra ``wandb``.

    Args:
      **options: for ``wandb.init``, such as project, name, config, dir, id, resume.

    Raises:
      ImportError: wandb is not installed; the message names the extra.
      OSError: it cannot be started, such as without a login.
    """

    def __init__(self, **options: Any) -> None:
        wandb = _optional("wandb", extra="wandb")
        try:
            self._run = wandb.init(**options)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise OSError(
                f"Weights & Biases cannot be started: {reason}; log in with wandb login, set WANDB_MODE=offline, or go without"
            ) from error

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Record scalars of one step."""
        self._run.log({name: float(value) for name, value in scalars.items()}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MultiWriter:
    """Hands every record to several writers, in order.

    All are written to and closed even when one fails; the first error is raised then.

    >>> MultiWriter([]).write(0, {"loss": 1.0})
    """

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.writers = tuple(writers)

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Record scalars of one step everywhere."""
        call_all(functools.partial(writer.write, step, scalars) for writer in self.writers)

    def flush(self) -> None:
        """Flush all."""
        call_all(functools.partial(flush, writer) for writer in self.writers)

    def close(self) -> None:
        """Close all."""
        call_all(writer.close for writer in self.writers)


def flush(writer: Writer) -> None:
    """Let a writer bring all it was given to where it stays; one without ``flush`` does so by itself.

    >>> flush(MultiWriter([]))
    """
    getattr(writer, "flush", lambda: None)()


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of a file that ``JsonlWriter`` wrote; a last line that a kill cut off, and damaged ones, are left out.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = path.write_text('{"step": 0, "loss": null}\\n{"st')
    >>> read_jsonl(path)
    [{'step': 0, 'loss': None}]
    """
    lines = to_path(path).read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1] if _step(line) is not None]


def last_scalars(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the last value of each scalar of a run, ``step`` among them.

    >>> last_scalars([{"step": 1, "loss": 2.0}, {"step": 2, "online/knn": 0.5}])
    {'step': 2, 'loss': 2.0, 'online/knn': 0.5}
    """
    last: dict[str, Any] = {}
    for record in records:
        last |= record
    return last


def _step(line: bytes) -> int | None:
    """Of a record; ``None`` where a machine that lost its power left something else in its place."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def call_all(calls: Iterable[Callable[[], None]]) -> None:
    """Make all calls even if some fail; the first error is raised then.

    >>> call_all([lambda: print("made")])
    made
    """
    errors = []
    for call in calls:
        try:
            call()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _number(value: Any) -> float | int | None:
    number = value if isinstance(value, int | float) else getattr(value, "item", lambda: float(value))()
    return number if math.isfinite(number) else None


def _optional(name: str, *, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is not installed: pip install 'ssl-jax[{extra}]'") from error
