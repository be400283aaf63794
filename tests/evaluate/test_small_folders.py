"""Folders of a few images, of one class or of none: every measure gives numbers or says why not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate import baselines, few_labels, finetune, linear, ridge
from ssl_jax.evaluate.measure import LEFT_OUT, Candidate, Measure, Options, Subject
from ssl_jax.evaluate.measures import MEASURES, left_out_lines, run_measures
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.features import Features

OPTIONS = Options(k=20, temperature=0.07, per_class=(1, 2, 5), draws=2, crop_ratio=1.0)
VIEWS = (View(size=4), View(size=4))
METHOD = simclr.build(models.build("convnet", widths=(4,)), views=VIEWS)
CLASSES = ("a", "b", "c")
KEYS = {
    "knn": "knn",
    "linear": "linear",
    "ridge": "ridge",
    "logistic": "logistic",
    "few": "linear_1",
    "retrieval": "retrieval_map",
    "rotation": "rotation",
    "health": "health",
    "label_free": "label_free_values",
    "layers": "layers",
    "correspondence": "correspondence",
    "attentive": "attentive",
    "finetune": "finetune_10_percent",
}
"""Measures, and a value that each gives."""
LABEL_FREE = {"rotation", "health", "label_free", "correspondence"}


@pytest.fixture(scope="module")
def candidate():
    params, state = METHOD.init(jax.random.key(0), {"views": (jnp.zeros((2, 2, 4, 4, 1)),)})
    return Candidate("tiny", "encoder", METHOD, params, state)


def make_source(labels, classes=CLASSES):
    images = np.random.default_rng(len(labels)).integers(0, 255, (len(labels), 4, 4, 1), dtype=np.uint8)
    return ArraySource(images, np.asarray(labels), classes=classes)


def make_features(labels, seed):
    labels = np.asarray(labels, np.int32)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 4)).astype(np.float32)
    rows = np.arange(len(labels), dtype=np.int32)
    return Features(noise + 3 * np.eye(4, dtype=np.float32)[labels], labels, rows)


def make_subject(train, test, candidate=None, classes=CLASSES):
    sources = (make_source(train, classes), make_source(test, classes))
    return Subject(make_features(train, 0), make_features(test, 1), sources, OPTIONS, candidate)


def layouts(n):
    """Labels of n training and about a quarter as many test images, by what is odd about them."""
    m = max(n // 4, 1)
    return {
        "flat": ([-1] * n, [-1] * m),
        "one class": ([0] * n, [0] * m),
        "two classes": (np.arange(n) % 2, np.arange(m) % 2),
        "very different sizes": ([1] + [0] * (n - 1), np.arange(m) % 2),
        "a class with one image": ([2, *(np.arange(n - 1) % 2)], np.arange(m) % 3),
        "a class only in test": (np.arange(n) % 2, np.arange(m) % 3),
        "a class only in train": (np.arange(n) % 3, np.arange(m) % 2),
        "half unlabelled": (np.where(np.arange(n) % 4 < 2, -1, np.arange(n) % 2), np.arange(m) % 3 - 1),
    }


def check_every_measure(subject, names=tuple(KEYS)):
    """Numbers or a reason for each, nothing that is not finite; returns the row."""
    row = run_measures(subject, [MEASURES[name] for name in names])
    reasons = row.get(LEFT_OUT, {})
    for name in names:
        assert (KEYS[name] in row) or reasons.get(name), name
        assert name not in reasons or len(reasons[name]) > 10
    for key, value in row.items():
        if isinstance(value, float):
            assert 0 <= value <= 1, key
    for key in ("health", "label_free_values"):
        assert all(math.isfinite(value) for value in row.get(key, {}).values())
    return row


CHEAP = ("knn", "ridge", "retrieval", "few")


@pytest.mark.parametrize("layout", ["flat", "one class", "very different sizes", "a class only in test"])
@pytest.mark.parametrize("n", [1, 3])
def test_probes_of_few_images_give_a_number_or_a_reason(n, layout):
    row = check_every_measure(make_subject(*layouts(n)[layout]), CHEAP)
    if n == 1 or layout in ("flat", "one class"):
        assert set(row) == {LEFT_OUT} and set(row[LEFT_OUT]) == set(CHEAP)


@pytest.mark.long
@pytest.mark.parametrize("layout", list(layouts(4)))
@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 30])
def test_every_measure_of_every_small_folder_gives_a_number_or_a_reason(n, layout, candidate):
    row = check_every_measure(make_subject(*layouts(n)[layout], candidate))
    if n >= 2:
        assert "rotation" in row


def test_what_fails_is_a_reason_and_what_is_broken_is_raised_after_the_rest_is_handed_over():
    def fail(subject):
        raise ValueError("too few of something")

    def crash(subject):
        raise KeyError("a bug")

    def number(subject):
        return {"good": 0.5, "bad": float("nan"), "many": {"x": float("inf"), "y": 1.0}, "not_measured": None}

    measures = [Measure(f.__name__, frozenset(), (), f) for f in (fail, number, crash)]
    seen = []
    with pytest.raises(KeyError):
        run_measures(make_subject([0, 1], [0, 1]), measures, after=lambda row: seen.append(dict(row)))
    assert seen[0] == {LEFT_OUT: {"fail": "too few of something"}}
    assert {key: seen[1][key] for key in ("good", "many")} == {"good": 0.5, "many": {"y": 1.0}}
    assert "bad" not in seen[1]
    assert seen[1][LEFT_OUT]["number"].startswith("not a finite number: bad, x of 2 training")


def test_unlabelled_rows_are_left_out_of_probes():
    labels, test = np.arange(40) % 2, np.arange(20) % 2
    whole = make_subject(labels, test)
    extra = np.zeros((7, 4), np.float32)

    def with_unlabelled(features):
        count = len(features.labels) + len(extra)
        return Features(
            np.concatenate([extra, features.features]),
            np.concatenate([np.full(len(extra), -1, np.int32), features.labels]),
            np.arange(count, dtype=np.int32),
        )

    more = whole._replace(train=with_unlabelled(whole.train), test=with_unlabelled(whole.test))
    measures = [MEASURES[name] for name in ("knn", "ridge", "retrieval")]
    assert run_measures(more, measures) == run_measures(whole, measures)


def test_images_without_any_label_leave_out_what_needs_one_and_say_what_to_do(candidate):
    for classes in ((), CLASSES):
        subject = make_subject([-1] * 8, [-1] * 4, candidate, classes)
        row = run_measures(subject, [MEASURES[name] for name in ("knn", "finetune", "rotation")])
        assert set(row) == {LEFT_OUT, "rotation"} and set(row[LEFT_OUT]) == {"knn", "finetune"}
        assert "has a label, which is needed: put the images into one folder a class" in row[LEFT_OUT]["knn"]


def test_a_class_without_training_images_counts_as_wrong():
    """Test images on their class centres: all of the classes that were trained are right, those of the other wrong."""
    subject = make_subject(np.arange(60) % 2, [0, 1, 0, 1, 2])
    exact = subject.test._replace(features=3 * np.eye(4, dtype=np.float32)[subject.test.labels])
    row = check_every_measure(subject._replace(test=exact), ("knn", "ridge", "linear"))
    for key in ("knn", "ridge", "linear"):
        assert row[key] == pytest.approx(0.8), key
    assert LEFT_OUT not in row


def test_few_labels_of_more_than_the_smallest_class_has_are_left_out_by_name():
    row = run_measures(make_subject([0] * 9 + [1] * 2, [0, 1]), [MEASURES["few"]])
    assert {"linear_1", "linear_2"} < set(row) and "linear_5" not in row
    assert row[LEFT_OUT] == {"few": "5 labels a class: the class 'b' has 2 labelled training images"}


def test_few_labels_do_not_depend_on_names_of_classes_that_no_image_has():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 3)).astype(np.float32), np.arange(24) % 2
    plain = few_labels.few_labels(x, y, x, y, classes=2, per_class=3, draws=2, iterations=20)
    # Labels 0 and 2 of four: 1 and 3 have no image.
    apart = few_labels.few_labels(x, 2 * y, x, 2 * y, classes=4, per_class=3, draws=2, iterations=20)
    assert apart == plain


@pytest.mark.parametrize(("examples", "sizes"), [(2, (1, 1)), (3, (1, 2)), (5, (1, 4)), (30, (3, 27))])
def test_one_example_or_more_is_held_out(examples, sizes):
    held, rest = linear.hold_out(examples, holdout=0.1, seed=0)
    assert (len(held), len(rest)) == sizes
    assert sorted([*held, *rest]) == list(range(examples))
    with pytest.raises(ValueError, match="training images=1: allowed is two or more"):
        linear.hold_out(1, holdout=0.1, seed=0)


def test_ridge_with_fewer_images_than_dimensions_solves_the_normal_equations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 40)).astype(np.float32), np.arange(12) % 3
    weights, intercept = ridge._ridge(jnp.asarray(x), jnp.asarray(y), l2=jnp.asarray([0.3]), classes=3)
    centered, target = np.float64(x - x.mean(0)), np.eye(3)[y]
    gram = centered.T @ centered / 12 + 0.3 * np.eye(40)
    expected = np.linalg.solve(gram, centered.T @ (target - target.mean(0)) / 12)
    np.testing.assert_allclose(weights[0], expected, atol=1e-5)
    np.testing.assert_allclose(intercept[0], target.mean(0) - x.mean(0) @ expected, atol=1e-5)


def test_principal_components_of_fewer_images_than_dimensions_are_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(6, 30)).astype(np.float32) + 4, rng.normal(size=(3, 30)).astype(np.float32)
    found, found_test = baselines.pca(train, test, dims=8)
    mean = train.mean(0)
    _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
    np.testing.assert_allclose(np.abs(found[:, :5]), np.abs((train - mean) @ axes[:5].T), atol=1e-4)
    np.testing.assert_allclose(np.abs(found_test[:, :5]), np.abs((test - mean) @ axes[:5].T), atol=1e-4)
    # Six images less their mean have rank 5.
    assert not found[:, 5:].any() and not found_test[:, 5:].any()


def test_pixels_of_large_images_are_bounded_and_small_ones_stay_as_they_are():
    small = jnp.arange(32 * 32 * 3.0).reshape(1, 32, 32, 3)
    np.testing.assert_array_equal(baselines.shrink_pixels(small), small.reshape(1, -1))
    large = jax.eval_shape(baselines.shrink_pixels, jax.ShapeDtypeStruct((50, 224, 224, 3), jnp.float32))
    assert large.shape == (50, 36 * 36 * 3)
    # A constant image stays constant, and so does the mean of any.
    np.testing.assert_allclose(baselines.shrink_pixels(jnp.full((1, 100, 100, 1), 0.7)), 0.7, rtol=1e-5)
    wide = jax.eval_shape(baselines.shrink_pixels, jax.ShapeDtypeStruct((1, 64, 64, 5000), jnp.float32))
    assert wide.shape == (1, 5000)


@pytest.mark.parametrize(
    ("counts", "share", "drawn"),
    [
        ((10, 10), 0.2, (2, 2)),
        ((10, 10), 1.0, (10, 10)),
        ((32, 31, 33), 1.0, (32, 31, 33)),  # refused before: per_class=32: allowed is at most 31
        ((1, 9), 1.0, (1, 9)),
        ((1, 9), 0.5, (1, 4)),
        ((1, 5, 9), 0.6, (1, 4, 4)),
    ],
)
def test_a_share_of_the_labels_is_as_balanced_as_the_classes_allow(counts, share, drawn):
    labels = np.concatenate([np.full(count, i) for i, count in enumerate(counts)])
    labels = np.insert(labels, [0, len(labels)], -1)
    found = finetune.draw_share(labels, share, 0)
    assert len(set(found.tolist())) == len(found)
    assert np.bincount(labels[found], minlength=len(counts)).tolist() == list(drawn)
    np.testing.assert_array_equal(found, finetune.draw_share(labels, share, 0))


def test_reasons_are_told_once_for_all_rows_that_share_them():
    rows = [{"features": name, LEFT_OUT: {"knn": "no labels"}} for name in ("pixels", "simclr")]
    assert left_out_lines({"rows": rows}) == ["knn: no labels"]
    rows[1][LEFT_OUT] = {"knn": "other", "few": "other"}
    lines = left_out_lines({"rows": rows, LEFT_OUT: {"pca": "one image"}})
    assert lines == [
        "knn (pixels): no labels",
        "knn, few (simclr): other",
        "pca: one image",
    ]


def test_fine_tuning_gets_labels_by_row_of_the_source(candidate, monkeypatch):
    """Features have no row of an unreadable image; labels handed on have one, without a label."""
    subject = make_subject(np.arange(40) % 2, [0, 1, 0, 1], candidate)
    readable = Features(*(np.delete(column, [0, 7], axis=0) for column in subject.train))
    given = {}
    monkeypatch.setattr(
        finetune,
        "finetune",
        lambda *arrays, **options: given.update(options) or finetune.FineTuned(1.0, 1, 1),
    )
    run_measures(subject._replace(train=readable), [MEASURES["finetune"]])
    expected = np.arange(40) % 2
    expected[[0, 7]] = -1
    np.testing.assert_array_equal(given["labels"], expected)
