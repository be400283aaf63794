"""Step to batch: a pure function of (seed, step), with corrupt images and host crops.

The global batch of step s holds the positions ``s * batch_size ... (s + 1) * batch_size - 1`` of an endless
sequence: the epochs one after the other, each a fresh permutation of the source. Process k of n loads the
positions ``[k * batch_size / n, (k + 1) * batch_size / n)`` of each step, so the parts side by side are the
same global batch in the same order for every n. What a position holds, its random crops included, depends on
``seed`` and the position alone: not on processes, worker processes, threads, or on where the run was resumed.

Whole batches are made by index arithmetic, instead of chaining grain's shuffle, repeat, random_map, slice and
batch, for three reasons: grain's slices interleave the processes; its epoch e of seed s is epoch e - 1 of
seed s + 1, which correlates runs with neighbouring seeds; and every node of a chain costs time for every
example.
"""

import dataclasses
import functools

import numpy as np

from ssl_jax.augment.host import center_crop_resize
from ssl_jax.augment.views import View, host_crops
from ssl_jax.core.types import Batch
from ssl_jax.data.sources import CorruptImage, Element, Source

SEARCH = 1000
"""How many examples in a row may be corrupt before the search for a substitute gives up."""
ORDER, CROPS = 0, 1  # what a random stream is for: the two never share one


class TooManyCorrupt(RuntimeError):
    """More of the images are corrupt than ``max_corrupt`` allows."""


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    sequence = np.random.SeedSequence(seed, spawn_key=(ORDER, epoch))
    order = np.random.Generator(np.random.Philox(sequence)).permutation(np.arange(length, dtype=np.int32))
    order.flags.writeable = False
    return order


def example_indices(seed: int, start: int, count: int, length: int) -> np.ndarray:
    """Which examples lie at the positions ``start ... start + count - 1`` of the endless shuffled sequence.

    Epoch e holds the positions ``e * length ... (e + 1) * length - 1`` and every example once.

    Args:
      seed: of the order.
      start: first position, of any size.
      count: how many positions.
      length: examples in the source.

    Returns:
      ``[count]`` int32.

    >>> sorted(example_indices(0, 5 * 10**12, 5, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    parts = []
    while count > 0:
        epoch, offset = divmod(start, length)
        part = _permutation(seed, epoch, length)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts)


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


class Reader:
    """Reads examples and remembers the corrupt ones, which are then not read again."""

    def __init__(self, source: Source):
        self.source = source
        self.corrupt: dict[int, CorruptImage] = {}

    def read(self, index: int) -> Element | None:
        if index in self.corrupt:
            return None
        try:
            return self.source[index]
        except CorruptImage as error:
            self.corrupt[index] = error
            return None

    def read_near(self, index: int, met: set[int]) -> tuple[int, Element]:
        """The example, or the first readable one after it; corrupt ones on the way are added to ``met``."""
        for _ in range(min(SEARCH, len(self.source))):
            example = self.read(index)
            if example is not None:
                return index, example
            met.add(index)
            index = (index + 1) % len(self.source)
        names = ", ".join(str(self.corrupt[i]) for i in sorted(met)[:3])
        raise TooManyCorrupt(
            f"{len(met)} images of {self.source.name} in a row cannot be read, among them {names}"
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
        among: np.ndarray | None = None,
    ):
        self.reader = Reader(source)
        self.part = part
        self.seed = seed
        self.views = views
        self.among = among
        self.key = np.random.SeedSequence(seed, spawn_key=(CROPS,)).generate_state(2, np.uint64)

    def __call__(self, step: int) -> Batch:
        start = self.part.start(step)
        length = len(self.reader.source) if self.among is None else len(self.among)
        order = example_indices(self.seed, start, self.part.rows, length)
        if self.among is not None:
            order = self.among[order]
        met: set[int] = set()
        found = [self.reader.read_near(int(index), met) for index in order]
        images = [element["image"] for _, element in found]
        batch: Batch = {
            "label": np.array([element["label"] for _, element in found], np.int32),
            "index": np.array([index for index, _ in found], np.int32),
            "corrupt": self.reader.report(met),
        }
        if self.views:
            crops = [host_crops(self.rng(start + i), image, self.views) for i, image in enumerate(images)]
            batch["crops"] = tuple(np.stack(group) for group in zip(*crops, strict=True))
        else:
            batch["image"] = np.stack(images)
        return batch

    def rng(self, position: int) -> np.random.Generator:
        """A generator of its own for every position: blocks of 2**128 numbers of one Philox stream."""
        counter = np.array([0, 0, position % 2**64, position >> 64], np.uint64)
        return np.random.Generator(np.random.Philox(key=self.key, counter=counter))


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
        for row, index in enumerate(range(start, min(start + rows, len(source)))):
            example = self.reader.read(index)
            if example is None:
                met.add(index)
                continue
            batch["image"][row] = self.resize(example["image"])
            batch["label"][row], batch["index"][row], batch["mask"][row] = example["label"], index, True
        batch["corrupt"] = self.reader.report(met)
        return batch

    def resize(self, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] == (self.size, self.size):
            return image
        return center_crop_resize(image, self.size, ratio=self.crop_ratio)
