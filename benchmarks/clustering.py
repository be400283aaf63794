"""Clustering against scikit-learn and faiss: k-means of 60k x 128 into 1000, and Sinkhorn at 4096 x 3000.

Fashion-MNIST with 128 features, the principal components of the pixels; all sides have all cores. scikit-learn's
MiniBatchKMeans runs with its defaults; ours is Lloyd's algorithm from k-means++ on a part of the points, with as few iterations
as reach an inertia at most as high. Against faiss (if it is installed) and scikit-learn's KMeans both sides make as many
iterations from the same centroids. Inertias on all points stand beside each ratio. Sinkhorn: sums of products against
logsumexp in the log domain, and against the same products in numpy.
"""

import argparse
import functools
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from benchmarks import pairs
from benchmarks.evaluation import load
from ssl_jax.ops.kmeans import assign, kmeans
from ssl_jax.ops.sinkhorn import sinkhorn

GAINS = {
    "k-means": "methods that cluster (DeepCluster, SwAV's probes) spend less time in it",
    "Lloyd": "clusters of a whole data set without another library",
    "Sinkhorn": "balanced assignments (SwAV, DINOv2) cost little of a step",
}
"""What the user gains, by a part of a row's name."""

LLOYD = 10
"""Iterations where both sides make as many."""
MOST = 30


@functools.partial(jax.jit, static_argnames=("clusters", "iterations", "sample"))
def ours(key: jax.Array, points: jax.Array, clusters: int, iterations: int, sample: int) -> jax.Array:
    """Centroids by Lloyd's algorithm from k-means++ on the first ``sample`` points."""
    start = kmeans(key, points[:sample], clusters, iterations=1).centroids
    return kmeans(key, points, clusters, init=start, iterations=iterations).centroids


@functools.partial(jax.jit, static_argnames="iterations")
def lloyd(points: jax.Array, start: jax.Array, iterations: int) -> jax.Array:
    """Centroids after so many iterations from a start."""
    key = jax.random.key(0)
    return kmeans(key, points, start.shape[0], init=start, iterations=iterations, empty="keep").centroids


def inertia(points: jax.Array, centroids: Any) -> float:
    """Sum of squared distances to the nearest centroid."""
    return float(jnp.sum(assign(points, jnp.asarray(centroids))[1]))


def compare(
    name: str,
    first: Callable[[], Any],
    second: Callable[[], Any],
    points: jax.Array,
    *,
    against: str,
    count: int,
    at_least: float | None = None,
    **facts: Any,
) -> pairs.Measurement:
    """Both in turn; what they return are centroids, whose inertias stand in the row."""
    found = [inertia(points, side()) for side in (first, second)]
    times = pairs.alternate(first, second, pairs=count, seconds=60, least=2, warmup=0)
    told = f"{against} (inertia {found[0] / found[1]:.3f} of its)"
    return pairs.paired(name, times, against=told, at_least=at_least, inertias=found, **facts)


def mini_batch(points: np.ndarray, clusters: int) -> np.ndarray:
    return MiniBatchKMeans(clusters, n_init=1, random_state=0).fit(points).cluster_centers_


def full(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(len(start), init=start, n_init=1, max_iter=LLOYD, tol=0, algorithm="lloyd")
        return model.fit(points).cluster_centers_


def with_faiss(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    import faiss

    options = {"niter": LLOYD, "max_points_per_centroid": len(points), "seed": 0}
    model = faiss.Kmeans(points.shape[1], len(start), **options)
    model.train(points, init_centroids=start)
    return model.centroids


def balanced(scores: np.ndarray) -> np.ndarray:
    """Sinkhorn in numpy: the same products and temperature."""
    kernel = np.exp((scores - scores.max()) / np.float32(0.05))
    rows = np.ones(len(scores), np.float32)
    for _ in range(3):
        columns = 1 / (rows @ kernel)
        rows = 1 / (kernel @ columns)
    return kernel * rows[:, None] * columns


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    quick = options.quick
    data = load("embedded", 1200, 1, 16) if quick else load("fashion_mnist", 60_000, 1, 128)
    points, clusters, count = np.ascontiguousarray(data.train), 20 if quick else 1000, 2 if quick else 5
    most = 3 if quick else MOST
    placed, key = jax.device_put(points), jax.random.key(0)
    sample = min(6 * clusters, len(points))
    goal = inertia(placed, mini_batch(points, clusters))
    enough = (n for n in range(1, most) if inertia(placed, ours(key, placed, clusters, n, sample)) <= goal)
    iterations = next(enough, most)
    start = np.asarray(ours(key, placed, clusters, 1, sample))
    size = f"{len(points):,} x {points.shape[1]} into {clusters:,}"
    rows = [
        compare(
            f"k-means of {size}",
            lambda: ours(key, placed, clusters, iterations, sample).block_until_ready(),
            lambda: mini_batch(points, clusters),
            placed,
            against="scikit-learn's MiniBatchKMeans",
            count=count,
            at_least=1.0,
            iterations=iterations,
            sample=sample,
        ),
        compare(
            f"{LLOYD} iterations of Lloyd's algorithm, {size}",
            lambda: lloyd(placed, jnp.asarray(start), LLOYD).block_until_ready(),
            lambda: full(points, start),
            placed,
            against="scikit-learn's KMeans",
            count=count,
        ),
    ]
    if importlib.util.find_spec("faiss") is not None:
        rows.append(
            compare(
                f"{LLOYD} iterations of Lloyd's algorithm, {size}",
                lambda: lloyd(placed, jnp.asarray(start), LLOYD).block_until_ready(),
                lambda: with_faiss(points, start),
                placed,
                against="faiss-cpu",
                count=count,
            )
        )
    shape = (64, 40) if quick else (4096, 3000)
    scores = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    on_device = jax.device_put(scores)
    products = jax.jit(functools.partial(sinkhorn, log_domain=False))
    others = {
        "ours in the log domain": lambda: jax.jit(sinkhorn)(on_device).block_until_ready(),
        "numpy": lambda: balanced(scores),
    }
    for name, other in others.items():
        times = pairs.alternate(
            lambda: products(on_device).block_until_ready(), other, pairs=4 * count, seconds=30
        )
        rows.append(pairs.paired(f"Sinkhorn of {shape[0]} x {shape[1]}, 3 iterations", times, against=name))
    return rows


if __name__ == "__main__":
    pairs.main("clustering", pairs.parser("clustering", __doc__), run)
