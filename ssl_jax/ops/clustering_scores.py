"""Scores of a clustering: against classes, and against another clustering of the same images."""

import numpy as np
import scipy
from jaxtyping import Float, Int

from ssl_jax.core import check

Labels = Int[np.ndarray, " n"]


def purity(clusters: Labels, classes: Labels) -> float:
    """Compute the share of images that have the commonest class of their cluster, ``1/n Σ_k max_c |k ∩ c|``.

    It is 1 for one cluster an image, so compare it at equal numbers of clusters only.

    Args:
      clusters: ``[n]`` cluster of each image; -1: none, the image does not count.
      classes: ``[n]`` class of each image; likewise.

    Returns:
      A number in (0, 1]; NaN if no image counts.

    Raises:
      ValueError: arrays of different lengths.

    >>> import numpy as np
    >>> purity(np.array([0, 0, 0, 1]), np.array([5, 5, 7, 7]))
    0.75

    Reference: Manning, Raghavan & Schütze, "Introduction to Information Retrieval", 2008, eq. 16.1.
    """
    joint = _contingency(clusters, classes)
    return float(joint.max(axis=1, initial=0).sum() / joint.sum()) if joint.sum() else float("nan")


def normalized_mutual_information(first: Labels, second: Labels) -> float:
    """Compute the mutual information of two clusterings over their mean entropy, ``2 I(a; b) / (H(a) + H(b))``.

    It does not depend on the names of the clusters. DeepCluster reports it for clusters and classes, and for one epoch's
    clusters and the last one's (it divides by ``√(H(a) H(b))``, which is the same where both use their clusters alike).

    Args:
      first: ``[n]`` cluster of each image; -1: none, the image does not count.
      second: ``[n]`` likewise, or its class.

    Returns:
      A number in [0, 1], 1 where both are one cluster; NaN if no image counts.

    Raises:
      ValueError: arrays of different lengths.

    >>> import numpy as np
    >>> normalized_mutual_information(np.array([0, 0, 1, 1]), np.array([3, 3, 2, 2]))
    1.0

    Reference: Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018, section 4.1.
    """
    joint = _contingency(first, second).astype(np.float64)
    if not joint.sum():
        return float("nan")
    joint /= joint.sum()
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    entropies = _entropy(rows) + _entropy(columns)
    if entropies == 0:
        return 1.0
    return float(np.clip(2 * (entropies - _entropy(joint.ravel())) / entropies, 0.0, 1.0))


def changed_share(first: Labels, second: Labels) -> float:
    """Return the share of images whose cluster changed, when the clusters' names are matched as well as can be.

    ``1 − 1/n max_σ Σ_k |{i: a_i = k, b_i = σ(k)}|`` over matchings σ (Hungarian algorithm).

    Args:
      first: ``[n]`` cluster of each image; -1: none, the image does not count.
      second: ``[n]`` likewise.

    Returns:
      A number in [0, 1); NaN if no image counts.

    Raises:
      ValueError: arrays of different lengths.

    >>> import numpy as np
    >>> changed_share(np.array([0, 0, 1, 1]), np.array([7, 7, 7, 2]))
    0.25

    Reference: Kuhn, "The Hungarian Method for the Assignment Problem", 1955.
    """
    joint = _contingency(first, second)
    if not joint.sum():
        return float("nan")
    matched = joint[scipy.optimize.linear_sum_assignment(joint, maximize=True)].sum()
    return float(1.0 - matched / joint.sum())


def _contingency(first: Labels, second: Int[np.ndarray, " m"]) -> Int[np.ndarray, "k c"]:
    """How many images have each pair of labels, of those that have both."""
    fits = second.shape == first.shape
    check.require(fits, "labels", (first.shape, second.shape), "two arrays of one length")
    both = (first >= 0) & (second >= 0)
    (rows, columns), shape = _numbered(first[both], second[both])
    joint = np.zeros(shape, np.int64)
    np.add.at(joint, (rows, columns), 1)
    return joint


def _numbered(*labels: Labels) -> tuple[tuple[Labels, ...], tuple[int, ...]]:
    """Labels as numbers without gaps, and how many there are."""
    uniques = [np.unique(each, return_inverse=True) for each in labels]
    return tuple(places for _, places in uniques), tuple(len(names) for names, _ in uniques)


def _entropy(shares: Float[np.ndarray, " k"]) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
