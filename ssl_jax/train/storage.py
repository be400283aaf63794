"""One directory of arrays on disk, written atomically and read back verified.

Orbax commits a directory by renaming it, so an interrupted write leaves nothing that could be mistaken for
whole. It does not notice bytes that change afterwards. Each directory therefore carries ``manifest.json``:
the shape, dtype and CRC-32 of every array, and a CRC-32 of itself. The manifest also tells a damaged
directory from one that belongs to another configuration, which orbax reports alike.

Before a directory gets its name, its index is read back and held against the manifest (:class:`LiteralPath`). A
bucket cannot rename: there it is written where it stays, and a last object says that it is whole
(:class:`ssl_jax.train.object_store.CheckpointPath`).
"""

import asyncio
import json
import math
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore
from etils.epath.gpath import PosixGPath
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from ssl_jax.core.bucket import COMMIT, BucketPath, is_bucket, to_path
from ssl_jax.core.files import write_atomically
from ssl_jax.core.trees import flatten, unflatten
from ssl_jax.core.types import PyTree
from ssl_jax.train.object_store import CheckpointPath, kvstore_of, let_orbax_write_to_buckets

MANIFEST = "manifest"
TEN_YEARS = 315_576_000
"""Seconds. Orbax gives a save 20 minutes of wall-clock time: where the clock is set on, one that has just begun has failed."""
Items = Mapping[str, PyTree]
"""Name of a part of a directory that can be read on its own -> tree of arrays."""


class DamagedError(Exception):
    """What is on disk is not what was written."""


class MismatchError(ValueError):
    """What is on disk is whole, but belongs to another configuration."""


class IncompleteError(OSError):
    """What has just been written lacks arrays when its index is read back."""


class LiteralPath(PosixGPath):
    """A path as orbax is given it: every character stands for itself, and what is renamed has been read back.

    The class that orbax takes otherwise reads ``[``, ``*`` and ``?`` anywhere in a path as a pattern when it looks for the
    files of the processes, finds none, and commits a directory without an index. It also takes folders below ``/gs`` and
    ``/s3``, where buckets are mounted, for the buckets.

    >>> [str(LiteralPath(name)) for name in ("/runs/lr[0.1]", "/s3/runs")]
    ['/runs/lr[0.1]', '/s3/runs']
    """

    @property
    def _uri_scheme(self) -> None:
        return None

    def glob(self, pattern: str) -> Iterator["LiteralPath"]:
        """Yield the files below this directory that match ``pattern``."""
        for path in Path(self).glob(pattern):
            yield type(self)(path)

    def rename(self, target: Any) -> "LiteralPath":
        """Rename; a whole directory of arrays, which that publishes, only if its index has all of them."""
        directory = Path(self)
        if (directory / MANIFEST).is_dir():
            require_complete(directory)
        directory.rename(target)
        return type(self)(target)


UNNAMEABLE: dict[str, Callable[[Path], bool]] = {
    "with a backslash in its name": lambda path: "\\" in str(path),
    "whose name ends with '.__lock'": lambda path: any(part.endswith(".__lock") for part in path.parts),
    "whose name ends with 'gs:'": lambda path: any(part.endswith("gs:") for part in path.parts),
    "whose name is not UTF-8": lambda path: str(path) != str(path).encode(errors="replace").decode(),
}
"""What the library below orbax (tensorstore) reads as another path, or not at all."""


def resolve_directory(directory: str | Path) -> Path:
    """Return the absolute path of a folder below which arrays can be written and read.

    Raises:
      ValueError: the path has one of ``UNNAMEABLE``.

    >>> str(resolve_directory("/runs/a=1,b={2,3} [x]*?~#@%"))
    '/runs/a=1,b={2,3} [x]*?~#@%'
    >>> resolve_directory("/runs/a.__lock")
    Traceback (most recent call last):
    ...
    ValueError: '/runs/a.__lock': arrays cannot be written below a folder whose name ends with '.__lock': rename it
    """
    if is_bucket(directory):
        bucket = to_path(directory)
        if "\\" in str(bucket):
            raise ValueError(
                f"{str(bucket)!a}: arrays cannot be written below a name with a backslash: rename it"
            )
        return bucket
    path = Path(directory).absolute()
    # The library takes "link/.." for the folder that the link is in, the file system for the one above what it points to.
    path = path.resolve() if ".." in path.parts else path
    for what, is_in in UNNAMEABLE.items():
        if is_in(path):
            raise ValueError(f"{str(path)!a}: arrays cannot be written below a folder {what}: rename it")
    return path


