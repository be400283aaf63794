"""Boundary F against pairs of pixels one by one, and cases whose answer is known."""

import math

import numpy as np
import pytest

from ssl_jax.evaluate.dense.boundary import boundary_of, boundary_scores, tolerance_radius


def boundary_by_hand(mask):
    rows, columns = mask.shape
    marked = []
    for i in range(rows):
        for j in range(columns):
            others = [(i, j + 1), (i + 1, j), (i + 1, j + 1)]
            if any(p < rows and q < columns and mask[p, q] != mask[i, j] for p, q in others):
                marked.append((i, j))
    return marked


def scores_by_hand(predicted, target, radius):
    ours, theirs = boundary_by_hand(predicted), boundary_by_hand(target)

    def share(points, others):
        if not points:
            return 1.0
        near = [any((a - p) ** 2 + (b - q) ** 2 <= radius**2 for p, q in others) for a, b in points]
        return sum(near) / len(near)

    precision, recall = share(ours, theirs), share(theirs, ours)
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blob(rng, shape=(23, 31)):
    """A random ellipse, perhaps cut off by the border."""
    row, column = np.indices(shape)
    center, radii = rng.uniform(0, 1, 2) * shape, rng.uniform(2, 12, 2)
    return ((row - center[0]) / radii[0]) ** 2 + ((column - center[1]) / radii[1]) ** 2 <= 1


def test_boundaries_and_scores_are_those_of_loops_over_pairs_of_pixels():
    rng = np.random.default_rng(0)
    for radius in (0, 1, 2, 3):
        for _ in range(6):
            predicted, target = blob(rng), blob(rng) ^ (rng.random((23, 31)) < 0.02)
            assert list(zip(*np.nonzero(boundary_of(predicted)), strict=True)) == boundary_by_hand(predicted)
            ours = boundary_scores(predicted, target, tolerance=float(radius) if radius else 0.0)
            np.testing.assert_allclose(ours, scores_by_hand(predicted, target, radius), atol=1e-12)


def test_a_shift_within_the_tolerance_costs_nothing_and_one_beyond_it_everything():
    square = np.zeros((40, 40), bool)
    square[10:30, 10:30] = True
    assert boundary_scores(square, np.roll(square, 2, 0), tolerance=2.0).f == 1
    far = np.zeros((40, 40), bool)
    far[0:4, 0:4] = True
    assert boundary_scores(square, far, tolerance=2.0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [(0, 0, (1, 1, 1)), (0, 1, (1, 0, 0)), (1, 0, (0, 1, 0)), (1, 1, (1, 1, 1))],
)
def test_masks_without_a_boundary(predicted, target, expected):
    square = np.zeros((9, 9), bool)
    square[3:6, 3:6] = True
    assert boundary_scores(square & bool(predicted), square & bool(target)) == expected


def test_void_pixels_belong_to_neither_mask():
    rng = np.random.default_rng(1)
    predicted, target, void = blob(rng), blob(rng), rng.random((23, 31)) < 0.1
    ours = boundary_scores(predicted, target, void=void, tolerance=1.0)
    assert ours == scores_by_hand(predicted & ~void, target & ~void, 1)


def test_the_tolerance_is_a_share_of_the_diagonal_rounded_up():
    for shape in ((480, 854), (240, 427), (24, 32)):
        assert tolerance_radius(shape) == math.ceil(0.008 * math.sqrt(shape[0] ** 2 + shape[1] ** 2))


@pytest.mark.parametrize("tolerance", [-0.1, 1.5])
def test_a_tolerance_out_of_range_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance="):
        tolerance_radius((9, 9), tolerance)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"target=\(3, 3\): allowed is the shape of predicted"):
        boundary_scores(np.zeros((4, 4), bool), np.zeros((3, 3), bool))
