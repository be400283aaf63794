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
from ssl_jax.data.stored_image import read_stored


class Duplicates(NamedTuple):
    """Which of n images stand for which.

    Attributes:
      kept_as: int32 ``[n]``, the image that is kept in place of each: itself where it is kept.
      closest: int32 ``[n]``, the nearest image that stands before each and is kept, -1 where none was compared; of a removed
        one ``kept_as``.
      similarity: float32 ``[n]``, cosine of the features of both; 1 of the same bytes, -1 where none was compared.
    """

    kept_as: Int[np.ndarray, " n"]
    closest: Int[np.ndarray, " n"]
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
    digest = hashlib.blake2b(digest_size=16)
    try:
        content = read_stored(source, index)
        if content is not None:
            digest.update(content)
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
    numbers = [first.setdefault(digest, i) if digest else i for i, digest in enumerate(digests)]
    kept_as = np.array(numbers, np.int32)
    removed = kept_as != np.arange(len(kept_as))
    return Duplicates(
        kept_as, np.where(removed, kept_as, -1), np.where(removed, 1.0, -1.0).astype(np.float32)
    )


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
    closest, similarity = np.full(count, -1, np.int32), np.full(count, -1.0, np.float32)
    kept = np.zeros(count, bool)
    bank: list[Array] = []  # chunks of `size` kept rows on the device
    tail = np.zeros((0, width), np.float32)  # kept rows that do not fill a chunk yet
    for start in range(0, count, size):
        rows = features[start : start + size].astype(np.float32)
        here = slice(start, start + len(rows))
        block = _unit(jnp.asarray(_pad(rows, size)))
        best, which = _nearest_in_bank(block, bank, tail, len(rows))
        inside = np.asarray(_cosines(block, block))[: len(rows), : len(rows)]
        kept[here] = _keep(inside, best, threshold)
        before = np.where(np.tril(np.ones_like(inside, bool), -1) & kept[here], inside, -np.inf)
        inner = before.argmax(axis=1)
        nearer = before.max(axis=1) > best
        order = np.append(np.flatnonzero(kept[:start]), -1)  # -1: the bank is empty
        closest[here] = np.where(nearer, start + inner, order[which])
        similarity[here] = np.where(nearer, before.max(axis=1), np.where(closest[here] < 0, -1.0, best))
        tail = np.concatenate([tail, np.asarray(block)[: len(rows)][kept[here]]])
        if len(tail) >= size:
            bank.append(jnp.asarray(tail[:size]))
            tail = tail[size:]
    kept_as = np.where(kept, np.arange(count), closest).astype(np.int32)
    return Duplicates(kept_as, closest, np.clip(similarity, -1.0, 1.0))


def _nearest_in_bank(
    block: Array, bank: list[Array], tail: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The largest cosine of each row with a kept one before the block, and which of the kept that is; -1: there is none."""
    size = len(block)
    best, which = np.full(count, -np.inf, np.float32), np.full(count, -1)
    chunks = [*bank, jnp.asarray(_pad(tail, size))] if len(tail) else bank
    for number, chunk in enumerate(chunks):
        filled = size if number < len(bank) else len(tail)
        cosine, row = (np.asarray(x)[:count] for x in _nearest(block, chunk, jnp.int32(filled)))
        better = cosine > best
        best, which = np.where(better, cosine, best), np.where(better, number * size + row, which)
    return best, which


def _keep(cosines: np.ndarray, best: np.ndarray, threshold: float) -> np.ndarray:
    """Which rows of a block are kept: those that are not close to one kept before the block, or before them in it."""
    close = np.tril(cosines >= threshold, -1)
    kept = best < threshold
    for row in np.flatnonzero(close.any(axis=1)):
        kept[row] &= not (close[row] & kept).any()
    return kept


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

    >>> first = exact_duplicates([b"a", b"a", b"b", b"b"])
    >>> joined = join_duplicates(first, near_duplicates(np.array([[1.0, 0.0], [1.0, 0.1]]), 0.9))
    >>> joined.kept_as.tolist(), joined.similarity.round(3).tolist()
    ([0, 0, 0, 0], [-1.0, 1.0, 0.9950000047683716, 0.9950000047683716])
    """
    kept = first.kept
    check.require(len(second.kept_as) == len(kept), "second", len(second.kept_as), f"{len(kept)} images")
    number = np.zeros(len(first.kept_as), np.int64)
    number[kept] = np.arange(len(kept))
    through = number[first.kept_as]  # the image that the first removal keeps, as the second counts
    stays = second.kept_as[through] == through
    same = first.closest < 0
    closest = np.where(second.closest[through] < 0, -1, kept[second.closest[through]])
    closest = np.where(stays & ~same, first.kept_as, closest)
    similarity = np.where(
        same,
        second.similarity[through],
        np.where(stays, first.similarity, np.minimum(first.similarity, second.similarity[through])),
    )
    return Duplicates(
        kept[second.kept_as[through]].astype(np.int32),
        closest.astype(np.int32),
        similarity.astype(np.float32),
    )
