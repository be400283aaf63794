"""Segmentation without a label: clusters of patches, matched to classes afterwards, and a spectral cut of one image."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array
from ssl_jax.ops.kmeans import assign, kmeans
from ssl_jax.train.features import AnyArray

THRESHOLD = 0.2
MAX_CELLS = 1600
"""Patches of an image above which a spectral cut averages neighboring ones."""


def cluster_patches(
    features: Float[AnyArray, "n d"], clusters: int, *, iterations: int = 20, seed: int = 0
) -> Float[Array, "{clusters} d"]:
    """Find centroids of unit-length patch features by spherical k-means.

    Args:
      features: features of patches, not normalised.
      clusters: k, at most n.
      iterations: steps of k-means.
      seed: seed of the start (k-means++).

    Raises:
      ValueError: more clusters than patches.

    >>> cluster_patches(np.eye(4, dtype=np.float32)[[0, 0, 1, 1]], 2).shape
    (2, 4)
    """
    check.require(
        1 <= clusters <= len(features), "clusters", clusters, f"in [1, {len(features)}], the patches"
    )
    points = normalize(jnp.asarray(features, jnp.float32))
    fit = jax.jit(kmeans, static_argnums=2, static_argnames=("iterations", "spherical"))
    return fit(jax.random.key(seed), points, clusters, iterations=iterations, spherical=True).centroids


def nearest_cluster(
    features: Float[AnyArray, "n d"], centroids: Float[AnyArray, "k d"]
) -> Int[np.ndarray, " n"]:
    """Find the cluster of each patch: that of the largest cosine."""
    labels, _ = assign(normalize(jnp.asarray(features, jnp.float32)), jnp.asarray(centroids))
    return np.asarray(labels)


def match_clusters(counts: Int[np.ndarray, "classes clusters"]) -> Int[np.ndarray, " clusters"]:
    """Give each cluster a class so that the most pixels are right.

    With as many clusters as classes, or fewer, each class is given once at most (Hungarian algorithm); with more clusters each
    has the class of most of its pixels, of equal ones the first.

    Args:
      counts: pixels by class and cluster.

    >>> match_clusters(np.array([[0, 5], [4, 1]])).tolist(), match_clusters(np.array([[0, 5, 1], [4, 1, 3]])).tolist()
    ([1, 0], [1, 0, 1])
    """
    classes, clusters = counts.shape
    if clusters > classes:
        return counts.argmax(axis=0)
    rows, columns = scipy.optimize.linear_sum_assignment(counts, maximize=True)
    matched = np.zeros(clusters, int)
    matched[columns] = rows
    return matched


def matched_confusion(counts: Int[np.ndarray, "classes clusters"]) -> Int[np.ndarray, "classes classes"]:
    """Turn pixels by class and cluster into a confusion of classes, see :func:`match_clusters`.

    >>> matched_confusion(np.array([[0, 5], [4, 1]])).tolist()
    [[5, 0], [1, 4]]
    """
    merged = np.zeros((len(counts), len(counts)), counts.dtype)
    for cluster, matched in enumerate(match_clusters(counts)):
        merged[:, matched] += counts[:, cluster]
    return merged


def spectral_cut(
    features: Float[np.ndarray, "rows columns d"], *, threshold: float = THRESHOLD, epsilon: float = 1e-5
) -> Bool[np.ndarray, "rows columns"]:
    """Cut the patches of one image in two, and say which part is the foreground.

    The affinity of two patches is 1 where their cosine is above ``threshold``, else ``epsilon``. Of ``(D − W) y = λ D y`` with
    ``D = diag(W 1)`` the eigenvector y of the second smallest λ is cut at its mean; the foreground is the side of the patch
    with the largest ``|y|``. Of more than :data:`MAX_CELLS` patches, squares of neighboring ones are averaged before.

    Args:
      features: features of the patches, two or more.
      threshold: cosine in [-1, 1].
      epsilon: affinity above 0 of patches that are not alike.

    Raises:
      ValueError: fewer than two patches, a threshold or ``epsilon`` out of range.

    >>> features = np.zeros((4, 4, 2)) + [1.0, 0.0]
    >>> features[1:3, 1:3] = [0.0, 1.0]
    >>> spectral_cut(features).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]

    Reference: Wang et al., Self-supervised Transformers for Unsupervised Object Discovery Using Normalized Cut (TokenCut,
      2022), section 3.2; Shi and Malik, Normalized Cuts and Image Segmentation (2000). Deviation: the whole side is
      returned, not its connected part.
    """
    check.require(-1 <= threshold <= 1, "threshold", threshold, "a cosine in [-1, 1]")
    check.positive("epsilon", epsilon)
    rows, columns, dims = features.shape
    check.require(rows * columns >= 2, "features.shape", features.shape, "two patches or more")
    factor = int(np.ceil(np.sqrt(rows * columns / MAX_CELLS)))
    pooled = _average(features, factor) if factor > 1 else features
    unit = pooled.reshape(-1, dims).astype(float)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    affinity = np.where(unit @ unit.T > threshold, 1.0, epsilon)
    degree = np.diag(affinity.sum(1))
    _, vectors = scipy.linalg.eigh(degree - affinity, degree, subset_by_index=[1, 1])
    y = vectors[:, 0]
    side = y > y.mean()
    foreground = (side == side[np.abs(y).argmax()]).reshape(pooled.shape[:2])
    return np.repeat(np.repeat(foreground, factor, 0), factor, 1)[:rows, :columns]


def _average(features: np.ndarray, factor: int) -> np.ndarray:
    """Average squares of patches; the last row and column are repeated where they are not full."""
    padding = [(0, -side % factor) for side in features.shape[:2]]
    padded = np.pad(features, (*padding, (0, 0)), mode="edge")
    rows, columns = (side // factor for side in padded.shape[:2])
    return padded.reshape(rows, factor, columns, factor, -1).mean((1, 3))
