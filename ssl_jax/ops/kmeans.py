"""k-means (Lloyd's algorithm), plain and on the sphere, with static shapes; PCA-whitening of what goes into it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key

INITS = ("k-means++", "random")
EMPTY = ("split", "keep")
SPLIT = 1 / 1024
"""How far the centroid of an empty cluster is put from that of a big one, in root mean square distances to centroids."""


class Clusters(NamedTuple):
    """What k-means finds.

    Attributes:
      centroids: ``[k, d]``, unit rows where it was spherical.
      labels: ``[n]`` int32, the nearest centroid of each point; -1 for points that were not counted.
      inertia: sum of squared distances of the points to their centroids.
      history: ``[iterations + 1]``, the same with the centroids of the start, and after each update.
    """

    centroids: Float[Array, "k d"]
    labels: Int[Array, " n"]
    inertia: Float[Array, ""]
    history: Float[Array, " updates"]


def kmeans(
    key: Key,
    points: Float[Array, "n d"],
    clusters: int,
    *,
    iterations: int = 20,
    init: str | Float[Array, "k d"] = "k-means++",
    spherical: bool = False,
    empty: str = "split",
    counted: Bool[Array, " n"] | None = None,
    block_size: int = 1024,
) -> Clusters:
    """Find k clusters with a small sum of squared distances of the points to the means of their clusters.

    ``iterations`` times: ``y_i = argmin_k ‖x_i − c_k‖²``, then ``c_k`` = mean of the points with ``y_i = k``; at the end
    once more y. With ``spherical`` points and centroids are unit vectors, ``c_k = n(Σ x_i)``, so that y is the largest cosine.
    The objective, ``inertia``, never rises.

    Points may be spread over devices along their first axis: the result is that of one device, up to rounding. It is made for
    ``jit`` with static ``clusters`` and options. (On a GPU sums over clusters add in no fixed order; bits repeat with
    ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``.)

    Args:
      key: PRNG key of the start, and of splits.
      points: x, ``[n, d]``, any float dtype; computed in float32 or wider.
      clusters: k, 1 to n.
      iterations: updates of the centroids, 1 or more.
      init: ``"k-means++"``: points drawn one by one with probability proportional to their squared distance to the nearest
        one drawn before; ``"random"``: different points, drawn alike; or the centroids ``[k, d]``. Where fewer than k
        different points are counted, some centroids begin as copies.
      spherical: k-means on the unit sphere. A row of zeros is as near to every centroid.
      empty: fate of a centroid without points. ``"split"``: it moves beside the centroid of a cluster drawn with
        probability proportional to its number of points less one, and so takes about half of them; ``"keep"``: it stays.
      counted: ``[n]``, which points take part; ``None``: all. So a static number of rows can hold a changing number of points.
      block_size: points whose distances to all centroids, ``[block_size, k]``, are held at a time.

    Returns:
      The :class:`Clusters`. A counted point that is not finite makes ``inertia`` NaN.

    Raises:
      ValueError: arrays that do not fit, a count out of range, an unknown option.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> points = jnp.array([[0.0], [1.0], [10.0], [11.0]])
      >>> found = kmeans(jax.random.key(0), points, 2, init=points[:2], iterations=5)
      >>> found.centroids.ravel().tolist(), found.labels.tolist(), float(found.inertia)
      ([0.5, 10.5], [0, 0, 1, 1], 1.0)

    Reference: Lloyd, "Least squares quantization in PCM", 1982; Arthur & Vassilvitskii, "k-means++", SODA 2007, section 2.2;
    spherical with kept centroids: Caron et al. (SwAV), NeurIPS 2020, appendix on DeepCluster-v2. Deviations: faiss, which
    DeepCluster uses, moves both centroids of a split by ∓1/1024 of their coordinates; here the big one stays, so that the
    objective cannot rise, and the other moves by 1/1024 of the typical distance, which does not depend on the origin.
    scikit-learn draws several candidates for each centroid of k-means++.
    """
    check.require(points.ndim == 2, "points.shape", points.shape, "[n, d]")
    count, width = points.shape
    check.require(1 <= clusters <= count, "clusters", clusters, f"an integer from 1 to the {count} points")
    check.require(iterations >= 1, "iterations", iterations, "an integer of 1 or more")
    check.choice("empty", empty, EMPTY)
    if counted is None:
        counted = jnp.ones(count, bool)
    check.require(counted.shape == (count,), "counted.shape", counted.shape, f"({count},), one a point")
    points = numerics.normalize(points) if spherical else numerics.at_least_float32(points)
    # What is not counted may hold anything, and takes part in sums below.
    points = jnp.where(counted[:, None], points, 0.0)
    init_key, split_key = jax.random.split(key)
    if isinstance(init, str):
        draw = {"k-means++": _plus_plus, "random": _random}[check.choice("init", init, INITS)]
        centroids = points[draw(init_key, points, counted, clusters)]
    else:
        check.require(init.shape == (clusters, width), "init.shape", init.shape, f"{(clusters, width)}")
        centroids = numerics.normalize(init) if spherical else init
    centroids = centroids.astype(points.dtype)

    def label(centroids: Array) -> tuple[Array, Array]:
        labels, distances = assign(points, centroids, block_size=block_size)
        return labels, jnp.sum(distances, where=counted)

    def update(centroids: Array, key: Key) -> tuple[Array, Array]:
        labels, inertia = label(centroids)
        sizes = jax.ops.segment_sum(counted.astype(points.dtype), labels, clusters)
        sums = jax.ops.segment_sum(points, labels, clusters)
        means = numerics.normalize(sums) if spherical else sums / jnp.maximum(sizes, 1.0)[:, None]
        # Points that cancel leave no direction to their sum: all unit vectors are as good.
        occupied = jnp.any(sums != 0, axis=1) if spherical else sizes > 0
        moved = jnp.where(occupied[:, None], means, centroids)
        if empty == "split":
            spread = jnp.sqrt(inertia / jnp.maximum(jnp.sum(counted), 1))
            beside = _beside_big(key, moved, sizes, SPLIT * spread)
            beside = numerics.normalize(beside) if spherical else beside
            moved = jnp.where((sizes == 0)[:, None], beside, moved)
        return moved, inertia

    centroids, history = jax.lax.scan(update, centroids, jax.random.split(split_key, iterations))
    labels, inertia = label(centroids)
    return Clusters(centroids, jnp.where(counted, labels, -1), inertia, jnp.append(history, inertia))


def assign(
    points: Float[Array, "n d"], centroids: Float[Array, "k d"], *, block_size: int = 1024
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Find the nearest centroid of each point, ``argmin_k ‖x_i − c_k‖²``; of equally near ones the first.

    Args:
      points: x, ``[n, d]``, any float dtype.
      centroids: c, ``[k, d]``.
      block_size: points whose distances to all centroids are held at a time, 1 or more.

    Returns:
      ``(labels, squared distances)``, each ``[n]``: int32, and float32 or wider.

    Raises:
      ValueError: arrays that do not fit, a block size below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, squared = assign(jnp.array([[0.0], [3.0], [9.0]]), jnp.array([[1.0], [7.0]]))
      >>> labels.tolist(), squared.tolist()
      ([0, 0, 1], [1.0, 4.0, 4.0])

    Reference: Lloyd, "Least squares quantization in PCM", 1982.
    """
    fits = points.ndim == 2 and centroids.ndim == 2 and points.shape[1] == centroids.shape[1]
    check.require(fits, "centroids.shape", centroids.shape, f"[k, d] for points [n, d] of {points.shape}")
    check.require(block_size >= 1, "block_size", block_size, "an integer of 1 or more")
    points, centroids = map(numerics.at_least_float32, (points, centroids))
    # Around the origin ‖x − c‖² = ‖x‖² − 2 x·c + ‖c‖² loses the fewest digits.
    origin = jnp.mean(centroids, axis=0)
    near = centroids - origin
    half = jnp.sum(near * near, axis=1) / 2

    clusters = jnp.arange(len(near), dtype=jnp.int32)[:, None]

    def nearest(rows: Array) -> tuple[Array, Array]:
        moved = rows - origin
        # Clusters come first: their maxima then run over whole vectors of points, which argmax along a row does not.
        scores = jnp.matmul(near, moved.T, precision=jax.lax.Precision.HIGHEST) - half[:, None]
        best = jnp.max(scores, axis=0)
        first = jnp.min(jnp.where(scores == best, clusters, len(near)), axis=0)
        labels = jnp.where(first < len(near), first, 0)  # of a point that is not finite
        squares = jnp.sum((rows - centroids[labels]) ** 2, axis=1)
        # Where rounding hides more than 1 % of a distance and might have chosen, the differences themselves decide.
        others = jnp.where(clusters == labels, -jnp.inf, scores)
        noise = 8 * jnp.finfo(scores.dtype).eps * (jnp.sum(moved * moved, axis=1) + 2 * jnp.max(half))
        close = best - jnp.max(others, axis=0) <= noise
        doubtful = close & (noise > 0.01 * squares) & (squares > 0)

        def compare() -> tuple[Array, Array]:
            apart = numerics.squared_distances(rows, centroids)
            return jnp.argmin(apart, axis=1).astype(jnp.int32), jnp.min(apart, axis=1)

        return jax.lax.cond(jnp.any(doubtful), compare, lambda: (labels, squares))

    n = points.shape[0]
    blocks = -(-n // block_size)
    size = -(-n // blocks)
    # The axis along which points are spread over devices stays in front, so that every block is on all of them.
    padded = jnp.pad(points, ((0, blocks * size - n), (0, 0))).reshape(size, blocks, -1)
    labels, distances = jax.lax.map(nearest, padded.swapaxes(0, 1))
    return labels.T.reshape(-1)[:n], distances.T.reshape(-1)[:n]


def _plus_plus(key: Key, points: Array, counted: Array, clusters: int) -> Array:
    """Indices ``[k]`` of points drawn as k-means++ does."""

    def draw(key: Key, weights: Array) -> Array:
        # Where every point coincides with a centroid, any will do.
        weights = jnp.where(jnp.any(weights > 0), weights, counted)
        return jax.random.categorical(key, jnp.log(weights)).astype(jnp.int32)

    def pick(nearest: Array, key: Key) -> tuple[Array, Array]:
        index = draw(key, jnp.where(jnp.isinf(nearest), counted, nearest))
        return jnp.minimum(nearest, jnp.sum((points - points[index]) ** 2, axis=1)), index

    start = jnp.where(counted, jnp.inf, 0.0).astype(points.dtype)
    return jax.lax.scan(pick, start, jax.random.split(key, clusters))[1]


def _random(key: Key, points: Array, counted: Array, clusters: int) -> Array:
    """Indices ``[k]`` of different points; where too few are counted, the first of them again."""
    order = jnp.where(counted, jax.random.uniform(key, points.shape[:1]), -1.0)
    ranks, positions = numerics.top_k(order, clusters)
    return jnp.where(ranks >= 0, positions, positions[0])


def _beside_big(key: Key, centroids: Array, sizes: Array, distance: Array) -> Array:
    """For each cluster a place close to the centroid of another, drawn for its size; its own if none has two points."""
    which_key, where_key = jax.random.split(key)
    which = jax.random.categorical(which_key, jnp.log(jnp.maximum(sizes - 1, 0)), shape=sizes.shape)
    signs = jax.random.rademacher(where_key, centroids.shape, centroids.dtype)
    beside = centroids[which] + distance * signs / centroids.shape[1] ** 0.5
    return jnp.where(jnp.any(sizes > 1), beside, centroids)


def pca_whiten(
    points: Float[Array, "n d"], dim: int, *, epsilon: ScalarLike = 1e-6
) -> Float[Array, "n {dim}"]:
    """Project on the principal directions, each scaled to variance 1: covariance I.

    ``Λ^{−1/2} Vᵀ (x − mean)`` with the ``dim`` largest eigenvalues Λ and eigenvectors V of the covariance (of n − 1).

    Args:
      points: x, ``[n, d]``, any float dtype; computed in float32 or wider.
      dim: directions kept, 1 to the smaller of n and d.
      epsilon: share of the largest eigenvalue that is added to all: directions without variance stay small.

    Returns:
      ``[n, dim]``, in descending order of variance; the largest entry of every direction is positive. Zeros where points
      do not vary.

    Raises:
      ValueError: ``dim`` or ``epsilon`` out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> points = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
      >>> jnp.cov(pca_whiten(points, 2), rowvar=False).round(3).tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    Reference: Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018, section 3.3 (256
    dimensions; rows are then L2-normalised). Deviation: faiss adds nothing to the eigenvalues.
    """
    check.require(points.ndim == 2, "points.shape", points.shape, "[n, d]")
    most = min(points.shape)
    check.require(1 <= dim <= most, "dim", dim, f"an integer from 1 to {most}, the smaller of n and d")
    check.not_negative("epsilon", epsilon)
    exact = jax.lax.Precision.HIGHEST
    centered = numerics.center(points)
    covariance = jnp.matmul(centered.T, centered, precision=exact) / max(points.shape[0] - 1, 1)
    values, vectors = jnp.linalg.eigh(covariance)
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    largest = jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), axis=0)[None], axis=0)
    floor = epsilon * values[0]
    variances = jnp.maximum(values, 0.0) + floor
    inverse = jnp.where(variances > 0, jax.lax.rsqrt(jnp.where(variances > 0, variances, 1.0)), 0.0)
    scaled = vectors * jnp.sign(largest) * inverse
    return jnp.matmul(centered, scaled, precision=exact)


