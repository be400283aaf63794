"""Results as rows: files with one JSON object a line, to which several processes may add."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_jax.core.files import write_atomically

Row = dict[str, Any]
Key = Callable[[Row], Any]


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a file; none if there is no file.

    Raises:
      ValueError: If a line is no JSON object, with its number.
    """
    path = Path(path)
    lines = path.read_text().splitlines() if path.exists() else []
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _parse(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: allowed is a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: allowed is a JSON object, not {line[:40]}")
    return row


def write_row(path: str | os.PathLike[str], row: Mapping[str, Any], key: Key) -> None:
    """Add a row to a file, in place of the one with the same key.

    The whole file is written anew, complete whenever it is there, its rows sorted by their keys. Processes and threads that
    write into one folder wait for each other.

    Args:
      path: File of rows; made with its folder if it is missing.
      row: JSON-able mapping.
      key: Names a row, such as ``operator.itemgetter("method", "seed")``; keys have an order.

    >>> import operator, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
    >>> for seed, value in ((1, 5), (0, 7), (1, 6)):
    ...     write_row(path, {"seed": seed, "value": value}, operator.itemgetter("seed"))
    >>> read_rows(path)
    [{'seed': 0, 'value': 7}, {'seed': 1, 'value': 6}]
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        rows = {key(old): old for old in read_rows(path)} | {key(dict(row)): dict(row)}
        write_atomically(path, "".join(json.dumps(rows[name]) + "\n" for name in sorted(rows)))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
