"""How well a predicted mask of classes agrees with the true one, by the conventions in use."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real

from ssl_jax.core import check
from ssl_jax.data.masks import VOID, resize_target
from ssl_jax.evaluate.dense.boundary import TOLERANCE, boundary_scores

ABSENT = ("drop", "zero")
REDUCED = 100
"""Side in pixels to which one convention reduces masks before it scores them."""


def confusion(
    predicted: Int[np.ndarray, "..."], target: Int[np.ndarray, "..."], classes: int
) -> Int[np.ndarray, "{classes} {classes}"]:
    """Count pixels by their true class (row) and their predicted one (column); void pixels do not count.

    Args:
      predicted: classes in [0, ``classes``).
      target: true classes, :data:`ssl_jax.data.masks.VOID` where a pixel does not count.
      classes: number of classes.

    Raises:
      ValueError: arrays of different shapes, or a class out of range.

    >>> confusion(np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, -1]]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    check.require(predicted.shape == target.shape, "predicted.shape", predicted.shape, str(target.shape))
    counted = target != VOID
    rows, columns = target[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, values in (("target", rows), ("predicted", columns)):
        wrong = values[(values < 0) | (values >= classes)]
        check.require(not len(wrong), name, wrong[:1].tolist(), f"classes in [0, {classes})")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def class_iou(counts: Real[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """Compute intersection over union of each class, ``n_cc / (Σ_j n_cj + Σ_j n_jc − n_cc)``; NaN of an absent class.

    Args:
      counts: pixels (or weights) by true and predicted class; a class is absent where neither has it.

    >>> class_iou(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])).tolist()
    [0.5, 0.5, nan]
    """
    counts = np.asarray(counts, float)
    both = np.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - both
    return np.divide(both, union, out=np.full(len(counts), np.nan), where=union > 0)


def mean_iou(counts: Real[np.ndarray, "classes classes"], *, absent: str = "drop") -> float:
    """Average the intersection over union of the classes.

    Args:
      counts: pixels by true and predicted class, of one image or summed over a set.
      absent: classes that neither the truth nor the prediction has: ``drop`` leaves them out of the mean, ``zero`` counts them
        as 0, so that the mean is over all classes.

    Returns:
      A number in [0, 1]; NaN where no class is present.

    Raises:
      ValueError: another convention.

    >>> mean_iou(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])), mean_iou(np.diag([2, 2, 0, 0]), absent="zero")
    (0.5, 0.5)

    Reference: Everingham et al., The PASCAL Visual Object Classes Challenge (2010), section 4.1.3, for ``drop`` over a set.
    """
    check.choice("absent", absent, ABSENT)
    iou = class_iou(counts)
    present = np.isfinite(iou)
    if not present.any():
        return float("nan")
    return float(iou[present].sum() / (present.sum() if absent == "drop" else len(iou)))


def pixel_accuracy(counts: Real[np.ndarray, "classes classes"]) -> float:
    """Compute the share of pixels that have the right class; NaN of none.

    >>> pixel_accuracy(np.array([[1, 1], [0, 2]]))
    0.75
    """
    total = np.sum(counts)
    return float(np.trace(counts) / total) if total else float("nan")


def class_accuracy(counts: Real[np.ndarray, "classes classes"]) -> float:
    """Average over the classes that the truth has the share of their pixels that have the right class; NaN of none.

    >>> class_accuracy(np.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]]))
    0.75
    """
    counts = np.asarray(counts, float)
    pixels = counts.sum(1)
    present = pixels > 0
    return float((np.diagonal(counts)[present] / pixels[present]).mean()) if present.any() else float("nan")


def boundary_f(
    predicted: Int[np.ndarray, "h w"], target: Int[np.ndarray, "h w"], *, tolerance: float = TOLERANCE
) -> float:
    """Average the F of the boundaries of the classes that the truth or the prediction has in an image; NaN of none.

    Args:
      predicted: classes.
      target: true classes; void pixels are in no class.
      tolerance: see :func:`ssl_jax.evaluate.dense.boundary.boundary_scores`.

    >>> boundary_f(np.eye(8, dtype=int), np.eye(8, dtype=int))
    1.0

    Reference: Csurka et al., What is a good evaluation measure for semantic segmentation? (2013), the average over an image's
      classes; boundaries and tolerance are those of DAVIS.
    """
    void = target == VOID
    present = np.union1d(np.unique(target[~void]), np.unique(predicted[~void]))
    scores = [boundary_scores(predicted == c, target == c, tolerance=tolerance, void=void).f for c in present]
    return float(np.mean(scores)) if scores else float("nan")


class Scores:
    """Sums over the images of a set, from which every convention follows; memory does not grow with their number.

    Args:
      classes: number of classes.
      boundaries: whether the F of boundaries is computed too, which takes longer than the rest.

    Attributes:
      counts: pixels by true and predicted class, summed over the images.
      images: number of images with a pixel that counts.

    >>> scores = Scores(2)
    >>> scores.add(np.array([[0, 1]]), np.array([[0, 0]]))
    >>> scores.add(np.array([[0, 0]]), np.array([[0, 0]]))
    >>> {name: round(value, 3) for name, value in scores.result().items() if name.startswith("miou")}
    {'miou': 0.375, 'miou_zero': 0.375, 'miou_images': 0.625, 'miou_images_zero': 0.375, 'miou_100': 0.375}
    """

    def __init__(self, classes: int, *, boundaries: bool = False):
        self.counts = np.zeros((classes, classes), np.int64)
        self.images = 0
        self._reduced = np.zeros_like(self.counts)
        self._sums = dict.fromkeys(ABSENT, 0.0)
        self._boundaries = boundaries
        self._boundary_sum = 0.0

    def add(self, predicted: Int[np.ndarray, "h w"], target: Int[np.ndarray, "h w"]) -> None:
        """Add an image; one without a pixel that counts changes nothing."""
        classes = len(self.counts)
        counts = confusion(predicted, target, classes)
        if not counts.any():
            return
        self.images += 1
        self.counts += counts
        small = [resize_target(part, REDUCED, REDUCED) for part in (predicted, target)]
        self._reduced += confusion(small[0], small[1], classes)
        for absent in ABSENT:
            self._sums[absent] += mean_iou(counts, absent=absent)
        if self._boundaries:
            self._boundary_sum += boundary_f(predicted, target)

    def result(self) -> dict[str, Any]:
        """Compute all numbers.

        Returns:
          ``miou``: areas summed over the set, absent classes left out of the mean; ``miou_zero``: these count 0;
          ``miou_images`` and ``miou_images_zero``: the mean over images of that of each; ``miou_100``: as ``miou``, both masks
          reduced to 100 x 100 pixels before; ``pixel_accuracy``, ``class_accuracy``; with ``boundaries`` ``boundary_f``;
          ``iou``: of each class, None of an absent one.

        Raises:
          ValueError: no image has a pixel that counts.
        """
        check.require(self.images > 0, "images", 0, "one image or more with a pixel that is not void")
        return {
            "miou": mean_iou(self.counts),
            "miou_zero": mean_iou(self.counts, absent="zero"),
            "miou_images": self._sums["drop"] / self.images,
            "miou_images_zero": self._sums["zero"] / self.images,
            "miou_100": mean_iou(self._reduced),
            "pixel_accuracy": pixel_accuracy(self.counts),
            "class_accuracy": class_accuracy(self.counts),
            **({"boundary_f": self._boundary_sum / self.images} if self._boundaries else {}),
            "iou": [None if np.isnan(value) else float(value) for value in class_iou(self.counts)],
        }
