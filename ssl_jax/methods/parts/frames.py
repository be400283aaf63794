"""Batches of frames of clips: time-contrastive networks, triplets of frames."""

from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch


def split_frames(batch: Batch) -> tuple[Array, Array, Array]:
    """Return the images ``[n, h, w, c]`` of a batch of frames, their clips ``[n]`` and their times ``[n]``.

    Raises:
      ValueError: the source has no clips.
    """
    require(
        "clip" in batch,
        "batch",
        sorted(batch),
        "one of frames, with clip and time: config.data.source=frames:<path> or frames:moving",
    )
    return batch["views"][0][:, 0], batch["clip"], batch["time"]
