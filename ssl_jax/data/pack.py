"""Shards of images: a source written as tar, parquet or array_record files of about the same size.

The order of the source is kept, so that the shards give the batches that the source gives. What has been written stays when the
process is killed: a shard is there whole, with its checksum beside it, or not at all. Shards of a bucket are made on this
machine, one at a time, and uploaded.
"""

import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from jaxtyping import Int
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from ssl_jax.core import check
from ssl_jax.core.bucket import BucketPath
from ssl_jax.core.files import write_atomically
from ssl_jax.data.arrow import optional_import
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION, TooManyCorrupt
from ssl_jax.data.files import sample_indices
from ssl_jax.data.fingerprint import fingerprint
from ssl_jax.data.labels import labels_of
from ssl_jax.data.sources import CorruptImage, Source, parse_split
from ssl_jax.data.stored_image import Encoding, StoredImage, store_image
from ssl_jax.data.stores import download, stat_file
from ssl_jax.data.tar import CLASS_NAMES

FORMATS = ("tar", "parquet", "array_record")
SHARD_MIB = 256
"""Size of a shard where nothing else is asked for."""
MANIFEST = "manifest.json"
"""File that is there when all shards of a split are."""
VERSION = 1
_AHEAD = 4
"""Images in work for each thread."""
_ROWS = 64
"""Rows of a parquet file that are held and written together."""
_SAID = 5.0
"""Seconds between two words about progress."""
_DATASET = "images"
"""Name of the set whose array_record files TensorFlow Datasets reads."""


@dataclasses.dataclass(frozen=True)
class Shards:
    """What is written, in what parts.

    Attributes:
      form: ``tar``, ``parquet`` or ``array_record``.
      mib: size of a shard in MiB, by the mean size of a sample of images.
      images: images of a shard, in place of ``mib``.
      encoding: how images are written.

    Raises:
      ValueError: a value out of range.
    """

    form: str = "tar"
    mib: float = SHARD_MIB
    images: int | None = None
    encoding: Encoding = dataclasses.field(default_factory=Encoding)

    def __post_init__(self) -> None:
        check.choice("format", self.form, FORMATS)
        check.positive("shard_mib", self.mib)
        few = self.images is None or self.images >= 1
        check.require(few, "shard_images", self.images, "None or an integer of 1 or more")


class Record(NamedTuple):
    """An image with what is written beside it.

    Attributes:
      image: the file of the image.
      label: its number, -1 for none.
      class_name: name of the label, "" for none.
      file_name: its name in the source.
      position: where it stands in the source.
    """

    image: StoredImage
    label: int
    class_name: str
    file_name: str
    position: int


class Packed(NamedTuple):
    """What :func:`pack` has written.

    Attributes:
      files: the shards, in their order.
      examples: images in them.
      size: bytes of all of them.
      corrupt: name and reason of every image that could not be read, and is left out.
      reused: shards that were there already.
    """

    files: tuple[Path, ...]
    examples: int
    size: int
    corrupt: tuple[tuple[str, str], ...]
    reused: int


