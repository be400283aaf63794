"""Agreement of masks: each number against a loop over pixels, and the conventions against each other by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, jaccard_score

from ssl_jax.data.masks import VOID
from ssl_jax.evaluate.dense.boundary import boundary_scores
from ssl_jax.evaluate.dense.metrics import (
    Scores,
    boundary_f,
    class_accuracy,
    class_iou,
    confusion,
    mean_iou,
    pixel_accuracy,
)

RNG = np.random.default_rng(0)
CLASSES = 6


def masks(count, *, present=CLASSES):
    """Pairs of masks of different sizes, in which some classes lack and some pixels are void."""
    for _ in range(count):
        shape = tuple(RNG.integers(5, 20, 2))
        target = RNG.integers(-1, present, shape)
        predicted = np.where(RNG.random(shape) < 0.6, np.maximum(target, 0), RNG.integers(0, present, shape))
        yield predicted, target


def loop_iou(pairs, classes):
    """Intersection over union of each class by a loop over pixels; None of an absent class."""
    both, either = [0] * classes, [0] * classes
    for predicted, target in pairs:
        for p, t in zip(predicted.ravel().tolist(), target.ravel().tolist(), strict=True):
            if t == VOID:
                continue
            for c in range(classes):
                both[c] += p == c and t == c
                either[c] += p == c or t == c
    return [b / e if e else None for b, e in zip(both, either, strict=True)]


def loop_mean(iou, absent):
    known = [value for value in iou if value is not None]
    return sum(known) / (len(known) if absent == "drop" else len(iou))


def test_every_convention_equals_a_loop_over_pixels():
    pairs = [*masks(4, present=4), *masks(3, present=5)]
    scores = Scores(CLASSES)
    for pair in pairs:
        scores.add(*pair)
    result = scores.result()
    whole = loop_iou(pairs, CLASSES)
    each = [loop_iou([pair], CLASSES) for pair in pairs]
    expected = {
        "miou": loop_mean(whole, "drop"),
        "miou_zero": loop_mean(whole, "zero"),
        "miou_images": np.mean([loop_mean(iou, "drop") for iou in each]),
        "miou_images_zero": np.mean([loop_mean(iou, "zero") for iou in each]),
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-9), name
    assert len({round(value, 6) for value in expected.values()}) == 4
    assert result["iou"][5] is None
    np.testing.assert_allclose(result["iou"][:5], whole[:5], rtol=0, atol=1e-9)


def test_masks_reduced_to_100_pixels_are_another_convention():
    rows = (2 * np.arange(100) + 1) * 230 // 200
    pairs = [
        (RNG.integers(0, 2, (230, 230)), np.kron(RNG.integers(0, 2, (23, 23)), np.ones((10, 10), int)))
        for _ in range(2)
    ]
    scores = Scores(2)
    for pair in pairs:
        scores.add(*pair)
    reduced = [tuple(part[np.ix_(rows, rows)] for part in pair) for pair in pairs]
    counts = sum(confusion(*pair, 2) for pair in reduced)
    result = scores.result()
    assert result["miou_100"] == pytest.approx(mean_iou(counts), abs=1e-9)
    assert result["miou_100"] != pytest.approx(result["miou"], abs=1e-9)


def test_numbers_equal_those_of_scikit_learn():
    (predicted, target), *_ = masks(1)
    counted = target != VOID
    truth, guess = target[counted], predicted[counted]
    counts = confusion(predicted, target, CLASSES)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, guess, labels=range(CLASSES)))
    theirs = jaccard_score(truth, guess, labels=range(CLASSES), average=None)
    np.testing.assert_allclose(class_iou(counts), theirs, atol=1e-12)
    assert class_accuracy(counts) == pytest.approx(balanced_accuracy_score(truth, guess), abs=1e-12)
    assert pixel_accuracy(counts) == pytest.approx((truth == guess).mean(), abs=1e-12)


def test_a_class_that_is_absent_from_both_counts_as_the_convention_says():
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert mean_iou(counts) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert mean_iou(counts, absent="zero") == pytest.approx((3 / 4 + 4 / 5) / 3)
    predicted_only = np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert mean_iou(predicted_only) == pytest.approx((3 / 4 + 1 + 0) / 3)
    with pytest.raises(ValueError, match="absent='one'"):
        mean_iou(counts, absent="one")


def test_boundaries_are_averaged_over_the_classes_of_an_image():
    target = np.kron(RNG.integers(0, 3, (4, 4)), np.ones((8, 8), int))
    target[:3] = VOID
    predicted = np.roll(np.maximum(target, 0), 2, axis=1)
    void = target == VOID
    present = sorted(set(target[~void].tolist()) | set(predicted[~void].tolist()))
    each = [boundary_scores(predicted == c, target == c, void=void).f for c in present]
    assert boundary_f(predicted, target) == pytest.approx(np.mean(each), abs=1e-12)
    assert boundary_f(np.maximum(target, 0), target) == 1


def test_images_of_void_change_nothing_and_nothing_at_all_is_refused():
    scores = Scores(2, boundaries=True)
    scores.add(np.zeros((3, 3), int), np.full((3, 3), VOID))
    with pytest.raises(ValueError, match="images=0"):
        scores.result()
    scores.add(np.eye(12, dtype=int), np.eye(12, dtype=int))
    assert scores.images == 1
    assert scores.result()["boundary_f"] == 1 and scores.result()["miou_images"] == 1


@pytest.mark.parametrize(
    ("predicted", "target", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "predicted.shape"),
        (np.full((2, 2), 2), np.zeros((2, 2), int), "predicted="),
        (np.zeros((2, 2), int), np.full((2, 2), -2), "target="),
    ],
)
def test_wrong_masks_are_refused(predicted, target, message):
    with pytest.raises(ValueError, match=message):
        confusion(predicted, target, 2)
