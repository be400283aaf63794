"""Batches from a source, read ahead by grain: an endless stream for training, a pass for evaluation.

What a batch holds is defined in ``batches.py``; here are the arguments, the threads and worker processes, and
what is counted while they run.
"""

import multiprocessing
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.types import Batch
from ssl_jax.data.batches import (
    MAX_CORRUPT_FRACTION,
    EvaluationBatches,
    Part,
    TooManyCorrupt,
    TrainingBatches,
    mixture_of,
    shard_order_of,
)
from ssl_jax.data.sources import Source, Subset

CROP_ON = ("auto", "host", "host_reduced", "device")
"""Where crops are taken."""
SMALL = 96
"""``crop_on="auto"`` sends whole images of up to this side to the device, where cropping is faster."""
ENOUGH = 100
"""Examples that must have been seen (or the whole source) before the share of corrupt ones counts."""
ENDLESS = 2**62
_MANY_SIZES = "crop_on='host' or 'auto' and at least one view, since the images of this source vary in size"


class Stream(Iterator[Batch]):
    """Iterator over batches, read ahead by threads or worker processes. Made by ``stream`` and ``epoch``.

    Close it, or use it as a context manager; one that is forgotten is closed when it is collected or the
    program ends.

    Attributes:
      corrupt: name to reason of every corrupt image met so far by this process.
      wait_seconds: time that the consumer waited in ``next`` so far: over the wall time it is the input-stall
        share.
    """

    def __init__(
        self,
        batches: TrainingBatches | EvaluationBatches,
        steps: range,
        *,
        workers: int,
        threads: int,
        max_corrupt_fraction: float,
    ):
        self.corrupt: dict[str, str] = {}
        self.wait_seconds = 0.0
        self._source = batches.reader.source
        self._rows = batches.part.rows
        self._sampled = isinstance(batches, TrainingBatches)
        self._max_corrupt_fraction = max_corrupt_fraction
        self._seen = 0
        self._iterators = [_read_ahead(batches, steps, workers=workers, threads=threads)]
        self._finish = weakref.finalize(self, _close_and_forget, self._iterators)

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        if not self._finish.alive:
            raise StopIteration
        begin = time.perf_counter()
        try:
            batch = jax.tree.map(_copy, next(self._iterators[0]))
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError) and "terminated unexpectedly" in str(error):
                raise RuntimeError(_killed(str(error))) from error
            raise
        finally:
            self.wait_seconds += time.perf_counter() - begin
        self._note(batch.pop("corrupt"))
        return batch

    def _note(self, met: dict[str, str]) -> None:
        """Count and name the corrupt images of a batch; stop where they are too many."""
        new = {name: reason for name, reason in met.items() if name not in self.corrupt}
        self.corrupt.update(new)
        self._seen += self._rows
        seen, length = min(self._seen, len(self._source)), len(self._source)
        allowed = self._max_corrupt_fraction * length
        if seen < length if self._sampled else isinstance(self._source, Subset):
            # A sample, or a part of a source, may hold more than its share by chance: three standard deviations are forgiven.
            allowed = self._max_corrupt_fraction * seen + 3 * (self._max_corrupt_fraction * seen) ** 0.5
        if seen >= min(ENOUGH, length) and len(self.corrupt) > allowed:
            self.close()
            raise TooManyCorrupt(self._summary(seen))
        for name, reason in new.items():
            warnings.warn(f"{self._source.name}: skipped the corrupt image {name}: {reason}", stacklevel=3)

    def _summary(self, seen: int) -> str:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(self.corrupt.items())[:5])
        more = f"; and {len(self.corrupt) - 5} more" if len(self.corrupt) > 5 else ""
        return (
            f"{self._source.name}: {len(self.corrupt)} of the {seen} images seen are corrupt "
            f"({len(self.corrupt) / seen:.1%}, allowed is max_corrupt_fraction={self._max_corrupt_fraction:g}): {some}{more}. "
            "Repair or remove them, or raise max_corrupt_fraction (--config.data.max_corrupt_fraction when training, "
            "--max_corrupt_fraction of the other launchers)"
        )

    def close(self) -> None:
        """Stop threads and worker processes. May be called again; ``next`` then ends the iteration."""
        self._finish()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close_and_forget(iterators: list[Any]) -> None:
    """Grain complains at exit about iterators that are closed but still there: drop them too."""
    iterators.pop().close()


def _copy(leaf: Any) -> Any:
    """Copy out of the shared memory of a worker, which must not outlive the stream."""
    shared = isinstance(leaf, np.ndarray) and type(leaf) is not np.ndarray
    return np.array(leaf, subok=False) if shared else leaf


def _killed(message: str) -> str:
    hint = ""
    if "code -9" in message:
        hint = (
            ": killed from outside, most often because memory ran out: fewer workers or a smaller batch help"
        )
    elif "code -7" in message:
        hint = ": shared memory is full: give /dev/shm more space (docker run --shm-size=8g) or set workers=0"
    return f"a data worker died ({message.partition('.')[0]}){hint}"