def pack(
    source: Source,
    out: Path,
    shards: Shards,
    *,
    split: str = "train",
    indices: Int[np.ndarray, " n"] | None = None,
    about: Mapping[str, Any] | None = None,
    threads: int = 1,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
    say: Callable[[str], None] | None = None,
) -> Packed:
    """Write images of a source as shards.

    ``out`` gets the shards of the split. Its hidden folder ``.pack-SPLIT``, which no reader of the shards looks at, gets
    ``manifest.json`` when all of them are there: options, classes, and for every shard its file, number of images, bytes and
    SHA-256. Called again with the same images and options it goes on: shards whose
    checksum is right are kept. The bytes of the shards follow from images and options, not from threads or interruptions.

    Args:
      source: the images.
      out: folder of the shards, made where it is missing, or a path in a bucket; other splits may lie in it. A folder is
        locked; in a bucket whoever calls sees to it that no other process packs there.
      shards: what is written.
      split: split that the files are named by; of ``train[:90%]`` its name.
      indices: ``[n]`` which images, in this order; ``None``: all, in the order of the source.
      about: what else is told in ``manifest.json``, as JSON takes it.
      threads: images that are read, resized and encoded at a time.
      max_corrupt_fraction: share of images that cannot be read above which nothing is finished.
      say: takes a line on progress every few seconds.

    Returns:
      What is there now.

    Raises:
      ValueError: options out of range, images that the format cannot hold, or a folder with shards of other images or options.
      TooManyCorrupt: too many images cannot be read.
      ImportError: a format whose package is not installed.
      OSError: the disk is full, another process packs into the folder, or the store refuses.

    >>> import tempfile
    >>> from ssl_jax.data.sources import ArraySource
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     packed = pack(ArraySource(np.zeros([5, 4, 4], np.uint8)), Path(folder), Shards(images=2))
    ...     [file.name for file in packed.files], packed.examples
    (['train-00000-of-00003.tar', 'train-00001-of-00003.tar', 'train-00002-of-00003.tar'], 5)
    """
    check.require(threads >= 1, "threads", threads, "an integer of 1 or more")
    check.share("max_corrupt_fraction", max_corrupt_fraction)
    _require_format(source, shards)
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)
    check.require(chosen.ndim == 1 and len(chosen) > 0, "indices.shape", chosen.shape, "(n,), n >= 1")
    name, work = split_name(split), work_folder(out, split)
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        plan = _plan(source, chosen, shards)
        _require_same(out, work, plan)
        write_atomically(work / "plan.json", json.dumps(plan))
        job = _Job(source, shards, labels_of(source), threads)
        said = _Said(say, len(chosen))
        parts = np.split(chosen, range(plan["per_shard"], len(chosen), plan["per_shard"]))
        found, reused = [], 0
        with ThreadPoolExecutor(threads) as pool:
            for number, part in enumerate(parts):
                path = out / _file_name(shards.form, name, number, len(parts))
                note = work / f"{number:05d}.json"
                done = _read_note(note, path)
                if done is not None:
                    reused += 1
                    said.add(len(part))
                else:
                    done = _write_shard(path, job, part, pool, said)
                    write_atomically(note, json.dumps(done))
                found.append(done)
                _require_few_corrupt(found, max_corrupt_fraction, len(chosen), source.name)
        _finish(out, name, source, found, {"about": dict(about or {}), "plan": plan})
    corrupt = tuple((image, reason) for shard in found for image, reason in shard["corrupt"])
    files = tuple(out / shard["file"] for shard in found)
    examples, size = (sum(shard[key] for shard in found) for key in ("examples", "bytes"))
    return Packed(files, examples, size, corrupt, reused)


def split_name(split: str) -> str:
    """Return what the files of a split are named by.

    >>> split_name("train[:90%]"), split_name("train+test")
    ('train', 'train_test')
    """
    return re.sub(r"\W+", "_", parse_split(split)[0])


def work_folder(out: Path, split: str) -> Path:
    """Return where :func:`pack` keeps what it needs to go on: a hidden folder beside the shards.

    Args:
      out: folder of the shards.
      split: their split.
    """
    return out / f".pack-{split_name(split)}"


class _Job(NamedTuple):
    """What every shard is made from."""

    source: Source
    shards: Shards
    labels: np.ndarray
    threads: int


class _Said:
    """Says every few seconds how many images are packed."""

    def __init__(self, say: Callable[[str], None] | None, total: int) -> None:
        self._say, self._total, self._done = say, total, 0
        self._start = self._last = time.monotonic()

    def add(self, images: int) -> None:
        self._done += images
        now = time.monotonic()
        if self._say is not None and now - self._last >= _SAID:
            self._last = now
            rate = self._done / (now - self._start)
            self._say(f"{self._done:,} of {self._total:,} images, {rate:,.0f} a second")


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    if isinstance(work, BucketPath):
        yield
        return
    with open(work / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"{work.parent} is being packed by another process") from error
        yield