def sample_clusters_evenly(key: Key, labels: Int[Array, " n"], clusters: int) -> Int[Array, " n"]:
    """Draw n examples such that every cluster with members is drawn as often as any other, to within one.

    Of a cluster with more members than its share come different ones, drawn at random; of one with fewer all come, over and
    over, each as often as any other of the cluster to within one.

    Args:
      key: PRNG key.
      labels: ``[n]`` cluster of each example, 0 to ``clusters`` − 1; -1: none, the example is not drawn. One at least has a
        cluster.
      clusters: number of clusters, 1 or more; some may have no members.

    Returns:
      ``[n]`` int32 indices of examples, cluster by cluster.

    Raises:
      ValueError: no clusters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> labels = jnp.array([0, 0, 0, 0, 0, 2])
      >>> chosen = sample_clusters_evenly(jax.random.key(0), labels, 3)
      >>> jnp.bincount(labels[chosen], length=3).tolist()
      [3, 0, 3]

    Reference: Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018, section 3.2
    (trivial parametrisation). Deviations: small clusters go round instead of being drawn with replacement; and the
    authors' sampler indexes a list that is ordered by cluster with the indices of the unordered dataset, which makes its draw
    far from even: here it is as the paper says.
    """
    check.require(clusters >= 1, "clusters", clusters, "an integer of 1 or more")
    count = labels.shape[0]
    member_key, cluster_key = jax.random.split(key)
    labels = jnp.where(labels < 0, clusters, labels)
    by_cluster = jnp.lexsort((jax.random.uniform(member_key, (count,)), labels)).astype(jnp.int32)
    sizes = jnp.bincount(labels, length=clusters)
    starts = jnp.cumsum(sizes) - sizes
    # Those without members come last and are not reached; the others in random order, for some get one more.
    order = jnp.lexsort((jax.random.uniform(cluster_key, (clusters,)), sizes == 0))
    used = jnp.sum(sizes > 0)
    share, extra = count // used, count % used
    positions, longer = jnp.arange(count, dtype=jnp.int32), extra * (share + 1)
    rest = positions - longer
    rank = jnp.where(rest < 0, positions // (share + 1), extra + rest // jnp.maximum(share, 1))
    turn = jnp.where(rest < 0, positions % (share + 1), rest % jnp.maximum(share, 1))
    cluster = order[rank]
    return by_cluster[starts[cluster] + turn % sizes[cluster]]
