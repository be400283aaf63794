"""The batches of a run, as its steps take them."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.core.types import Batch
from ssl_jax.data.device_put import Prefetch, local_share, prefetch
from ssl_jax.data.loader import Stream, stream
from ssl_jax.train.run import Run
from ssl_jax.train.sharding import batch_sharding


def open_stream(run: Run, mesh: Mesh, step: int, among: np.ndarray | None, *, workers: int) -> Stream:
    """Open the images that a run sees from a step on: the part of every batch that this process's devices hold.

    Args:
      run: whose images.
      mesh: over which batches are split.
      step: updates made before the first batch.
      among: indices of the images to go through; ``None``: all of them.
      workers: data loading processes; 0: threads of this one.
    """
    # Not always the part of this process's rank.
    share = local_share(batch_sharding(mesh), run.batch_size)
    return stream(
        run.source,
        views=run.method.views,
        crop_on=run.crop_on,
        seed=run.seed,
        batch_size=run.batch_size,
        start_step=step,
        workers=workers,
        max_corrupt_fraction=run.max_corrupt_fraction,
        share=share,
        among=among,
        labeled_fraction=run.labeled_fraction,
    )


class StackedStreams(Iterator[Batch]):
    """Batches of several streams, along a new axis in front."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams

    def __next__(self) -> Batch:
        return jax.tree.map(lambda *x: np.stack(x), *(next(each) for each in self._streams))

    @property
    def corrupt(self) -> dict[str, str]:
        """The corrupt images met so far, by name, with what is wrong with them."""
        return {name: reason for each in self._streams for name, reason in each.corrupt.items()}

    def close(self) -> None:
        """Close all streams."""
        for each in self._streams:
            each.close()


class Batches:
    """Batches on the devices, which begin anew where a refresh changes the images that training goes through.

    Args:
      open_stream: ``(step, among) -> stream`` of host batches from a step on, among these indices (``None``: all).
      sharding: how a batch lies on the devices.
    """

    def __init__(
        self,
        open_stream: Callable[[int, np.ndarray | None], Stream | StackedStreams],
        sharding: jax.sharding.Sharding,
    ) -> None:
        self._open_stream, self._sharding = open_stream, sharding
        self._among: np.ndarray | None = None
        self._stream: Stream | StackedStreams | None = None
        self._batches: Prefetch | None = None
        self._corrupt: dict[str, str] = {}

    def open(self, step: int, among: np.ndarray | None) -> None:
        """Go on at a step, among these indices; batches that were read ahead are dropped if these are others."""
        if self._stream is not None and among is None and self._among is None:
            return
        self.close()
        self._among, self._stream = among, self._open_stream(step, among)
        self._batches = prefetch(self._stream, self._sharding)

    def next(self) -> Batch:
        """Wait for the next batch."""
        assert self._batches is not None
        return next(self._batches)

    @property
    def corrupt_count(self) -> int:
        """How many corrupt images were met."""
        now = {} if self._stream is None else self._stream.corrupt
        return len(self._corrupt | now)

    def close(self) -> None:
        """Stop reading ahead."""
        if self._stream is not None and self._batches is not None:
            self._corrupt |= self._stream.corrupt
            self._batches.close()