def _require_format(source: Source, shards: Shards) -> None:
    if shards.form == "array_record":
        fits = source.dtype in ("uint8", "uint16") and source.channels in (1, 3)
        allowed = "tar or parquet for images that are not gray or color of 8 or 16 bits"
        found = f"{source.channels} channels of {source.dtype}"
        if not fits:
            raise ValueError(f"format='array_record' for {found}: allowed is {allowed}")
    if shards.form == "parquet":
        optional_import("pyarrow.parquet")


def _plan(source: Source, chosen: np.ndarray, shards: Shards) -> dict[str, Any]:
    """What decides the bytes of the shards."""
    images = hashlib.blake2b(fingerprint(source).to_bytes(), digest_size=16)
    images.update(chosen.astype("<i8").tobytes())
    return {
        "version": VERSION,
        "format": shards.form,
        "images": images.hexdigest(),
        "count": len(chosen),
        "per_shard": shards.images or _images_per_shard(source, chosen, shards),
        **dataclasses.asdict(shards.encoding),
    }


def _images_per_shard(source: Source, chosen: np.ndarray, shards: Shards) -> int:
    sizes = []
    for place in sample_indices(len(chosen)):
        with contextlib.suppress(CorruptImage):
            sizes.append(len(store_image(source, int(chosen[place]), shards.encoding).content))
    if not sizes:
        raise TooManyCorrupt(f"{source.name}: none of the images looked at can be read")
    return max(round(shards.mib * 2**20 / float(np.mean(sizes))), 1)


def _require_same(out: Path, work: Path, plan: dict[str, Any]) -> None:
    try:
        old = json.loads((work / "plan.json").read_text())
    except FileNotFoundError:
        return
    except ValueError as error:
        raise ValueError(f"{work / 'plan.json'} is damaged: delete {out} and pack again") from error
    changed = [key for key in plan if old.get(key) != plan[key]]
    if changed:
        told = ", ".join("other images" if key == "images" else f"{key}={old.get(key)}" for key in changed)
        raise ValueError(
            f"out={str(out)!r} has shards of another packing ({told}): give another folder, or delete it"
        )


def _file_name(form: str, split: str, number: int, count: int) -> str:
    place = f"{number:05d}-of-{count:05d}"
    return f"{_DATASET}-{split}.array_record-{place}" if form == "array_record" else f"{split}-{place}.{form}"


