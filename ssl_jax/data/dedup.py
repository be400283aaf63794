"""Duplicates among the images of a source: the same bytes, or features that point in nearly the same direction."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array
from ssl_jax.data.sources import CorruptImage, Source


class Duplicates(NamedTuple):
    """Which of n images stand for which.

    Attributes:
      kept_as: int32 ``[n]``, the image that is kept in place of each: itself where it is kept.
      similarity: float32 ``[n]``, cosine of the features of both; 1 where an image is kept, or has the same bytes.
    """

    kept_as: Int[np.ndarray, " n"]
    similarity: Float[np.ndarray, " n"]

    @property
    def kept(self) -> Int[np.ndarray, " kept"]:
        """Images that are kept, in their order."""
        return np.flatnonzero(self.kept_as == np.arange(len(self.kept_as)))

    @property
    def removed(self) -> Int[np.ndarray, " removed"]:
        """Images in whose place another is kept, in their order."""
        return np.flatnonzero(self.kept_as != np.arange(len(self.kept_as)))


def content_digests(source: Source, indices: Int[np.ndarray, " n"], *, threads: int = 1) -> list[bytes]:
    """Compute a digest of the content of images: of the file as it is stored, of the pixels where there is none.

    Args:
      source: the images.
      indices: ``[n]`` which of them.
      threads: images that are read at a time.

    Returns:
      A BLAKE2b digest of 16 bytes for each; ``b""`` for an image that cannot be read.

    Raises:
      ValueError: ``threads`` below 1.

    >>> from ssl_jax.data.sources import ArraySource
    >>> images = np.zeros([3, 2, 2], np.uint8)
    >>> images[1] = 7
    >>> digests = content_digests(ArraySource(images), np.arange(3))
    >>> digests[0] == digests[2], digests[0] == digests[1]
    (True, False)
    """
    check.require(threads >= 1, "threads", threads, "an integer of 1 or more")
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda index: _digest(source, int(index)), indices, chunksize=64))


def _digest(source: Source, index: int) -> bytes:
    read = getattr(source, "read_encoded", None)
    digest = hashlib.blake2b(digest_size=16)
    try:
        if read is not None:
            digest.update(read(index))
        else:
            image = np.ascontiguousarray(source[index]["image"])
            digest.update(f"{image.dtype.str}{image.shape}".encode())
            digest.update(image.tobytes())
    except (CorruptImage, OSError):
        return b""
    return digest.digest()


def exact_duplicates(digests: Sequence[bytes]) -> Duplicates:
    """Keep the first of the images with equal digests; one without a digest (``b""``) is kept.

    >>> exact_duplicates([b"a", b"b", b"a", b"", b""]).kept_as.tolist()
    [0, 1, 0, 3, 4]
    """
    first: dict[bytes, int] = {}
    kept_as = [first.setdefault(digest, i) if digest else i for i, digest in enumerate(digests)]
    return Duplicates(np.array(kept_as, np.int32), np.ones(len(kept_as), np.float32))


def near_duplicates(
    features: Float[np.ndarray, "n d"], threshold: float, *, block_size: int = 2048
) -> Duplicates:
    """Remove each image that is close to one that stands before it and is kept.

    In their order, image i is removed where ``max_j cos(x_i, x_j) >= threshold`` over the images j < i that are kept; it is
    then kept as the j of the largest cosine, of equal ones the first. So no two kept images are as close as the threshold, and
    every removed one has a kept one as close as that. (Connected components of the graph of close pairs promise neither: along
    a chain they remove images that are like none that stays.) Exact: every pair of an image and a kept one is compared,
    ``block_size``² at a time.

    Args:
      features: ``[n, d]``, of any norm; a row of zeros is like no other.
      threshold: cosine, above -1, at most 1.
      block_size: rows that are compared at a time.

    Returns:
      :class:`Duplicates`.

    Raises:
      ValueError: features that are not finite or of another rank, a threshold or a size out of range.

    >>> near_duplicates(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]]), 0.9).kept_as.tolist()
    [0, 1, 0]
    """
    check.require(features.ndim == 2, "features.shape", features.shape, "[n, d]")
    check.require_number("threshold", threshold, lambda t: -1 < t <= 1, "a cosine above -1, at most 1")
    check.require(block_size >= 1, "block_size", block_size, "an integer of 1 or more")
    check.require(
        bool(np.isfinite(features).all()), "features", "values that are not finite", "finite numbers"
    )
    count, width = features.shape
    size = max(min(block_size, count), 1)
    kept_as, similarity = np.arange(count, dtype=np.int32), np.ones(count, np.float32)
    bank: list[Array] = []  # chunks of `size` kept rows on the device; the last is filled up with zeros
    kept: list[np.ndarray] = []
    tail = np.zeros((0, width), np.float32)
    for start in range(0, count, size):
        rows = features[start : start + size].astype(np.float32)
        block = _unit(jnp.asarray(_pad(rows, size)))
        best, where = np.full(size, -np.inf, np.float32), np.zeros(size, np.int64)
        filled = [*bank, *([jnp.asarray(_pad(tail, size))] if len(tail) else [])]
        total = len(bank) * size + len(tail)
        for number, chunk in enumerate(filled):
            cosine, row = map(np.asarray, _nearest(block, chunk, jnp.int32(min(total - number * size, size))))
            better = cosine > best
            best, where = np.where(better, cosine, best), np.where(better, number * size + row, where)
        order = np.concatenate(kept) if kept else np.zeros(0, np.int64)
        inside = np.asarray(_cosines(block, block))
        own = _among_themselves(inside, best, threshold, len(rows))
        for row in range(len(rows)):
            inner = own[row]
            if inner >= 0:
                kept_as[start + row], similarity[start + row] = start + inner, inside[row, inner]
            elif best[row] >= threshold:
                kept_as[start + row], similarity[start + row] = order[where[row]], best[row]
        stays = np.flatnonzero(kept_as[start : start + len(rows)] == np.arange(start, start + len(rows)))
        kept.append(start + stays)
        tail = np.concatenate([tail, np.asarray(block)[stays]])
        if len(tail) >= size:
            bank.append(jnp.asarray(tail[:size]))
            tail = tail[size:]
    return Duplicates(kept_as, np.minimum(similarity, 1.0))


def _among_themselves(cosines: np.ndarray, best: np.ndarray, threshold: float, count: int) -> np.ndarray:
    """For each row of a block the kept row before it that is closer than any kept before the block; -1: there is none."""
    close = np.tril(cosines[:count, :count] >= threshold, -1)
    nearest = np.full(count, -1)
    kept = best[:count] < threshold
    for row in np.flatnonzero(close.any(axis=1)):
        candidates = np.flatnonzero(close[row] & kept)
        if len(candidates):
            inner = candidates[np.argmax(cosines[row, candidates])]
            kept[row] = False
            nearest[row] = inner if cosines[row, inner] > best[row] else -1
    return nearest


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    return np.pad(rows, ((0, size - len(rows)), (0, 0)))


@jax.jit
def _unit(rows: Array) -> Array:
    return numerics.normalize(rows)


@jax.jit
def _cosines(rows: Array, others: Array) -> Array:
    return jnp.matmul(rows, others.T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _nearest(rows: Array, bank: Array, count: Array) -> tuple[Array, Array]:
    """The largest cosine of each row with the first ``count`` rows of a chunk, and which it is."""
    cosines = jnp.where(jnp.arange(len(bank)) < count, _cosines(rows, bank), -jnp.inf)
    return jnp.max(cosines, axis=1), jnp.argmax(cosines, axis=1)


def join_duplicates(first: Duplicates, second: Duplicates) -> Duplicates:
    """Follow a removal by another one among the images that it has kept.

    Args:
      first: of all n images.
      second: of ``first.kept``, in this order.

    Returns:
      Of all n images; an image that is like one that is removed later is kept as the image that stays.

    Raises:
      ValueError: another number of images in ``second``.

    >>> first = Duplicates(np.array([0, 0, 2, 2]), np.ones(4, np.float32))
    >>> second = Duplicates(np.array([0, 0]), np.array([1.0, 0.9], np.float32))
    >>> joined = join_duplicates(first, second)
    >>> joined.kept_as.tolist(), joined.similarity.round(1).tolist()
    ([0, 0, 0, 0], [1.0, 1.0, 0.8999999761581421, 0.8999999761581421])
    """
    kept = first.kept
    check.require(len(second.kept_as) == len(kept), "second", len(second.kept_as), f"{len(kept)} images")
    place = np.zeros(len(first.kept_as), np.int64)
    place[kept] = np.arange(len(kept))
    through = place[first.kept_as]
    kept_as = kept[second.kept_as[through]].astype(np.int32)
    return Duplicates(kept_as, np.minimum(first.similarity, second.similarity[through]))
