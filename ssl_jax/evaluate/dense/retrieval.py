"""Segmentation by nearest neighbors: a memory of patches with their classes, and queries that take theirs."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import normalize, top_k
from ssl_jax.core.types import Array
from ssl_jax.data.masks import VOID
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.dense.features import ImageMap, MapEncoder, cells_of_pixels, map_features
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.train.features import AnyArray

NEIGHBORS = 30
TEMPERATURE = 0.02


class Patches(NamedTuple):
    """Patches of many images with their classes.

    Attributes:
      features: float32 ``[n, d]``.
      shares: float32 ``[n, classes]``, the share of a patch's pixels that are of each class; void pixels are of none.
      images: int32 ``[n]``, position of the image that a patch is of.
    """

    features: np.ndarray
    shares: np.ndarray
    images: np.ndarray

    def take(self, rows: AnyArray) -> "Patches":
        """Return some of the patches."""
        return Patches(*(column[np.asarray(rows)] for column in self))


def patch_shares(
    target: Int[np.ndarray, "h w"],
    grid: tuple[int, int],
    classes: int,
    covered: tuple[float, float] = (1.0, 1.0),
) -> Float[np.ndarray, "rows columns {classes}"]:
    """Compute the share of the pixels of each patch that are of each class.

    A pixel belongs to the patch in which its center lies. A patch with void pixels has shares of a sum below 1.

    Args:
      target: classes of the pixels, :data:`ssl_jax.data.masks.VOID` for none.
      grid: rows and columns of patches.
      classes: number of classes.
      covered: shares of rows and columns that show the image.

    >>> patch_shares(np.array([[0, 1, 1, -1], [0, 0, 1, 1]]), (1, 2), 2)[0].tolist()
    [[0.75, 0.25], [0.0, 0.75]]
    """
    rows = cells_of_pixels(grid[0], target.shape[0], covered[0])
    columns = cells_of_pixels(grid[1], target.shape[1], covered[1])
    cells = grid[0] * grid[1]
    cell = rows[:, None] * grid[1] + columns[None]
    counted = target != VOID
    keys = cell[counted] * classes + target[counted]
    counts = np.bincount(keys, minlength=cells * classes).reshape(*grid, classes)
    pixels = np.bincount(cell.ravel(), minlength=cells).reshape(*grid, 1)
    return (counts / np.maximum(pixels, 1)).astype(np.float32)


def collect_patches(
    encoder: MapEncoder,
    source: Source,
    *,
    classes: int,
    memory: int,
    framing: Framing = Framing(),  # noqa: B008 (a tuple)
    batch_size: int = 16,
    seed: int = 0,
) -> Patches:
    """Encode the images of a source and keep patches of them with their classes, each image the same number at most.

    ``⌊memory / images⌋`` patches of each image, at least one, are drawn from those with a pixel that is not void, all alike.
    With fewer places than images some of the images, at even distances, give one each. So memory is bounded by
    ``memory · (d + classes) · 4`` bytes, whatever the number of images; maps are held for a batch at a time.

    Args:
      encoder: gives the maps.
      source: images with a ``target``.
      classes: number of classes.
      memory: patches at most, 1 or more.
      framing: how images become inputs.
      batch_size: images at a time.
      seed: seed of the draw.

    Raises:
      ValueError: no patch has a class.
    """
    check.require(memory >= 1, "memory", memory, "an integer of 1 or more")
    count = len(source)
    indices = np.arange(count)
    if memory < count:
        indices = np.unique(np.linspace(0, count - 1, memory).round().astype(int))
    quota = max(memory // count, 1)
    kept: list[Patches] = []
    maps = map_features(encoder, source, framing=framing, batch_size=batch_size, indices=indices.tolist())
    for found in maps:
        kept.append(draw_patches(found, classes=classes, count=quota, seed=seed))
    if not sum(len(part.images) for part in kept):
        raise ValueError(f"{source.name}: no pixel of its masks has a class")
    kept.sort(key=lambda part: part.images[:1].tolist())  # one order, whatever the sizes
    return Patches(*(np.concatenate(column) for column in zip(*kept, strict=True)))


def draw_patches(image_map: ImageMap, *, classes: int, count: int, seed: int) -> Patches:
    """Draw patches of one image that have a class, without replacement; the draw follows from the seed and the image.

    Args:
      image_map: map of an image, with its ``target``.
      classes: number of classes.
      count: patches at most.
      seed: seed.
    """
    features = image_map.features.reshape(-1, image_map.features.shape[-1])
    shares = patch_shares(
        image_map.element["target"], image_map.features.shape[:2], classes, image_map.covered
    )
    shares = shares.reshape(-1, classes)
    rows = np.flatnonzero(shares.sum(1) > 0)
    if len(rows) > count:
        generator = np.random.default_rng((seed, image_map.index))
        rows = np.sort(generator.choice(rows, count, replace=False))
    return Patches(features[rows], shares[rows], np.full(len(rows), image_map.index, np.int32))


def retrieve(
    queries: Float[AnyArray, "m d"],
    memory: Float[AnyArray, "n d"],
    shares: Float[AnyArray, "n classes"],
    *,
    k: int = NEIGHBORS,
    temperature: ScalarLike = TEMPERATURE,
    block: int = 1024,
) -> Float[Array, "m classes"]:
    """Give each query the classes of its nearest patches of a memory.

    ``Σ_{i ∈ top-k} w_i s_i`` with ``w = softmax(cos(q, f_i) / τ)`` over the k patches of the largest cosine and s_i their
    shares of classes. Of equal cosines the earlier patch comes first.

    Args:
      queries: features, not normalised.
      memory: features of the memory, not normalised.
      shares: their shares of classes, see :func:`patch_shares`.
      k: neighbors, in [1, n].
      temperature: τ > 0.
      block: queries at a time: ``block · n`` similarities are held.

    Returns:
      Votes in [0, 1], of a sum of at most 1.

    Raises:
      ValueError: k, temperature or block out of range.

    >>> bank = np.eye(3, dtype=np.float32)
    >>> retrieve(bank[:2], bank, np.eye(3, 2, dtype=np.float32), k=1).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Reference: Balažević et al., Towards In-Context Scene Understanding (2023), section 3.2. Deviations: exact neighbors; void
      pixels vote for nothing, where the public code of others counts them as class 0.
    """
    check.require(1 <= k <= len(memory), "k", k, f"in [1, {len(memory)}], the patches of the memory")
    check.positive("temperature", temperature)
    check.require(block >= 1, "block", block, "an integer of 1 or more")
    bank = normalize(jnp.asarray(memory, jnp.float32))
    return _retrieve(jnp.asarray(queries, jnp.float32), bank, jnp.asarray(shares), temperature, k, block)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _retrieve(
    queries: Array, bank: Array, shares: Array, temperature: ScalarLike, k: int, block: int
) -> Array:
    def votes(rows: Array) -> Array:
        similarity, nearest = top_k(rows @ bank.T, k)
        weights = jax.nn.softmax(similarity / temperature, axis=-1)
        return jnp.einsum("mk,mkc->mc", weights, shares[nearest])

    block = min(block, max(len(queries), 1))
    normalized = normalize(queries)
    padded = jnp.pad(normalized, ((0, -len(queries) % block), (0, 0)))
    found = jax.lax.map(votes, padded.reshape(-1, block, queries.shape[-1]))
    return found.reshape(-1, shares.shape[-1])[: len(queries)]