class Manifest:
    """Description of a directory, written next to the arrays while orbax writes them.

    Implements orbax's ``StatefulCheckpointable``: the arrays are held on the host when the constructor
    returns, their checksums are computed in the background, and the commit waits for them. An array of which
    no process holds all (sharded over several hosts) gets ``null`` for a checksum.

    Args:
      items: what is saved in the directory.
      facts: JSON-able mapping, stored under ``facts``; numbers that are not finite become strings.
    """

    def __init__(self, items: Items, facts: Mapping[str, Any]) -> None:
        leaves = {(item, path): leaf for item, tree in items.items() for path, leaf in flatten(tree).items()}
        for leaf in leaves.values():
            _start_copy(leaf)
        self._arrays = {name: to_host(leaf) for name, leaf in leaves.items()}
        self._leaves = {name: describe(leaf) for name, leaf in leaves.items()}
        self._facts = strict_json(facts)

    async def save(self, directory: Any) -> Awaitable[None]:
        return self._save(directory)

    async def _save(self, directory: Any) -> None:
        path = to_path(await directory.await_creation())
        if jax.process_index() == 0:
            await asyncio.to_thread(self._write, path / f"{MANIFEST}.json")
        self._arrays.clear()

    def _write(self, path: Path) -> None:
        leaves: dict[str, dict[str, Any]] = {}
        for (item, name), code in zip(self._arrays, checksums(self._arrays.values()), strict=True):
            leaves.setdefault(item, {})[name] = {**self._leaves[item, name], "crc32": code}
        path.write_text(_manifest_text({"facts": self._facts, "items": leaves}))

    async def load(self, directory: Any) -> Awaitable[None]:
        raise NotImplementedError("read a manifest with read_manifest")


def describe(leaf: Any) -> dict[str, Any]:
    """Describe an array by shape and dtype, JSON-able.

    >>> import numpy as np
    >>> describe(np.ones((2, 3), np.float32))
    {'shape': [2, 3], 'dtype': 'float32'}
    """
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def is_key(leaf: Any) -> bool:
    """Return whether an array, or the description of one, holds typed PRNG keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(leaf: Any) -> np.ndarray | None:
    """Copy the bits of an array to host memory, of keys their data; ``None`` if this process does not hold all."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            return None
        leaf = leaf.addressable_data(0)
    return np.asarray(leaf)


def _start_copy(leaf: Any) -> None:
    """Let the copies to the host of many arrays overlap."""
    if isinstance(leaf, jax.Array) and not is_key(leaf) and leaf.is_fully_addressable:
        leaf.copy_to_host_async()


def checksums(arrays: Iterable[np.ndarray | None]) -> list[int | None]:
    """Compute the CRC-32 of the bytes of each array, several at a time (zlib lets other threads run).

    >>> import numpy as np
    >>> checksums([np.arange(3, dtype=np.uint8), None])
    [139757951, None]
    """

    def checksum(array: np.ndarray | None) -> int | None:
        # Viewed as bytes: bfloat16 has no buffer protocol.
        return (
            None if array is None else zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        )

    with ThreadPoolExecutor(thread_name_prefix="checksum") as pool:
        return list(pool.map(checksum, arrays))


def _manifest_text(content: Mapping[str, Any]) -> str:
    return json.dumps({"crc32": _checksum_of_json(content), **content}, indent=1)


