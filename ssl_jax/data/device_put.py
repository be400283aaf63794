"""Host batches to global arrays on devices, a few batches ahead of the step that uses them."""

import queue
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import jax

from ssl_jax.core import check
from ssl_jax.core.types import Batch


def local_share(sharding: jax.sharding.Sharding, batch_size: int) -> tuple[int, int]:
    """Return which part of every global batch this process must load: part ``index`` of ``count`` equal parts.

    Part k of n holds the positions ``k * batch_size / n`` up to ``(k + 1) * batch_size / n`` of the global
    batch. A mesh may list devices in another order than the processes' ranks, so that process 0 does not hold
    part 0: therefore ask here instead of passing ``jax.process_index()`` on. Replicated batches give (0, 1):
    every process loads everything.

    Args:
      sharding: layout of the batch on the devices; its first axis is the batch.
      batch_size: rows of the global batch, over all processes.

    Returns:
      ``(index, count)``, to be given to ``loader.stream`` as ``share``.

    Raises:
      ValueError: the devices do not divide the batch, or the rows of this process are not one contiguous
        part.

    >>> local_share(jax.sharding.SingleDeviceSharding(jax.devices()[0]), 8)
    (0, 1)
    """
    shards = sharding.addressable_devices_indices_map((batch_size,)).values()
    rows = {index[0].indices(batch_size)[:2] for index in shards if index is not None}
    return _contiguous_part(rows, batch_size)


def _contiguous_part(rows: set[tuple[int, int]], batch_size: int) -> tuple[int, int]:
    """``(index, count)`` of the part that the row ranges of one process cover together."""
    start, stop = min(rows)[0], max(stop for _, stop in rows)
    size = stop - start
    contiguous = sum(last - first for first, last in rows) == size
    check.require(
        contiguous and batch_size % size == 0 and start % size == 0,
        "sharding",
        sorted(rows),
        "one contiguous, equal part of the batch a process: list the mesh's devices process by process",
    )
    return start // size, batch_size // size


def put_batch(batch: Any, sharding: jax.sharding.Sharding) -> Any:
    """Make one global array a leaf, from the part of the batch that this process loaded.

    Row i of the part becomes row ``index * rows + i`` of the global array, ``index`` being this process's
    ``local_share``; so the global array is the same array for every number of processes and devices.

    Args:
      batch: tree of numpy arrays ``[local batch, ...]``.
      sharding: layout of the arrays on the devices; only the first axis may be split.

    Returns:
      The tree with ``jax.Array`` leaves ``[global batch, ...]``.

    Raises:
      ValueError: the rows cannot be divided evenly among the devices (raised by JAX, naming the sizes).

    >>> import numpy as np
    >>> put_batch({"label": np.arange(3)}, jax.sharding.SingleDeviceSharding(jax.devices()[0]))["label"].shape
    (3,)
    """
    return jax.make_array_from_process_local_data(sharding, batch)


class Prefetch(Iterator[Batch]):
    """Iterator over placed batches that a thread keeps ``depth`` ahead; see ``prefetch``.

    Attributes:
      wait_seconds: time that the consumer waited in ``next`` so far: over the wall time it is the input-stall
        share.
    """

    def __init__(self, iterator: Iterator[Any], sharding: jax.sharding.Sharding, *, depth: int):
        self.wait_seconds = 0.0
        self._ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._slots = threading.Semaphore(depth)
        stop = threading.Event()
        arguments = (iterator, sharding, self._ready, self._slots, stop)
        # The thread holds no reference to self, so an abandoned iterator is collected and stops its thread.
        thread = threading.Thread(target=_produce, args=arguments, name="ssl_jax-prefetch", daemon=True)
        self._finish = weakref.finalize(self, _stop, thread, stop, self._slots, iterator)
        thread.start()

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Batch:
        if not self._finish.alive:
            raise StopIteration
        start = time.perf_counter()
        batch, error = self._ready.get()
        self.wait_seconds += time.perf_counter() - start
        self._slots.release()
        if error is not None:
            self.close()
            raise error
        return batch

    def close(self) -> None:
        """Stop the thread and close the iterator below; ``next`` then ends. May be called again."""
        self._finish()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _produce(iterator, sharding, ready, slots, stop) -> None:
    """Body of the thread: batches, or the exception that ended them, in order."""
    while True:
        slots.acquire()
        if stop.is_set():
            return
        try:
            ready.put((put_batch(next(iterator), sharding), None))
        except BaseException as error:
            ready.put((None, error))
            return


def _stop(thread: threading.Thread, stop: threading.Event, slots: threading.Semaphore, iterator: Any) -> None:
    stop.set()
    slots.release()
    # The last reference may die in the thread itself, inside a garbage collection.
    if thread is not threading.current_thread():
        thread.join()
    if hasattr(iterator, "close"):
        iterator.close()


def prefetch(iterator: Iterator[Any], sharding: jax.sharding.Sharding, *, depth: int = 2) -> Prefetch:
    """Place the coming batches on the devices while the current step runs.

    A thread takes from ``iterator`` and places; at most ``depth`` batches beyond the one in use are on the
    devices. The order is that of ``iterator``; an exception raised by it appears at the place of its batch.
    Closing closes ``iterator`` too.

    Args:
      iterator: yields trees of numpy arrays ``[local batch, ...]``; the thread alone uses it from now on.
      sharding: as in ``place``.
      depth: 1 or more.

    Returns:
      Iterator with ``close()`` and ``wait_seconds``; also a context manager.

    >>> import numpy as np
    >>> sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> with prefetch(iter([np.zeros(2), np.ones(2)]), sharding) as batches:
    ...     [float(batch[0]) for batch in batches]
    [0.0, 1.0]
    """
    check.require(depth >= 1, "depth", depth, "an integer of 1 or more")
    return Prefetch(iterator, sharding, depth=depth)
