"""Step to batch: a pure function of (seed, step), with corrupt images and host crops.

The global batch of step s holds the positions ``s * batch_size ... (s + 1) * batch_size - 1`` of an endless
sequence: the epochs one after the other, each a fresh permutation of the source. Process k of n loads the
positions ``[k * batch_size / n, (k + 1) * batch_size / n)`` of each step, so the parts side by side are the
same global batch in the same order for every n. What a position holds, its random crops included, depends on
``seed`` and the position alone: not on processes, worker processes, threads, or on where the run was resumed.
The same holds for batches with a fixed number of labelled rows (`Mixture`), which go through two such sequences.

Whole batches are made by index arithmetic, instead of chaining grain's shuffle, repeat, random_map, slice and
batch, for three reasons: grain's slices interleave the processes; its epoch e of seed s is epoch e - 1 of
seed s + 1, which correlates runs with neighbouring seeds; and every node of a chain costs time for every
example.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ssl_jax.augment.host import host_boxes, host_crops, most_reduction, prepare_for_evaluation
from ssl_jax.augment.views import View, asks_for_boxes
from ssl_jax.core import check
from ssl_jax.core.types import Batch
from ssl_jax.data.frames import Clips
from ssl_jax.data.labels import FewLabels, labels_of
from ssl_jax.data.shard_order import ShardOrder
from ssl_jax.data.sources import CorruptImage, Element, Source, Subset

SEARCH = 1000
"""How many examples in a row may be corrupt before the search for a substitute gives up."""
MostReduction = Callable[[int, int], float]
"""Given height and width of an image, by how much it may be reduced at most when it is decoded."""
MAX_CORRUPT_FRACTION = 0.1
"""Share of corrupt images that is put up with where nothing else is said: the default of every ``max_corrupt_fraction``."""
ORDER, CROPS, WINDOWS, LABELED, UNLABELED, SHARDS = range(6)  # what a random stream is for: no two share one


class TooManyCorrupt(RuntimeError):
    """More of the images are corrupt than ``max_corrupt_fraction`` allows."""


def _permutation(seed: int, purpose: int, epoch: int, length: int) -> np.ndarray:
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, epoch))
    order = np.random.Generator(np.random.Philox(sequence)).permutation(np.arange(length, dtype=np.int32))
    order.flags.writeable = False
    return order


_kept_permutation = functools.lru_cache(maxsize=4)(_permutation)


def example_indices(seed: int, start: int, count: int, length: int, *, purpose: int = ORDER) -> np.ndarray:
    """Return the examples at the positions ``start ... start + count - 1`` of the endless shuffled sequence.

    Epoch e holds the positions ``e * length ... (e + 1) * length - 1`` and every example once.

    Args:
      seed: seed of the order.
      start: first position, of any size.
      count: number of positions.
      length: examples in the source.
      purpose: purpose of the order: sequences of several purposes are independent.

    Returns:
      ``[count]`` int32.

    >>> sorted(example_indices(0, 5 * 10**12, 5, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    # Orders of which a batch takes many are short: made anew, they do not push out the long ones.
    order = _permutation if count > length else _kept_permutation
    parts = [np.zeros(0, np.int32)]
    while count > 0:
        epoch, offset = divmod(start, length)
        part = order(seed, purpose, epoch, length)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts)


@functools.lru_cache(maxsize=2)
def _epoch_of_shards(seed: int, epoch: int, shards: ShardOrder) -> np.ndarray:
    sequence = np.random.SeedSequence(seed, spawn_key=(SHARDS, epoch))
    order = shards.indices(np.random.Generator(np.random.Philox(sequence)))
    order.flags.writeable = False
    return order


def indices_in_shards(seed: int, start: int, count: int, shards: ShardOrder) -> np.ndarray:
    """Return the examples at the positions ``start ... start + count - 1`` of the endless sequence of shards in order.

    Args:
      seed: seed of the order.
      start: first position, of any size.
      count: number of positions.
      shards: which order an epoch has.

    Returns:
      ``[count]`` int32.

    >>> sorted(indices_in_shards(0, 5 * 10**6, 5, ShardOrder(np.array([2, 5]))).tolist())
    [0, 1, 2, 3, 4]
    """
    parts, length = [np.zeros(0, np.int32)], int(shards.ends[-1])
    while count > 0:
        epoch, offset = divmod(start, length)
        part = _epoch_of_shards(seed, epoch, shards)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts)


