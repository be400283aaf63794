"""Which images to take of many: spread out, or evenly over clusters of their features."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.types import Array, Key
from ssl_jax.ops.kmeans import Clusters, assign, kmeans

AnyArray = Array | np.ndarray


class Centers(NamedTuple):
    """Points that k-center chooses.

    Attributes:
      indices: int32 ``[k]``, the points in the order in which they were chosen.
      radii: float32 ``[k]``, largest distance of any point to the nearest of the first 1, 2, ..., k of them.
    """

    indices: Int[np.ndarray, " k"]
    radii: Float[np.ndarray, " k"]


def k_center(points: Float[np.ndarray, "n d"], count: int) -> Centers:
    """Choose points such that no point is far from a chosen one: farthest-first traversal.

    First the point nearest to the mean, then ``argmax_i min_{j chosen} ‖x_i − x_j‖`` again and again; of equally far ones the
    first. The largest distance of a point to the nearest chosen one is at most twice the smallest that ``count`` points can
    have. Each choice takes n distances, O(n d) in time, O(n) in memory beside the points.

    Args:
      points: x, ``[n, d]``.
      count: k, 1 to n. Where fewer points differ, points are chosen that coincide with others, none twice.

    Returns:
      :class:`Centers`.

    Raises:
      ValueError: points of another rank or that are not finite, a count out of range.

    >>> k_center(np.array([[0.0], [1.0], [2.0], [10.0]]), 3).indices.tolist()
    [2, 3, 0]

    Reference: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; to choose training images Sener &
    Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018, algorithm 1.
    """
    _require_points(points)
    check.require(1 <= count <= len(points), "count", count, f"an integer from 1 to the {len(points)} points")
    indices, radii = _farthest_first(jnp.asarray(points, jnp.float32), count)
    return Centers(np.asarray(indices), np.asarray(radii))


def _require_points(points: np.ndarray) -> None:
    check.require(points.ndim == 2 and len(points) > 0, "points.shape", points.shape, "[n, d], n >= 1")
    check.require(bool(np.isfinite(points).all()), "points", "values that are not finite", "finite numbers")


def _square(points: Array, center: Array) -> Array:
    return jnp.sum((points - center) ** 2, axis=1)


@functools.partial(jax.jit, static_argnums=1)
def _farthest_first(points: Array, count: int) -> tuple[Array, Array]:
    start = jnp.argmin(_square(points, jnp.mean(points, axis=0))).astype(jnp.int32)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        nearest, index = carry
        # A chosen point is marked by -1, so that it is never the farthest while another is left.
        nearest = jnp.minimum(nearest, _square(points, points[index])).at[index].set(-1.0)
        following = jnp.argmax(nearest).astype(jnp.int32)
        return (nearest, following), (index, jnp.sqrt(jnp.maximum(nearest[following], 0.0)))

    nearest = jnp.full(len(points), jnp.inf, points.dtype)
    return jax.lax.scan(step, (nearest, start), None, length=count)[1]


def even_quotas(sizes: Sequence[int] | Int[np.ndarray, " k"], total: int) -> Int[np.ndarray, " k"]:
    """Divide a number among clusters as evenly as their sizes allow.

    Args:
      sizes: ``[k]`` members of each cluster.
      total: how many to take of all.

    Returns:
      int64 ``[k]``: no more than the size of each; a cluster from which not all are taken gives at least as many as any
      other, to within one; their sum is ``total``, or all there are. What cannot be divided goes to the largest clusters, of
      equal ones to the first.

    Raises:
      ValueError: a size or a total below 0.

    >>> even_quotas([1, 10, 5, 0], 8).tolist()
    [1, 4, 3, 0]
    """
    sizes = np.asarray(sizes, np.int64)
    check.require(
        sizes.ndim == 1 and bool((sizes >= 0).all()), "sizes", sizes.tolist(), "integers of 0 or more"
    )
    check.require(total >= 0, "total", total, "an integer of 0 or more")
    if total >= sizes.sum():
        return sizes.copy()
    low, high = 0, int(sizes.max())  # the largest level at which no more than `total` are taken
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= total else (low, middle - 1)
    quotas = np.minimum(sizes, low)
    bigger = np.flatnonzero(sizes > low)
    order = bigger[np.argsort(-sizes[bigger], kind="stable")]
    quotas[order[: total - quotas.sum()]] += 1
    return quotas


def balance(
    labels: Int[np.ndarray, " n"], *, total: int | None = None, seed: int = 0
) -> Int[np.ndarray, " m"]:
    """Take examples evenly from clusters, at random in each.

    Args:
      labels: ``[n]`` cluster of each example, 0 or more; -1: none, it is not taken.
      total: how many to take, see :func:`even_quotas`; ``None``: from each cluster at most the median size of a cluster.
      seed: seed of the draw.

    Returns:
      int64 ``[m]``, the examples in their order.

    Raises:
      ValueError: labels of another rank, or without a cluster; a total below 0.

    >>> labels = np.array([0] * 8 + [1] * 2 + [2] * 3)
    >>> np.bincount(labels[balance(labels)]).tolist(), np.bincount(labels[balance(labels, total=10)]).tolist()
    ([3, 2, 3], [5, 2, 3])
    """
    check.require(
        labels.ndim == 1 and bool((labels >= 0).any()), "labels", labels.shape, "[n], with a cluster"
    )
    sizes = np.bincount(labels[labels >= 0])
    if total is None:
        total = int(np.minimum(sizes, int(np.median(sizes[sizes > 0]))).sum())
    quotas = even_quotas(sizes, total)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[labels[order] >= 0]
    order = order[np.argsort(labels[order], kind="stable")]  # by cluster, at random in each
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    return np.sort(order[rank < np.repeat(quotas, sizes)])


class Hierarchy(NamedTuple):
    """Clusters of clusters.

    Attributes:
      labels: for each level int32 ``[n]``, the cluster of each point at that level, the finest level first.
    """

    labels: tuple[Int[np.ndarray, " n"], ...]


def hierarchical_kmeans(
    key: Key,
    points: Float[np.ndarray, "n d"],
    clusters: Sequence[int],
    *,
    resamples: int = 10,
    per_cluster: int = 1,
    iterations: int = 20,
) -> Hierarchy:
    """Cluster points, then the centroids, then theirs.

    k-means alone puts most centroids where most points are. Its centroids are spread more evenly than the points, those of the
    next level more evenly still. At each level k-means is followed by ``resamples`` rounds that cluster only the
    ``per_cluster`` points nearest to each centroid and then assign all points to the new centroids, which has the same aim.

    Args:
      key: PRNG key.
      points: ``[n, d]``.
      clusters: number of clusters of each level, falling, from at most n.
      resamples: rounds at each level, 0 or more.
      per_cluster: points of each cluster that a round keeps, 1 or more.
      iterations: updates of each k-means.

    Returns:
      :class:`Hierarchy`.

    Raises:
      ValueError: points of another rank or that are not finite, numbers out of range.

    >>> points = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> fine, coarse = hierarchical_kmeans(jax.random.key(0), points, (4, 2)).labels
    >>> len(set(fine.tolist())), bool(coarse[0] == coarse[1] != coarse[2] == coarse[3])
    (4, True)

    Reference: Vo et al., "Automatic Data Curation for Self-Supervised Learning: A Clustering-Based Approach", TMLR 2024,
    section 3 (10 rounds; levels of 10M, 500k, 50k and 10k clusters for 743M images). Deviation: a round starts from the
    centroids of the one before, and keeps one point a cluster at least, so that clusters that coincide do not leave too few.
    """
    _require_points(points)
    sizes = [len(points), *clusters]
    falling = len(clusters) > 0 and all(a >= b >= 1 for a, b in itertools.pairwise(sizes))
    check.require(
        falling, "clusters", tuple(clusters), f"falling integers of 1 or more, from at most {len(points)}"
    )
    check.require(resamples >= 0, "resamples", resamples, "an integer of 0 or more")
    check.require(per_cluster >= 1, "per_cluster", per_cluster, "an integer of 1 or more")
    level, place = jnp.asarray(points, jnp.float32), np.arange(len(points))
    labels = []
    for count in clusters:
        key, level_key = jax.random.split(key)
        found, centroids = _one_level(level_key, level, count, resamples, per_cluster, iterations)
        place, level = found[place], centroids
        labels.append(place.astype(np.int32))
    return Hierarchy(tuple(labels))


def _one_level(
    key: Key, points: Array, count: int, resamples: int, per_cluster: int, iterations: int
) -> tuple[np.ndarray, Array]:
    key, first = jax.random.split(key)
    counted = np.ones(len(points), bool)
    found = _cluster(first, points, count, iterations, counted, None)
    for _ in range(resamples):
        key, own = jax.random.split(key)
        labels, distances = map(np.asarray, _assign(points, found.centroids))
        counted = _nearest_of_each(labels, distances, per_cluster)
        found = _cluster(own, points, count, iterations, counted, found.centroids)
    return np.asarray(_assign(points, found.centroids)[0]), found.centroids


_assign = jax.jit(assign)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _cluster(
    key: Key, points: Array, count: int, iterations: int, counted: AnyArray, start: Array | None
) -> Clusters:
    init = "k-means++" if start is None else start
    return kmeans(key, points, count, init=init, iterations=iterations, counted=jnp.asarray(counted))


def _nearest_of_each(labels: np.ndarray, distances: np.ndarray, number: int) -> np.ndarray:
    """Mark the ``number`` points of each cluster that are nearest to its centroid."""
    order = np.lexsort((distances, labels))
    sizes = np.bincount(labels)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    marked = np.zeros(len(labels), bool)
    marked[order[rank < number]] = True
    return marked


def sample_hierarchy(hierarchy: Hierarchy, total: int, *, seed: int = 0) -> Int[np.ndarray, " m"]:
    """Take examples evenly from the clusters of the coarsest level, in each evenly from those of the next, and so on.

    Args:
      hierarchy: the clusters.
      total: how many to take, at most all.
      seed: seed of the draw in clusters of the finest level.

    Returns:
      int64 ``[total]``, the examples in their order.

    Raises:
      ValueError: a total out of range.

    >>> fine, coarse = np.array([0, 0, 0, 0, 1, 2, 2]), np.array([0, 0, 0, 0, 0, 1, 1])
    >>> taken = sample_hierarchy(Hierarchy((fine, coarse)), 4)
    >>> np.bincount(fine[taken]).tolist()
    [1, 1, 2]

    Reference: as :func:`hierarchical_kmeans`, section 3.4. Deviation: of what cannot be divided evenly one more comes from the
    largest clusters, so that the number is exact.
    """
    count = len(hierarchy.labels[0])
    check.require(1 <= total <= count, "total", total, f"an integer from 1 to the {count} examples")
    groups = [(np.arange(count), total)]
    for labels in reversed(hierarchy.labels):
        groups = [
            (members[labels[members] == cluster], int(quota))
            for members, wanted in groups
            for cluster, quota in _divide(labels[members], wanted)
            if quota
        ]
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(members)[:wanted] for members, wanted in groups]))


def _divide(labels: np.ndarray, total: int) -> list[tuple[int, int]]:
    clusters, sizes = np.unique(labels, return_counts=True)
    return list(zip(clusters.tolist(), even_quotas(sizes, total).tolist(), strict=True))
