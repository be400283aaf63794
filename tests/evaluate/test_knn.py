"""Weighted kNN against golden numbers of lightly and scikit-learn, and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.evaluate.knn import knn_accuracy, knn_predict, knn_scores, knn_sweep
from tests.golden_files import assert_close, golden

CASES = {"k10_T0p07": (10, 0.07), "k20_T0p07": (20, 0.07), "k200_T0p1": (200, 0.1)}


def data(dtype=np.float32):
    z = golden("knn")
    train, test = z["in__train"].astype(dtype), z["in__test"].astype(dtype)
    return train, z["in__train_labels"], test, z["in__test_labels"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
def test_scores_predictions_and_accuracy_equal_the_golden_numbers(case, wide):
    k, temperature = CASES[case]
    with jax.enable_x64(wide):
        train, train_labels, test, test_labels = data(np.float64 if wide else np.float32)
        options = {"classes": 7, "temperature": temperature}
        scores = knn_scores(train, train_labels, test, k=(k,), **options)[0]
        assert_close(scores, golden("knn")[f"{case}__out__sklearn_proba"], tolerance=1e-8 if wide else 2e-5)
        predicted = np.asarray(knn_predict(train, train_labels, test, k=k, **options))
        np.testing.assert_array_equal(predicted, golden("knn")[f"{case}__out__top1"])
        accuracy = knn_accuracy(train, train_labels, test, test_labels, k=k, **options)
        assert accuracy == pytest.approx(float(golden("knn")[f"{case}__out__accuracy_top1"]))


def test_a_high_temperature_counts_every_neighbour_alike():
    train, train_labels, test, _ = data()
    scores = knn_scores(train, train_labels, test, classes=7, k=(20,), temperature=1e6)[0]
    assert_close(scores, golden("knn")["uniform_k20__out__proba"], tolerance=1e-5)


def test_scores_equal_a_loop_over_the_definition():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(30, 5)), rng.normal(size=(4, 5))
    labels = rng.integers(0, 3, 30)
    found = knn_scores(
        train.astype(np.float32), labels, test.astype(np.float32), classes=3, k=(6,), temperature=0.2
    )
    for row, x in zip(found[0], test, strict=True):
        similarity = train @ x / np.linalg.norm(train, axis=1) / np.linalg.norm(x)
        votes = np.zeros(3)
        for i in np.argsort(-similarity)[:6]:
            votes[labels[i]] += np.exp(similarity[i] / 0.2)
        np.testing.assert_allclose(row, votes / votes.sum(), rtol=1e-5)


@pytest.mark.parametrize("block", [1, 7, 39, 40, 1000])
def test_blocks_of_any_size_give_the_same_scores_for_every_query(block):
    train, train_labels, test, _ = data()
    scores = knn_scores(train, train_labels, test, classes=7, k=(1, 20), block=block)
    np.testing.assert_allclose(
        scores, knn_scores(train, train_labels, test, classes=7, k=(1, 20), block=13), rtol=1e-5, atol=1e-7
    )


def test_a_sweep_equals_one_k_at_a_time():
    train, train_labels, test, test_labels = data()
    sweep = knn_sweep(train, train_labels, test, test_labels, classes=7, k=(1, 20))
    single = {k: knn_accuracy(train, train_labels, test, test_labels, classes=7, k=k) for k in (1, 20)}
    assert sweep == single


def test_lengths_of_features_do_not_matter_and_the_bank_classifies_itself_with_one_neighbour():
    train, train_labels, _, _ = data()
    lengths = np.linspace(1, 50, len(train), dtype=np.float32)[:, None]
    assert knn_accuracy(lengths * train, train_labels, train, train_labels, classes=7, k=1) == 1.0


def test_a_bank_spread_over_devices_gives_the_same_scores():
    train, train_labels, test, _ = data()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = knn_scores(jax.device_put(train, rows), train_labels, test, classes=7)
    np.testing.assert_allclose(spread, knn_scores(train, train_labels, test, classes=7), atol=1e-5)


def test_a_tiny_temperature_stays_finite_and_bfloat16_agrees_loosely():
    train, train_labels, test, _ = data()
    assert np.isfinite(knn_scores(train, train_labels, test, classes=7, temperature=1e-4)).all()
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in (train, test)]
    scores = knn_scores(narrow[0], train_labels, narrow[1], classes=7)
    np.testing.assert_allclose(scores, knn_scores(train, train_labels, test, classes=7), atol=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 201}, "at most the 200 training examples"),
        ({"k": 0}, "k=.*1 or more"),
        ({"classes": 3}, r"train_labels=\[3, 4, 5, 6\]|test_labels=\[3, 4, 5, 6\]"),
        ({"block": 0}, "block=0"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        knn_accuracy(*data(), **{"classes": 7, **change})


def test_unlabelled_training_examples_are_refused():
    train, train_labels, test, _ = data()
    with pytest.raises(ValueError, match="-1 means unlabelled"):
        knn_predict(train, np.where(train_labels == 0, -1, train_labels), test, classes=7)


def test_a_bank_with_many_copies_votes_as_a_loop_does():
    # More equal similarities than the search by groups can order: whole rows are searched, the earlier copy first.
    rng = np.random.default_rng(0)
    train, labels = np.tile(rng.normal(size=(8, 4)), (100, 1)), rng.integers(0, 3, 800)
    test = rng.normal(size=(5, 4))
    scores = knn_scores(train.astype(np.float32), labels, test.astype(np.float32), classes=3, k=(2,))
    for row, x in zip(scores[0], test, strict=True):
        best = np.argmax(train[:8] @ x / np.linalg.norm(train[:8], axis=1))
        np.testing.assert_allclose(row, np.bincount(labels[[best, best + 8]], minlength=3) / 2, atol=1e-5)