def shard_order_of(source: Source) -> ShardOrder | None:
    """Return the order of shards in which training takes a source; ``None``: all examples are shuffled.

    >>> from ssl_jax.data.sources import ArraySource
    >>> shard_order_of(ArraySource(np.zeros([2, 4, 4], np.uint8))) is None
    True
    """
    inner: object = source
    while hasattr(inner, "source") and not isinstance(inner, Subset):
        inner = inner.source
    return getattr(inner, "order", None)


def read_ahead(source: Source, indices: np.ndarray) -> None:
    """Let a source that reads from a store begin with examples that are asked for next."""
    inner: object = source
    while hasattr(inner, "source"):
        indices = inner.indices[indices] if isinstance(inner, Subset) else indices
        inner = inner.source
    if hasattr(inner, "read_ahead"):
        inner.read_ahead(indices)


def read_reduced(source: Source, index: int, most: MostReduction) -> Element:
    """Read an example, at a part of its size where its source can do that and ``most`` allows it.

    Args:
      source: the examples.
      index: which of them.
      most: given height and width of the image, by how much it may be reduced at most.

    Returns:
      The element; where it may have been reduced, also ``size`` and ``factor`` as of `ssl_jax.data.decode.Reduced`.
    """
    if isinstance(source, Subset):
        return read_reduced(source.source, int(source.indices[index]), most)
    if isinstance(source, FewLabels):
        return {**read_reduced(source.source, index, most), "label": int(source.labels[index])}
    read = getattr(source, "read_reduced", None)
    return source[index] if read is None else read(index, most)


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of every global batch that one process loads."""

    batch_size: int
    index: int
    count: int

    @property
    def rows(self) -> int:
        return self.batch_size // self.count

    def start(self, step: int) -> int:
        return step * self.batch_size + self.index * self.rows


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Batches whose first ``count`` rows are labelled examples and whose others are unlabelled ones.

    Each kind has an endless shuffled sequence of its own, through which it goes at its own pace: an epoch of the labelled
    examples is over when each of them has come once.

    Attributes:
      count: labelled rows of the global batch.
      labeled: indices of the labelled examples.
      unlabeled: indices of the others.
    """

    count: int
    labeled: np.ndarray
    unlabeled: np.ndarray

    def indices(self, seed: int, step: int, part: Part) -> np.ndarray:
        """Which examples a process loads at a step, in the order of its rows."""
        first = part.index * part.rows
        last, others = first + part.rows, part.batch_size - self.count
        from_known, to_known = min(first, self.count), min(last, self.count)
        from_rest, to_rest = max(first - self.count, 0), max(last - self.count, 0)
        known, rest = (
            example_indices(seed, step * size + begin, end - begin, max(len(among), 1), purpose=purpose)
            for size, begin, end, among, purpose in (
                (self.count, from_known, to_known, self.labeled, LABELED),
                (others, from_rest, to_rest, self.unlabeled, UNLABELED),
            )
        )
        return np.concatenate([self.labeled[known], self.unlabeled[rest]])


def mixture_of(source: Source, labeled_fraction: float, batch_size: int) -> Mixture:
    """Mix batches of ``batch_size`` of which a share is labelled.

    Args:
      source: with labelled examples.
      labeled_fraction: share of them, in (0, 1], rounded to whole rows; 1: there are no others.
      batch_size: rows of the global batch.

    Raises:
      ValueError: a share that leaves no row for one of the kinds, or a source without examples of it.

    >>> from ssl_jax.data.sources import ArraySource
    >>> source = ArraySource(np.zeros([4, 8, 8, 1], np.uint8), [0, -1, 1, -1])
    >>> mixture_of(source, 0.25, 8)
    Mixture(count=2, labeled=array([0, 2], dtype=int32), unlabeled=array([1, 3], dtype=int32))
    """
    check.require(
        0 < labeled_fraction <= 1, "labeled_fraction", labeled_fraction, "a share of the batch in (0, 1]"
    )
    count = round(labeled_fraction * batch_size)
    allowed = f"such that a batch of {batch_size} has a labelled and an unlabelled image, or 1"
    check.require(
        0 < count < batch_size or labeled_fraction == 1, "labeled_fraction", labeled_fraction, allowed
    )
    known = labels_of(source) >= 0
    mixture = Mixture(count, *(np.flatnonzero(part).astype(np.int32) for part in (known, ~known)))
    check.require(
        len(mixture.labeled) > 0, "labeled_fraction", labeled_fraction, f"None: {source.name} has no labels"
    )
    enough = labeled_fraction == 1 or len(mixture.unlabeled) > 0
    check.require(
        enough, "labeled_fraction", labeled_fraction, f"None or 1: every image of {source.name} has a label"
    )
    return mixture