def _checksum_of_json(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def strict_json(value: Any) -> Any:
    """Return the same value with infinities and NaN as strings, which JSON has no numbers for.

    >>> strict_json({"loss": float("nan"), "steps": [1, 2.5]})
    {'loss': 'nan', 'steps': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        return {key: strict_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def packed(items: Items, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what orbax is given to save: each item as nested plain dicts, and the manifest.

    Arrays without elements, which orbax does not store, are in the manifest only.
    """
    trees = {item: _stored(flatten(tree)) for item, tree in items.items()}
    return {**trees, MANIFEST: Manifest(items, facts)}


def _stored(flat: Mapping[str, Any]) -> dict[str, Any]:
    return unflatten({path: leaf for path, leaf in flat.items() if 0 not in leaf.shape})


def orbax_path(directory: Path) -> LiteralPath | CheckpointPath:
    """Return a path as orbax is given it."""
    if not is_bucket(directory):
        return LiteralPath(directory)
    let_orbax_write_to_buckets()
    return CheckpointPath(directory)


def is_whole(directory: Path) -> bool:
    """Tell whether a directory was written to its end: on a file system by its name, in a bucket by its last object."""
    return (directory / COMMIT).is_file() if isinstance(directory, BucketPath) else directory.is_dir()


def literal(directory: Path) -> ocp.Context:
    """Return orbax's settings for paths in which every character stands for itself."""
    context = ocp.Context()
    context.file.path_class = type(orbax_path(directory))
    return context


def patient(directory: Path) -> ocp.Context:
    """Return orbax's settings for writing, without a time-out; a write that hangs is the watchdog's to tell."""
    context = literal(directory)
    context.asynchronous.timeout_secs = TEN_YEARS
    return context


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a directory: ``facts`` and, under ``items``, each array's shape, dtype and checksum.

    Raises:
      DamagedError: it is missing or not as it was written.
    """
    path = directory / MANIFEST / f"{MANIFEST}.json"
    try:
        content = json.loads(path.read_text())
        code = content.pop("crc32")
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read ({error})") from error
    if code != _checksum_of_json(content):
        raise DamagedError(f"{path} fails its checksum")
    if not _is_manifest(content):
        raise DamagedError(f"{path} is not the manifest of a checkpoint")
    return content


def update_facts(directory: Path, changes: Mapping[str, Any]) -> None:
    """Change some of the facts of a directory that has been written, in one step.

    Raises:
      DamagedError: the manifest cannot be read.
      OSError: it cannot be written; then it is as it was.
    """
    content = read_manifest(directory)
    content["facts"] |= strict_json(changes)
    write_atomically(directory / MANIFEST / f"{MANIFEST}.json", _manifest_text(content))


def _is_manifest(content: Any) -> bool:
    """Whether it has the form that :class:`Manifest` writes: a checksum can be right of anything."""
    facts, items = content.get("facts"), content.get("items")
    if not isinstance(facts, dict) or not isinstance(items, dict) or not isinstance(facts.get("step"), int):
        return False
    entries = [entry for item in items.values() if isinstance(item, dict) for entry in item.values()]
    return all(isinstance(item, dict) for item in items.values()) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("dtype"), str)
        and isinstance(entry.get("shape"), list)
        and all(isinstance(size, int) and size >= 0 for size in entry["shape"])
        and isinstance(entry.get("crc32", ""), int | None)
        for entry in entries
    )


def require_complete(directory: Path) -> None:
    """Read the index of a directory back: it must have every part of every array of the manifest.

    The arrays themselves are not read; their checksums are compared when they are.

    Raises:
      DamagedError: the manifest cannot be read.
      IncompleteError: an array is missing, has another shape, or lacks parts.
    """
    for item, described in read_manifest(directory)["items"].items():
        wanted = {path: entry["shape"] for path, entry in described.items() if 0 not in entry["shape"]}
        found = _index(directory / item) if wanted else {}
        lacking = [
            path
            for path, shape in wanted.items()
            # The data of a key have an axis more than the key.
            if found.get(path.replace("/", "."), [])[: len(shape)] != shape
            or path.replace("/", ".") not in found
        ]
        if lacking:
            raise IncompleteError(
                f"read back, {len(lacking)} of the {len(wanted)} arrays of {item} are not whole, such as {lacking[0]}"
            )


def _index(directory: Path) -> dict[str, list[int]]:
    """The shape of every array of which the index has all parts."""
    base = (
        kvstore_of(f"{directory}/") if is_bucket(directory) else {"driver": "file", "path": f"{directory}/"}
    )
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    parts: dict[str, int] = {}
    for key in store.list().result():
        # ``params.w/zarr.json`` describes an array, ``params.w/c/0/1`` is a part of it.
        name, _, rest = key.decode().partition("/")
        parts[name] = parts.get(name, 0) + (rest != "zarr.json")
    pending = {name: store.read(f"{name}/zarr.json") for name in parts}
    shapes = {}
    for name, reading in pending.items():
        text = reading.result().value
        if not text:
            continue
        described = json.loads(text)
        grid = described["chunk_grid"]["configuration"]["chunk_shape"]
        if parts[name] == math.prod(
            -(-size // part) for size, part in zip(described["shape"], grid, strict=True)
        ):
            shapes[name] = described["shape"]
    return shapes


def require_fit(directory: Path, manifest: Mapping[str, Any], items: Items) -> None:
    """Compare the description of arrays on disk with the arrays wanted.

    Raises:
      MismatchError: names the first path that differs, with both shapes and dtypes.
    """
    for item, tree in items.items():
        stored = {path: _text(entry) for path, entry in manifest["items"].get(item, {}).items()}
        wanted = {path: _text(describe(leaf)) for path, leaf in flatten(tree).items()}
        for path in [*wanted, *stored]:
            ours, theirs = wanted.get(path, "absent"), stored.get(path, "absent")
            if ours != theirs:
                raise MismatchError(
                    f"{directory} does not fit this configuration: {path} is {theirs} in the checkpoint and "
                    f"{ours} in the run. Restore the configuration that wrote it, or use another directory"
                )


def _text(entry: Mapping[str, Any]) -> str:
    """As in ``float32[2,3]``."""
    return f"{entry['dtype']}[{','.join(map(str, entry['shape']))}]"


def load(directory: Path, manifest: Mapping[str, Any], items: Items) -> dict[str, PyTree]:
    """Read items and verify the checksum of every array.

    Args:
      directory: a committed directory.
      manifest: its manifest.
      items: trees of ``jax.ShapeDtypeStruct`` (read to that sharding, or to the first device without one), or
        of numpy arrays (read to the host, whatever devices wrote it).

    Returns:
      The items as trees of the same structure.

    Raises:
      DamagedError: an array cannot be read, or its bits are not what was saved.
    """
    trees = {}
    for item, tree in items.items():
        wanted = {path: _with_sharding(leaf) for path, leaf in flatten(tree).items()}
        flat = flatten(_read(directory, item, _stored(wanted)))
        flat |= {path: _without_elements(leaf) for path, leaf in wanted.items() if 0 in leaf.shape}
        _verify(manifest["items"][item], flat)
        trees[item] = jax.tree.unflatten(jax.tree.structure(tree), [flat[path] for path in wanted])
    return trees


def _read(directory: Path, item: str, abstract: dict[str, Any]) -> PyTree:
    # Whatever of the item is not asked for is passed over.
    context = literal(directory)
    context.pytree.loading.partial_load = True
    try:
        with context:
            return ocp.load_checkpointables(orbax_path(directory), {item: abstract})[item]
    except Exception as error:
        cause = innermost(error)
        # These say nothing about the files.
        if isinstance(cause, (MemoryError, jax.errors.JaxRuntimeError, PermissionError, Warning)):
            raise cause from error
        reason = str(cause).strip().split("\n")[0][:200]
        raise DamagedError(f"{item} cannot be read: {type(cause).__name__}: {reason}") from error


def _verify(described: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
    for (path, leaf), checksum in zip(flat.items(), checksums(map(to_host, flat.values())), strict=True):
        written = described[path]["crc32"]
        if None not in (written, checksum) and written != checksum:
            raise DamagedError(f"{path} {_text(describe(leaf))} fails its checksum")


def _with_sharding(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _without_elements(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)


def innermost(error: BaseException) -> BaseException:
    """Return the error at the bottom of a chain of causes: orbax wraps the true one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def agreed(problem: str) -> str:
    """Agree on one verdict in every process: a process without a problem of its own hears of the others'."""
    if jax.process_count() == 1:
        return problem
    others = multihost_utils.process_allgather(np.asarray(bool(problem)))
    return problem or ("another process could not read it" if others.any() else "")


def of_first_process(answer: bool) -> bool:
    """Return what the first process finds, in every process: a shared file system may show the others something else."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def on_first_process(action: Callable[[], None]) -> None:
    """Do something to the shared file system once, and go on when it is done."""
    if jax.process_index() == 0:
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("file system")
