"""Boundary precision, recall and F of masks, as DAVIS defines them."""

import math
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool

from ssl_jax.core import check

TOLERANCE = 0.008
"""DAVIS's tolerance, as a share of the diagonal of the image."""


class BoundaryScores(NamedTuple):
    """How well the boundary of a mask follows another.

    Attributes:
      precision: share of the predicted boundary's pixels with a pixel of the target's boundary within the tolerance.
      recall: share of the target's boundary's pixels with a pixel of the predicted boundary within the tolerance.
      f: harmonic mean of both, 0 where both are 0.
    """

    precision: float
    recall: float
    f: float


def boundary_of(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mark the pixels of a mask's boundary.

    A pixel is on the boundary where its value differs from that of its right, lower or lower right neighbour; neighbours
    outside of the image do not count. The line is one pixel wide and lies half a pixel to the upper left.

    >>> boundary_of(np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]], bool)).astype(int).tolist()
    [[1, 1, 1], [1, 0, 0], [1, 0, 0]]

    Reference: Martin et al., Learning to Detect Natural Image Boundaries (2004); Perazzi et al., A Benchmark Dataset and
      Evaluation Methodology for Video Object Segmentation (2016), whose code takes these neighbours.
    """
    padded = np.pad(np.asarray(mask, bool), ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here != padded[:-1, 1:]) | (here != padded[1:, :-1]) | (here != padded[1:, 1:])


def tolerance_radius(shape: tuple[int, int], tolerance: float = TOLERANCE) -> int:
    """Convert a tolerance to pixels: ``ceil(tolerance · √(h² + w²))`` below 1, the number of pixels itself from 1 on.

    Raises:
      ValueError: a tolerance below 0, or one above 1 that is no whole number.

    >>> tolerance_radius((480, 854)), tolerance_radius((240, 427)), tolerance_radius((9, 9), 2.0)
    (8, 4, 2)
    """
    check.not_negative("tolerance", tolerance)
    if tolerance < 1:
        return math.ceil(tolerance * math.hypot(*shape))
    check.require(tolerance == int(tolerance), "tolerance", tolerance, "a share below 1, or whole pixels")
    return int(tolerance)


def boundary_scores(
    predicted: Bool[np.ndarray, "h w"],
    target: Bool[np.ndarray, "_ _"],
    *,
    tolerance: float = TOLERANCE,
    void: Bool[np.ndarray, "_ _"] | None = None,
) -> BoundaryScores:
    """Compare the boundaries of two masks.

    With B the boundary of a mask (:func:`boundary_of`), r the tolerance in pixels and d the Euclidean distance of pixel
    centers: ``precision = |{b ∈ B_predicted: d(b, B_target) ≤ r}| / |B_predicted|``, recall with both exchanged,
    ``F = 2 precision · recall / (precision + recall)``. A missing boundary has precision (or recall) 1; two missing ones have
    F = 1, one missing one has F = 0.

    Args:
      predicted: mask of one object or class.
      target: mask that is right.
      tolerance: share of the diagonal below 1, or whole pixels, see :func:`tolerance_radius`.
      void: pixels that do not count: both masks are False there.

    Raises:
      ValueError: masks of different shapes, or a tolerance out of range.

    >>> square = np.zeros((20, 20), bool)
    >>> square[5:15, 5:15] = True
    >>> boundary_scores(square, square).f, boundary_scores(square, np.roll(square, 3, axis=0), tolerance=1.0).f < 1
    (1.0, True)

    Reference: Perazzi et al. (2016), section 4.1, "Contour Accuracy"; bipartite matching is replaced by dilation there too.
    """
    predicted, target = np.asarray(predicted, bool), np.asarray(target, bool)
    allowed = f"the shape of predicted, {predicted.shape}"
    check.require(predicted.ndim == 2 and target.shape == predicted.shape, "target", target.shape, allowed)
    radius = tolerance_radius(predicted.shape, tolerance)
    if void is not None:
        check.require(np.shape(void) == predicted.shape, "void", np.shape(void), allowed)
        predicted, target = predicted & ~np.asarray(void), target & ~np.asarray(void)
    ours, theirs = boundary_of(predicted), boundary_of(target)
    precision, recall = _share_near(ours, theirs, radius), _share_near(theirs, ours, radius)
    both = precision + recall
    return BoundaryScores(precision, recall, 2 * precision * recall / both if both else 0.0)


def _share_near(pixels: np.ndarray, others: np.ndarray, radius: int) -> float:
    """Compute the share of ``pixels`` that have one of ``others`` within the radius; 1 where there are no pixels."""
    if not pixels.any():
        return 1.0
    if not others.any():
        return 0.0
    return float(np.mean(scipy.ndimage.distance_transform_edt(~others)[pixels] <= radius))