class Reader:
    """Reads examples and remembers the corrupt ones, which are then not read again."""

    def __init__(self, source: Source):
        self.source = source
        self.corrupt: dict[int, CorruptImage] = {}

    def read(self, index: int, most: MostReduction | None = None) -> Element | None:
        """An example, at a part of its size where ``most`` is given and allows it; None: it is corrupt."""
        if index in self.corrupt:
            return None
        try:
            return self.source[index] if most is None else read_reduced(self.source, index, most)
        except CorruptImage as error:
            self.corrupt[index] = error
            return None

    def read_first(
        self, indices: Iterable[int], met: set[int], most: MostReduction | None = None
    ) -> tuple[int, Element]:
        """The first readable one of some examples, with its own index; corrupt ones on the way are added to ``met``."""
        tried: list[int] = []
        for index in itertools.islice(indices, SEARCH):
            example = self.read(index, most)
            if example is not None:
                return index, example
            met.add(index)
            tried.append(index)
        names = ", ".join(str(self.corrupt[i]) for i in sorted(set(tried))[:3])
        raise TooManyCorrupt(
            f"{len(set(tried))} images of {self.source.name} in a row cannot be read, among them {names}"
        )

    def report(self, met: set[int]) -> dict[str, str]:
        return {self.corrupt[i].name: self.corrupt[i].reason for i in sorted(met)}