def _start_worker(index: int, count: int) -> None:
    """Leave signals to the main process, which stops its workers after saving; end only when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read_ahead(
    batches: TrainingBatches | EvaluationBatches, steps: range, *, workers: int, threads: int
) -> grain.DatasetIterator[Batch]:
    """The batches of ``steps`` in order, made by threads here or in worker processes."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1 if threads else 0)
    dataset = grain.MapDataset.range(steps.start, steps.stop).map(batches).to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads its flags in workers; notebooks and tests parse none
            flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=_start_worker)
    return iter(dataset)


def _crops_on_host(source: Source, crop_on: str) -> bool:
    check.choice("crop_on", crop_on, CROP_ON)
    if crop_on == "auto":
        return source.shape is None or max(source.shape[:2]) > SMALL
    return crop_on in ("host", "host_reduced")


def _check(
    source: Source, batch_size: int, workers: int, threads: int, max_corrupt_fraction: float, part: Part
) -> None:
    check.require(len(source) > 0, "source", source.name, "a source with at least one image")
    check.require(len(source) < 2**31, "len(source)", len(source), "less than 2**31 images")
    share = (part.index, part.count)
    check.require(0 <= part.index < part.count, "share", share, "(index, count) with 0 <= index < count")
    allowed = f"a positive multiple of the {part.count} processes"
    check.require(batch_size >= 1 and batch_size % part.count == 0, "batch_size", batch_size, allowed)
    check.require(workers >= 0, "workers", workers, "an integer of 0 or more")
    check.require(threads >= 0, "threads", threads, "an integer of 0 or more")
    check.require(
        0 <= max_corrupt_fraction <= 1, "max_corrupt_fraction", max_corrupt_fraction, "a share from 0 to 1"
    )


def stream(
    source: Source,
    *,
    views: tuple[View, ...] | None = None,
    crop_on: str = "auto",
    seed: int,
    batch_size: int,
    start_step: int = 0,
    workers: int = 0,
    threads: int = 2,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
    share: tuple[int, int] | None = None,
    among: np.ndarray | None = None,
    labeled_fraction: float | None = None,
) -> Stream:
    """Stream endless training batches: this process's part of steps ``start_step``, ``start_step + 1``, ...

    Position p of step s holds example ``order[e][i]`` with ``(e, i) = divmod(s * batch_size + p,
    len(source))``, ``order[e]`` being the permutation of epoch e. So every example comes once an epoch,
    batches run over the ends of epochs, and a source smaller than the batch repeats inside it. Process k of n
    gets the positions ``k * batch_size / n`` and following: put side by side, the parts are the same global
    batch for every n. ``device_put.local_share`` gives k and n for a sharding. A stream from a later
    ``start_step`` is the tail of the whole one, at no cost.

    A corrupt image is replaced by the next readable one, whose label and index come with it, named in a warning once,
    and counted. A frame is replaced by the nearest readable one of its clip.

    Args:
      source: source of the examples.
      views: with crops on the host, the views to crop; None or (): images as they are.
      crop_on: ``"host"`` crops here, from full-resolution images; ``"host_reduced"`` too, but JPEGs are decoded at a half, a
        quarter or an eighth of their size where every crop still has as many pixels as its view, see
        :func:`ssl_jax.data.decode.decode_reduced`: faster for large photographs, other bits; ``"device"`` leaves it to
        ``augment.make_views``, from whole images of one shape; ``"auto"`` means the device for images of one
        shape with sides up to 96, else ``"host"``.
      seed: seed of order and crops, 0 to 2**32 - 1.
      batch_size: rows of the global batch.
      start_step: first step.
      workers: worker processes; 0: none. They start in seconds and need ``if __name__ == "__main__"`` in
        scripts.
      threads: threads that read ahead, in this process or in each worker; 0: nothing is read ahead.
      max_corrupt_fraction: share of corrupt images above which the stream stops: of the images seen, from 100 on,
        three standard deviations forgiven until a whole epoch was seen.
      share: index of the part of the batch to load, and number of parts; None: the process's rank and the number of
        processes, as JAX says.
      among: int ``[m]``, indices of examples, which take the place of the source: an epoch is m long, and an
        index that stands there twice comes twice. They stand in for each other where one is corrupt. None: every
        example once.
      labeled_fraction: share of labelled examples in every batch, in (0, 1], rounded to whole rows: the first rows of the
        global batch. Labelled and unlabelled examples then have epochs of their own, each a shuffled sequence as
        above with the part of the batch for the batch; 1 leaves the unlabelled ones out. A corrupt image is replaced
        by the next one of its kind. None: examples as they come.

    Returns:
      Iterator of dicts: ``image`` ``[batch / n, h, w, c]`` in the dtype of the source, or ``crops``, a tuple
      with an array ``[batch / n, views, s, s, c]`` for every size; ``label`` (-1: none) and ``index``, both
      int32 ``[batch / n]``. Of a source of clips an epoch has one window of every clip
      (:class:`ssl_jax.data.frames.Clips`), and batches hold ``clip`` and ``time`` of every frame too.

    Raises:
      ValueError: an argument out of its range, no image, or images of many shapes for the device.
      TooManyCorrupt: by ``next``.
      RuntimeError: by ``next``, where a worker process was killed.

    >>> from ssl_jax.data.sources import ArraySource
    >>> source = ArraySource(np.zeros([5, 8, 8, 1], np.uint8), [0, 1, 2, 3, 4])
    >>> with stream(source, seed=0, batch_size=10, threads=0) as batches:
    ...     batch = next(batches)
    >>> batch["image"].shape, sorted(batch["label"].tolist())
    ((10, 8, 8, 1), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    """
    part = Part(batch_size, *(share or (jax.process_index(), jax.process_count())))
    _check(source, batch_size, workers, threads, max_corrupt_fraction, part)
    check.require(0 <= seed < 2**32, "seed", seed, "0 to 2**32 - 1")
    check.require(start_step >= 0, "start_step", start_step, "an integer of 0 or more")
    host = _crops_on_host(source, crop_on)
    fits = (host and bool(views)) or source.shape is not None
    check.require(fits, "crop_on" if views else "views", crop_on if views else views, _MANY_SIZES)
    if among is not None:
        inside = among.ndim == 1 and len(among) > 0 and among.min() >= 0 and among.max() < len(source)
        check.require(bool(inside), "among", among, f"one index or more from 0 to {len(source) - 1}")
    host_views = tuple(views or ()) if host else ()
    if shard_order_of(source) is not None:
        own = "None for tar_in_order:, which has an order of its own; tar: takes it"
        check.require(among is None, "among", among, own)
        check.require(labeled_fraction is None, "labeled_fraction", labeled_fraction, own)
    mixture = None
    if labeled_fraction is not None:
        check.require(among is None, "labeled_fraction", labeled_fraction, "None where among is given")
        mixture = mixture_of(source, labeled_fraction, batch_size)
    batches = TrainingBatches(
        source,
        part,
        seed=seed,
        views=host_views,
        reduced=crop_on == "host_reduced",
        among=among,
        mixture=mixture,
    )
    steps = range(start_step, ENDLESS)
    return Stream(batches, steps, workers=workers, threads=threads, max_corrupt_fraction=max_corrupt_fraction)