def _read_note(note: Path, path: Path) -> dict[str, Any] | None:
    """What is known of a shard; None where it is not there, or not as it was written."""
    try:
        done = json.loads(note.read_text())
        file = stat_file(str(path))
        same = file.size == done["bytes"] and _sha256(path) == done["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    return done if same else None


class _Digest(io.RawIOBase):
    """A file of which only the SHA-256 is kept."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        self.sha256.update(content)
        return len(content)


def _sha256(path: Path) -> str:
    digest = _Digest()
    download(stat_file(str(path)), cast(IO[bytes], digest))
    return digest.sha256.hexdigest()


def _write_shard(
    path: Path, job: _Job, part: np.ndarray, pool: ThreadPoolExecutor, said: _Said
) -> dict[str, Any]:
    corrupt: list[tuple[str, str]] = []
    examples = 0
    with contextlib.ExitStack() as stack:
        if isinstance(path, BucketPath):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssl_jax_pack_")))
            partial = place / path.name
        else:
            partial = path.with_name(f".{path.name}.partial")
            stack.callback(partial.unlink, missing_ok=True)
        with _WRITERS[job.shards.form](partial, job) as writer:
            for record in _records(job, part, pool):
                said.add(1)
                if isinstance(record, CorruptImage):
                    corrupt.append((record.name, record.reason))
                else:
                    writer.write(record)
                    examples += 1
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        done = {
            "file": path.name,
            "examples": examples,
            "bytes": partial.stat().st_size,
            "sha256": _sha256(partial),
            "corrupt": corrupt,
        }
        if isinstance(path, BucketPath):
            path.upload(partial)
        else:
            os.replace(partial, path)
    return done


def _records(job: _Job, part: np.ndarray, pool: ThreadPoolExecutor) -> Iterator[Record | CorruptImage]:
    """The images of a shard in their order, some of them in work at a time."""
    waiting: collections.deque[Future[Record | CorruptImage]] = collections.deque()
    rest = iter(part.tolist())
    try:
        for index in itertools.islice(rest, job.threads * _AHEAD):
            waiting.append(pool.submit(_record, job, index))
        while waiting:
            record = waiting.popleft().result()
            waiting.extend(pool.submit(_record, job, index) for index in itertools.islice(rest, 1))
            yield record
    finally:
        for future in waiting:
            future.cancel()


def _record(job: _Job, index: int) -> Record | CorruptImage:
    try:
        image = store_image(job.source, index, job.shards.encoding)
    except CorruptImage as error:
        return error
    label = int(job.labels[index])
    classes = job.source.classes
    class_name = classes[label] if 0 <= label < len(classes) else ""
    return Record(image, label, class_name, job.source.file_name(index), index)


def _require_few_corrupt(found: Sequence[Mapping[str, Any]], most: float, total: int, name: str) -> None:
    corrupt = [pair for shard in found for pair in shard["corrupt"]]
    if len(corrupt) > most * total:
        some = "; ".join(f"{image}: {reason}" for image, reason in corrupt[:3])
        raise TooManyCorrupt(
            f"{name}: {len(corrupt)} of {total} images cannot be read, above max_corrupt_fraction={most}: {some}"
        )


def _finish(
    out: Path, name: str, source: Source, found: Sequence[Mapping[str, Any]], more: Mapping[str, Any]
) -> None:
    told = {
        "split": name,
        "source": source.name,
        "classes": list(source.classes),
        "channels": source.channels,
        "dtype": source.dtype,
        "examples": sum(shard["examples"] for shard in found),
        "shards": list(found),
        **more,
    }
    write_atomically(work_folder(out, name) / MANIFEST, json.dumps(told, indent=1))
    if more["plan"]["format"] == "tar" and source.classes:
        write_atomically(out / CLASS_NAMES, "".join(f"{name}\n" for name in source.classes))
    if more["plan"]["format"] == "array_record":
        _describe_to_tfds(out, source)


# Formats


class _Writer(Protocol):
    """Writes the records of a shard."""

    def __enter__(self) -> "_Writer": ...

    def __exit__(self, *error: object) -> None: ...

    def write(self, record: Record) -> None: ...


class _TarWriter:
    """WebDataset's convention: for each image the files KEY.jpg (or as it is stored), KEY.cls and KEY.json, in this order.

    Names of classes are in ``classnames.txt`` beside the shards.
    """

    def __init__(self, path: Path, job: _Job) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (closed at the exit)

    def __enter__(self) -> "_TarWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._tar.close()

    def write(self, record: Record) -> None:
        key = f"{record.position:09d}"
        self._add(f"{key}.{record.image.extension}", record.image.content)
        if record.label >= 0:
            self._add(f"{key}.cls", str(record.label).encode())
        told = {"file_name": record.file_name, "class_name": record.class_name}
        self._add(f"{key}.json", json.dumps(told).encode())

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)  # of no user and no time, so that its bytes follow from the images
        member.size, member.mode = len(content), 0o644
        self._tar.addfile(member, io.BytesIO(content))


class _ParquetWriter:
    """Hugging Face's convention: a column of structs of bytes and path, and class labels with their names."""

    def __init__(self, path: Path, job: _Job) -> None:
        self._pyarrow = pyarrow = optional_import("pyarrow")
        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        fields = [("image", image)]
        self._labeled = bool(job.source.classes)
        if self._labeled:
            fields.append(("label", pyarrow.int64()))
            features["label"] = {"_type": "ClassLabel", "names": list(job.source.classes)}
        told = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pyarrow.schema(fields, metadata=told)
        # Encoded images do not become smaller, and the least and the largest of a column are whole images.
        self._writer = optional_import("pyarrow.parquet").ParquetWriter(
            path, self._schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self._rows: list[Record] = []

    def __enter__(self) -> "_ParquetWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._rows and error[0] is None:
            self._flush()
        self._writer.close()

    def write(self, record: Record) -> None:
        self._rows.append(record)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        columns: list[list[Any]] = [
            [{"bytes": record.image.content, "path": record.file_name} for record in self._rows]
        ]
        if self._labeled:
            columns.append([record.label if record.label >= 0 else None for record in self._rows])
        arrays = [
            self._pyarrow.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


class _ArrayRecordWriter:
    """A set of TensorFlow Datasets: records with an image, a class label where there are any, and the name of the file."""

    def __init__(self, path: Path, job: _Job) -> None:
        features = _tfds_features(job.source)
        self._serializer = ExampleSerializer(features.get_serialized_info())
        self._labeled = bool(job.source.classes)
        self._writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")

    def __enter__(self) -> "_ArrayRecordWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(self, record: Record) -> None:
        if record.image.extension not in ("jpg", "png"):
            raise ValueError(
                f"format='array_record': {record.file_name} is {record.image.extension}, and TensorFlow Datasets holds JPEG "
                "and PNG: give tar or parquet"
            )
        example: dict[str, Any] = {"image": record.image.content, "file_name": record.file_name.encode()}
        if self._labeled:
            example["label"] = record.label
        # The order of a map in a message is the process's own unless it is asked for.
        message = self._serializer.get_tf_example(example)
        self._writer.write(message.SerializeToString(deterministic=True))


_WRITERS: dict[str, Callable[[Path, _Job], _Writer]] = {
    "tar": _TarWriter,
    "parquet": _ParquetWriter,
    "array_record": _ArrayRecordWriter,
}


def _tfds_features(source: Source) -> Any:
    fields = {
        "image": tfds.features.Image(
            shape=(None, None, source.channels),
            dtype=np.dtype(source.dtype),
            encoding_format="png" if source.dtype == "uint16" else None,
        ),
        "file_name": tfds.features.Text(),
    }
    if source.classes:
        fields["label"] = tfds.features.ClassLabel(names=list(source.classes))
    return tfds.features.FeaturesDict(fields)


def _describe_to_tfds(out: Path, source: Source) -> None:
    """Write what TensorFlow Datasets reads, of all splits that are there."""
    manifests = [json.loads(path.read_text()) for path in sorted(out.glob(f".pack-*/{MANIFEST}"))]
    if not isinstance(out, BucketPath):
        _write_tfds_metadata(out, manifests, source)
        return
    with tempfile.TemporaryDirectory() as place:
        shards = {Path(place) / shard["file"] for told in manifests for shard in told["shards"]}
        for path in shards:
            path.touch()  # it looks at their names
        _write_tfds_metadata(Path(place), manifests, source)
        for path in sorted(set(Path(place).iterdir()) - shards):
            write_atomically(out / path.name, path.read_bytes())


def _write_tfds_metadata(place: Path, manifests: Sequence[Mapping[str, Any]], source: Source) -> None:
    splits = []
    for told in manifests:
        name = tfds.core.ShardedFileTemplate(
            str(place), dataset_name=_DATASET, split=told["split"], filetype_suffix="array_record"
        )
        splits.append(
            tfds.core.SplitInfo(
                name=told["split"],
                shard_lengths=[shard["examples"] for shard in told["shards"]],
                num_bytes=sum(shard["bytes"] for shard in told["shards"]),
                filename_template=name,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(place),
        features=_tfds_features(source),
        split_infos=splits,
        filename_template=None,
        check_data=False,
    )