class TrainingBatches:
    """Step to this process's part of the training batch; grain calls it in threads or in workers."""

    def __init__(
        self,
        source: Source,
        part: Part,
        *,
        seed: int,
        views: tuple[View, ...],
        reduced: bool = False,
        among: np.ndarray | None = None,
        mixture: Mixture | None = None,
    ):
        self.reader = Reader(source)
        self.part = part
        self.seed = seed
        self.views = views
        self.reduced = reduced
        self.among = among
        self.mixture = mixture
        self.keys = {
            purpose: np.random.SeedSequence(seed, spawn_key=(purpose,)).generate_state(2, np.uint64)
            for purpose in (CROPS, WINDOWS)
        }

    def __call__(self, step: int) -> Batch:
        start, source = self.part.start(step), self.reader.source
        met: set[int] = set()
        order = self.order(step)
        read_ahead(source, order)
        examples = [
            self.reader.read_first(self.substitutes(int(i)), met, self.most_reduction(start + row))
            for row, i in enumerate(order)
        ]
        images = [element["image"] for _, element in examples]
        batch: Batch = {
            "label": np.array([element["label"] for _, element in examples], np.int32),
            "index": np.array([index for index, _ in examples], np.int32),
            "corrupt": self.reader.report(met),
        }
        if isinstance(source, Clips):
            batch["clip"], batch["time"] = source.clips[batch["index"]], source.times[batch["index"]]
        if self.views:
            sizes = [(element.get("size"), element.get("factor", 1)) for _, element in examples]
            crops = [
                host_crops(self.rng(start + i), image, self.views, size=sizes[i][0], factor=sizes[i][1])
                for i, image in enumerate(images)
            ]
            batch["crops"] = tuple(np.stack(group) for group in zip(*crops, strict=True))
            if asks_for_boxes(self.views):
                boxes = [
                    host_boxes(self.rng(start + i), image, self.views, size=sizes[i][0])
                    for i, image in enumerate(images)
                ]
                batch["boxes"] = np.stack(boxes)
        else:
            batch["image"] = np.stack(images)
        return batch

    def most_reduction(self, position: int) -> MostReduction | None:
        """By how much the image at a position may be reduced for the crops that it will have there; None: not at all."""
        if not (self.reduced and self.views):
            return None
        return lambda height, width: most_reduction(self.rng(position), (height, width), self.views)

    def substitutes(self, index: int) -> Iterator[int]:
        """The example, and then those that may stand in for it, in the order in which they are tried.

        They are of its kind: those after it in the source, one round; of a mixture, those that have a label as it has, or have
        none; of ``among``, those in it. A frame has the nearest ones of its clip, then those after it. None is read yet.
        """
        yield index
        source, length = self.reader.source, len(self.reader.source)
        if isinstance(source, Clips) and self.among is None:
            clip = np.flatnonzero(source.clips == source.clips[index])
            # Of two that are equally near, the later.
            yield from sorted(map(int, clip), key=lambda frame: (abs(frame - index), -frame))[1:]
        for members in self.kinds:
            at = int(np.searchsorted(members, index))
            if at < len(members) and members[at] == index:
                yield from (int(members[(at + i) % len(members)]) for i in range(1, len(members)))
                return
        yield from ((index + i) % length for i in range(1, length))

    @functools.cached_property
    def kinds(self) -> tuple[np.ndarray, ...]:
        """Indices, sorted, of examples that stand in for each other only; of a plain stream none: all do."""
        if self.mixture is not None:
            return self.mixture.labeled, self.mixture.unlabeled
        return () if self.among is None else (np.unique(self.among),)

    def order(self, step: int) -> np.ndarray:
        """Which examples this process loads at a step, corrupt ones not yet replaced."""
        if self.mixture is not None:
            return self.mixture.indices(self.seed, step, self.part)
        source, start, rows = self.reader.source, self.part.start(step), self.part.rows
        if self.among is not None:
            return self.among[example_indices(self.seed, start, rows, len(self.among))]
        if not isinstance(source, Clips):
            shards = shard_order_of(source)
            if shards is not None:
                return indices_in_shards(self.seed, start, rows, shards)
            return example_indices(self.seed, start, rows, len(source))
        # The windows that these positions lie in, whole ones, of which the positions are a part.
        first, last = start // source.window, (start + rows - 1) // source.window
        clips = example_indices(self.seed, first, last - first + 1, len(source.lengths))
        draws = (self.rng(window, WINDOWS).random() for window in range(first, last + 1))
        windows = [source.window_of(int(clip), draw) for clip, draw in zip(clips, draws, strict=True)]
        offset = start - first * source.window
        return np.concatenate(windows)[offset : offset + rows]

    def rng(self, position: int, purpose: int = CROPS) -> np.random.Generator:
        """A generator of its own for every position: blocks of 2**128 numbers of one Philox stream a purpose."""
        counter = np.array([0, 0, position % 2**64, position >> 64], np.uint64)
        return np.random.Generator(np.random.Philox(key=self.keys[purpose], counter=counter))


class EvaluationBatches:
    """Step to this process's part of the evaluation batch: examples in order, padded, with a mask."""

    def __init__(self, source: Source, part: Part, *, size: int, crop_ratio: float):
        self.reader = Reader(source)
        self.part = part
        self.size = size
        self.crop_ratio = crop_ratio

    def __call__(self, step: int) -> Batch:
        source, rows = self.reader.source, self.part.rows
        batch: Batch = {
            "image": np.zeros((rows, self.size, self.size, source.channels), source.dtype),
            "label": np.full(rows, -1, np.int32),
            "index": np.full(rows, -1, np.int32),
            "mask": np.zeros(rows, bool),
        }
        start = self.part.start(step)
        met: set[int] = set()
        taken = range(start, min(start + rows, len(source)))
        read_ahead(source, np.array(taken, np.int64))
        for row, index in enumerate(taken):
            example = self.reader.read(index)
            if example is None:
                met.add(index)
                continue
            batch["image"][row] = prepare_for_evaluation(example["image"], self.size, self.crop_ratio)
            batch["label"][row], batch["index"][row], batch["mask"][row] = example["label"], index, True
        batch["corrupt"] = self.reader.report(met)
        return batch