def epoch(
    source: Source,
    *,
    batch_size: int,
    size: int,
    crop_ratio: float = 1.0,
    workers: int = 0,
    threads: int = 2,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
    share: tuple[int, int] = (0, 1),
) -> Stream:
    """Stream every example once, in order, for evaluation; images are brought to one size.

    An image of another size is resized so that its shorter side has ``size / crop_ratio`` pixels, and its
    centre is cropped; one that has the size already stays as it is. The last batch is filled up with rows
    whose ``mask`` is False (zeros, label and index -1); so is the row of a corrupt image. Every process gets
    the same number of batches.

    Args:
      source: source of the examples.
      batch_size: rows of every batch, over all processes.
      size: side of the images in pixels.
      crop_ratio: the side of the crop over the shorter side of the resized image, in (0, 1]; 0.875 is
        customary.
      workers: worker processes, as in ``stream``.
      threads: threads that read ahead, as in ``stream``.
      max_corrupt_fraction: share of corrupt images in the source above which the pass stops; three standard deviations are
        forgiven of a part of a source, :class:`ssl_jax.data.sources.Subset`.
      share: index of the part of every batch to load, and number of parts. By default all of it: each process sees the
        whole source.

    Returns:
      Iterator of dicts: ``image`` ``[batch / n, size, size, c]`` in the dtype of the source, ``label`` and
      ``index`` int32 ``[batch / n]``, ``mask`` bool ``[batch / n]``, True where the row is an example.

    Raises:
      ValueError: an argument out of its range, or no image.
      TooManyCorrupt: by ``next``.
      RuntimeError: by ``next``, where a worker process was killed.

    >>> from ssl_jax.data.sources import ArraySource
    >>> source = ArraySource(np.zeros([5, 8, 8, 1], np.uint8), [0, 1, 2, 3, 4])
    >>> for batch in epoch(source, batch_size=3, size=8, threads=0):
    ...     print(batch["label"], batch["mask"])
    [0 1 2] [ True  True  True]
    [ 3  4 -1] [ True  True False]
    """
    part = Part(batch_size, *share)
    _check(source, batch_size, workers, threads, max_corrupt_fraction, part)
    check.require(size >= 1, "size", size, "an integer of 1 or more")
    check.require(0 < crop_ratio <= 1, "crop_ratio", crop_ratio, "a number in (0, 1]")
    batches = EvaluationBatches(source, part, size=size, crop_ratio=crop_ratio)
    steps = range(-(-len(source) // batch_size))
    return Stream(batches, steps, workers=workers, threads=threads, max_corrupt_fraction=max_corrupt_fraction)
