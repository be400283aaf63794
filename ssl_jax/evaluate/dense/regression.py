"""Ridge regression of frozen features onto numbers: a target for each pixel, such as depth, or for each image."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ssl_jax.core import check
from ssl_jax.data.masks import MaskSource
from ssl_jax.evaluate.dense.features import MapEncoder, cells_of_pixels, map_features, upsample
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.dense.segmentation import subject_maps
from ssl_jax.evaluate.linear import hold_out
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject
from ssl_jax.train.features import AnyArray

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties of which held-out images choose, in units of a feature's variance."""
DELTA = 1.25
"""Factor within which a positive prediction counts as right, δ₁ of depth estimation."""


class Moments(NamedTuple):
    """Sums over rows of features x [d] and targets y [k], about a fixed point: all that ridge regression needs of them.

    Attributes:
      count: number of rows.
      origin: ``[d + k]``, what is subtracted from ``(x, y)`` first, so that products keep their digits.
      total: ``[d + k]``, sum of ``(x, y)`` − origin.
      products: ``[d + k, d + k]``, sum of its outer products with itself, float64.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count
    origin: Float[np.ndarray, " m"]
    total: Float[np.ndarray, " m"]
    products: Float[np.ndarray, "m m"]

    def __add__(self, other: "Moments") -> "Moments":  # type: ignore[override]  # a sum, not a longer tuple
        """Join the rows of two parts with the same origin."""
        parts = (mine + theirs for mine, theirs in zip(self[2:], other[2:], strict=True))
        return Moments(self.count + other.count, self.origin, *parts)


def collect_moments(
    parts: Iterable[tuple[Float[np.ndarray, "_ d"], Float[np.ndarray, "_ k"]]],
    *,
    origin: Float[np.ndarray, " m"] | None = None,
) -> Moments:
    """Sum rows up, part by part: memory does not grow with their number.

    Args:
      parts: features and targets of some rows each.
      origin: see :class:`Moments`; ``None``: the mean of the first part with a row.

    Raises:
      ValueError: no row.

    >>> moments = collect_moments([(np.ones((2, 1)), np.full((2, 1), 5.0))])
    >>> moments.count, moments.origin.tolist(), moments.total.tolist()
    (2, [1.0, 5.0], [0.0, 0.0])
    """
    sums: Moments | None = None
    for features, targets in parts:
        rows = np.concatenate([np.asarray(features, np.float64), np.asarray(targets, np.float64)], axis=1)
        if not len(rows):
            continue
        origin = rows.mean(axis=0) if origin is None else origin
        rows = rows - origin
        part = Moments(len(rows), origin, rows.sum(axis=0), rows.T @ rows)
        sums = part if sums is None else sums + part
    if sums is None:
        raise ValueError("no row has a target")
    return sums


class RidgeHead(NamedTuple):
    """A linear map ``xW + b``.

    Attributes:
      weights: ``[d, k]``.
      bias: ``[k]``.
    """

    weights: Float[np.ndarray, "d k"]
    bias: Float[np.ndarray, " k"]

    def predict(self, features: Float[AnyArray, "*n d"]) -> Float[np.ndarray, "*n k"]:
        """Compute the predictions of features."""
        return np.asarray(features) @ self.weights + self.bias


def fit_ridge(moments: Moments, l2: Sequence[float], *, dims: int) -> list[RidgeHead]:
    """Fit ridge regression in closed form, for every penalty, from one eigendecomposition.

    ``W = D⁻¹ (D⁻¹ C_xx D⁻¹ + l2·I)⁻¹ D⁻¹ C_xy``, C the covariances (divided by n), D the features' deviations: the penalty
    is of standardized features. Constant features get no weight. ``b = ȳ − x̄ W``.

    Args:
      moments: of the rows fitted to.
      l2: penalties above 0.
      dims: d, number of features.

    >>> x = np.array([[-1.0], [1.0]])
    >>> (head,) = fit_ridge(collect_moments([(x, 3 * x + 5)]), [0.5], dims=1)
    >>> head.weights.tolist(), head.bias.tolist()
    ([[2.0]], [5.0])
    """
    mean = moments.total / moments.count
    covariance = moments.products / moments.count - np.outer(mean, mean)
    mean = mean + moments.origin
    deviation = np.sqrt(np.maximum(np.diag(covariance)[:dims], 0.0))
    constant = deviation <= 1e-6 * np.abs(mean[:dims])
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
    variance, axes = np.linalg.eigh(covariance[:dims, :dims] * np.outer(scale, scale))
    turned = axes.T @ (scale[:, None] * covariance[:dims, dims:])
    heads = []
    for penalty in l2:
        weights = scale[:, None] * (axes @ (turned / (np.maximum(variance, 0.0) + penalty)[:, None]))
        heads.append(RidgeHead(weights, mean[dims:] - mean[:dims] @ weights))
    return heads


def mean_squared_error(moments: Moments, head: RidgeHead) -> float:
    """Compute the mean over rows of the squared error, summed over targets, from moments alone.

    >>> moments = collect_moments([(np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]]))])
    >>> mean_squared_error(moments, RidgeHead(np.array([[1.0]]), np.array([0.0])))
    1.0
    """
    turn = np.concatenate([head.weights, -np.eye(len(head.bias))])  # error = (x, y) · turn + b
    shift = moments.origin @ turn + head.bias
    squares = np.trace(turn.T @ moments.products @ turn)
    return float((squares + 2 * (moments.total @ turn) @ shift) / moments.count + shift @ shift)


class RegressionErrors(NamedTuple):
    """How far predictions are from targets.

    Attributes:
      rmse: root of the mean squared error, in units of the target.
      mae: mean absolute error.
      r2: 1 − squared error / squared error of the test targets' own mean; 0 for that mean, below for worse.
      relative: mean of |error| / target; ``None`` where a target is 0 or below.
      delta: share of predictions that are within a factor of 1.25; ``None`` likewise.
    """

    rmse: float
    mae: float
    r2: float
    relative: float | None
    delta: float | None


class ErrorSums:
    """Sums of errors, from which :class:`RegressionErrors` follow; of any number of predictions.

    >>> sums = ErrorSums()
    >>> sums.add(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    >>> sums.errors().mae, sums.errors().delta, sums.errors().r2
    (1.0, 0.5, -7.0)
    """

    def __init__(self) -> None:
        self._count, self._positive = 0, True
        self._mean = self._spread = self._squared = self._absolute = self._relative = self._within = 0.0

    def add(self, predicted: Float[np.ndarray, " n"], target: Float[np.ndarray, " n"]) -> None:
        """Add predictions and their targets."""
        if not len(target):
            return
        predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
        error = np.abs(predicted - target)
        self._squared += float(np.sum(error**2))
        self._absolute += float(np.sum(error))
        self._positive &= bool((target > 0).all())
        if self._positive:
            self._relative += float(np.sum(error / target))
            near = (predicted > 0) & (predicted < DELTA * target) & (target < DELTA * predicted)
            self._within += float(np.sum(near))
        total, away = self._count + len(target), float(target.mean()) - self._mean
        self._spread += (
            float(np.sum((target - target.mean()) ** 2)) + away**2 * self._count * len(target) / total
        )
        self._mean += away * len(target) / total
        self._count = total

    def errors(self) -> RegressionErrors:
        """Compute the errors of all that was added.

        Raises:
          ValueError: nothing was, or all targets are one number.
        """
        if not self._count:
            raise ValueError("no test image has a target")
        if self._spread <= 1e-12 * self._count * self._mean**2:
            raise ValueError(f"all test targets are {self._mean:g}: there is nothing to predict")
        of_positive = (self._relative, self._within) if self._positive else (None, None)
        return RegressionErrors(
            (self._squared / self._count) ** 0.5,
            self._absolute / self._count,
            1 - self._squared / self._spread,
            *(None if value is None else value / self._count for value in of_positive),
        )


class RegressionResult(NamedTuple):
    """Outcome of a regression.

    Attributes:
      errors: on the test set, one for each of the k targets.
      l2: penalty that the held-out images chose.
      validation: mean squared error there, summed over targets.
      head: the map, fitted with this penalty to all training images.
    """

    errors: tuple[RegressionErrors, ...]
    l2: float
    validation: float
    head: RidgeHead


def choose_head(
    parts: Callable[[Bool[np.ndarray, " n"]], Iterable[tuple[np.ndarray, np.ndarray]]],
    images: int,
    *,
    dims: int,
    l2: Sequence[float] = PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> tuple[RidgeHead, float, float]:
    """Fit ridge regression with the penalty that is best on held-out training images; of equals the strongest.

    Args:
      parts: function that gives features and targets of the images that are marked, some rows at a time. It is called twice:
        each image is encoded once.
      images: number of images.
      dims: d, number of features.
      l2: penalties above 0.
      holdout: share in (0, 1) of the images that chooses.
      seed: seed of the held-out draw.

    Returns:
      The map fitted to all images, its penalty, and the mean squared error on the held-out images.
    """
    check.require(bool(l2) and min(l2) > 0, "l2", l2, "one penalty above 0 or more")
    held_out, rest = (
        np.isin(np.arange(images), part) for part in hold_out(images, holdout=holdout, seed=seed)
    )
    fitted = collect_moments(parts(rest))
    judged = collect_moments(parts(held_out), origin=fitted.origin)
    grid = sorted(l2, reverse=True)
    errors = [mean_squared_error(judged, head) for head in fit_ridge(fitted, grid, dims=dims)]
    best = int(np.argmin(errors))
    (head,) = fit_ridge(fitted + judged, grid[best : best + 1], dims=dims)
    return head, grid[best], errors[best]


def image_regression(
    train_features: Float[AnyArray, "n d"],
    train_targets: Float[AnyArray, "n k"],
    test_features: Float[AnyArray, "m d"],
    test_targets: Float[AnyArray, "m k"],
    *,
    l2: Sequence[float] = PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> RegressionResult:
    """Predict numbers of images by ridge regression, its penalty chosen on held-out training images.

    Args:
      train_features: features that the map is fitted to.
      train_targets: their numbers, k of each image.
      test_features: features of the images that are judged.
      test_targets: their numbers.
      l2: penalties above 0, in units of a feature's variance.
      holdout: share in (0, 1) of the training images that chooses.
      seed: seed of the held-out draw.

    Raises:
      ValueError: a penalty or share out of range, fewer than two training images, equal test targets.

    >>> x = np.arange(40.0).reshape(-1, 1)
    >>> round(image_regression(x, 2 * x, x + 0.5, 2 * x + 1).errors[0].r2, 3)
    1.0

    Reference: Hoerl & Kennard, Ridge regression (1970).
    """
    features, targets = np.asarray(train_features), np.asarray(train_targets)
    head, penalty, validation = choose_head(
        lambda rows: [(features[rows], targets[rows])],
        len(features),
        dims=features.shape[1],
        l2=l2,
        holdout=holdout,
        seed=seed,
    )
    errors = []
    for predicted, target in zip(head.predict(test_features).T, np.asarray(test_targets).T, strict=True):
        sums = ErrorSums()
        sums.add(predicted, target)
        errors.append(sums.errors())
    return RegressionResult(tuple(errors), penalty, validation, head)


def patch_means(
    target: Float[np.ndarray, "h w"], grid: tuple[int, int], covered: tuple[float, float] = (1.0, 1.0)
) -> Float[np.ndarray, "r c"]:
    """Average a target over the pixels of each patch; pixels without one (NaN) do not count, nor give patches without any one.

    Args:
      target: target of each pixel.
      grid: rows and columns of patches.
      covered: shares of rows and columns that show the image.

    >>> patch_means(np.array([[1.0, 3.0, np.nan, np.nan]]), (1, 2)).tolist()
    [[2.0, nan]]
    """
    row, column = (
        cells_of_pixels(cells, pixels, share)
        for cells, pixels, share in zip(grid, target.shape, covered, strict=True)
    )
    cell = (row[:, None] * grid[1] + column).ravel()
    known = np.isfinite(target).ravel()
    sums, counts = (
        np.bincount(cell[known], weights=weights, minlength=grid[0] * grid[1])
        for weights in (target.ravel()[known].astype(np.float64), None)
    )
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(grid)


def pixel_regression(
    encoder: MapEncoder,
    train: MaskSource,
    test: MaskSource,
    *,
    framing: Framing = Framing(),  # noqa: B008 (a tuple)
    l2: Sequence[float] = PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> RegressionResult:
    """Predict a number for each pixel by ridge regression on patches.

    The map is fitted to the mean target of each patch. Predictions of patches are interpolated bilinearly at the pixels, and
    judged against each pixel with a target; every pixel of every image counts alike. Only sums are kept of the training images,
    ``(d + 1)²`` numbers: memory does not grow with their number.

    Args:
      encoder: gives the maps.
      train: images with a regression target.
      test: images that are judged.
      framing: how images become inputs.
      l2: penalties above 0, in units of a feature's variance.
      holdout: share in (0, 1) of the training images that chooses.
      seed: seed of the held-out draw.

    Raises:
      ValueError: masks of classes, no target, equal test targets, an argument out of range.

    Reference: Oquab et al., DINOv2 (2023), section 7.4, for a linear head on frozen patches for depth. Deviation: squared error
      in closed form, where they classify into 256 bins of depth by SGD.
    """
    for which, source in (("train", train), ("test", test)):
        allowed = "True: a number for each pixel"
        check.require(
            source.format.regression, f"{which}.format.regression", source.format.regression, allowed
        )

    def rows_of(marked: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for found in map_features(encoder, train, framing=framing, indices=np.flatnonzero(marked).tolist()):
            means = patch_means(found.element["target"], found.features.shape[:2], found.covered)
            known = np.isfinite(means)
            yield found.features[known], means[known][:, None]

    head, penalty, validation = choose_head(
        rows_of, len(train), dims=encoder.dims, l2=l2, holdout=holdout, seed=seed
    )
    sums = ErrorSums()
    for found in map_features(encoder, test, framing=framing):
        target = found.element["target"]
        known = np.isfinite(target)
        predicted = upsample(head.predict(found.features), target.shape, found.covered)[..., 0]
        sums.add(predicted[known], target[known])
    return RegressionResult((sums.errors(),), penalty, validation, head)


def _measure(subject: Subject) -> Row:
    train, test = subject.targets.sources
    result = pixel_regression(subject_maps(subject), train, test, framing=subject.targets.framing)
    (errors,) = result.errors
    known = {name: value for name, value in errors._asdict().items() if value is not None}
    chosen = {"l2": result.l2, "validation": result.validation}
    return {"pixel_r2": errors.r2, "regression": known | chosen}


MEASURE = Measure(
    "regression",
    frozenset({"pixel values"}),
    (Column("pixel_r2", "R2 of pixels", "R2 of a number for each pixel"),),
    _measure,
)
