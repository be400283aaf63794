"""Retrieval against numpy loops over the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.evaluate.retrieval import nearest, retrieval

RNG = np.random.default_rng(0)
BANK, QUERIES = RNG.normal(size=(30, 5)).astype(np.float32), RNG.normal(size=(11, 5)).astype(np.float32)
BANK_LABELS, QUERY_LABELS = RNG.integers(0, 3, 30), RNG.integers(0, 3, 11)
SETS = (QUERIES, QUERY_LABELS, BANK, BANK_LABELS)


def cosines(queries, bank):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, bank)]
    return unit[0].astype(np.float64) @ unit[1].astype(np.float64).T


def average_precision(similarity, relevant):
    """Recall gained at each threshold times the precision there, by counting."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(similarity), reverse=True):
        taken = similarity >= threshold
        recall = (taken & relevant).sum() / relevant.sum()
        total += (recall - before) * (taken & relevant).sum() / taken.sum()
        before = recall
    return total


def oracle(similarity, labels, bank_labels, k):
    rows = []
    for s, label in zip(similarity, labels, strict=True):
        keep = np.isfinite(s)
        relevant = (bank_labels == label)[keep]
        if not relevant.any():
            continue
        among = relevant[np.argsort(-s[keep], kind="stable")[:k]].sum()
        rows.append((average_precision(s[keep], relevant), among / k, among / relevant.sum(), among > 0))
    return np.mean(np.array(rows, float), axis=0)


def numbers(result, k):
    return [result.mean_average_precision, result.precision[k], result.recall[k], result.hit[k]]


@pytest.mark.parametrize("block", [1, 4, 11, 64])
def test_retrieval_from_a_bank_equals_the_definition_in_blocks_of_any_size(block):
    found = retrieval(*SETS, k=(1, 4), block=block)
    assert found.queries == 11
    for k in (1, 4):
        expected = oracle(cosines(QUERIES, BANK), QUERY_LABELS, BANK_LABELS, k)
        np.testing.assert_allclose(numbers(found, k), expected, rtol=1e-6)


@pytest.mark.parametrize("block", [7, 64])
def test_leave_one_out_never_finds_the_query_itself(block):
    similarity = cosines(BANK, BANK)
    np.fill_diagonal(similarity, -np.inf)
    found = retrieval(BANK, BANK_LABELS, BANK, BANK_LABELS, k=(3,), exclude_self=True, block=block)
    np.testing.assert_allclose(numbers(found, 3), oracle(similarity, BANK_LABELS, BANK_LABELS, 3), rtol=1e-6)


def test_tied_similarities_count_as_one_step_whatever_the_order_of_the_bank():
    x, labels = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2, np.float32), np.array([0, 0, 1, 1, 0, 1])
    expected = oracle(cosines(x[:1], x), np.array([0]), labels, 1)[0]
    for order in (np.arange(6), np.arange(6)[::-1]):
        found = retrieval(x[:1], np.array([0]), x[order], labels[order], k=(1,))
        assert found.mean_average_precision == pytest.approx(expected)


def test_collapsed_features_score_the_share_of_the_class_and_zeros_stay_finite():
    for x in (np.ones((12, 4), np.float32), np.zeros((12, 4), np.float32)):
        found = retrieval(x, np.arange(12) // 4, x, np.arange(12) // 4, k=(2,), exclude_self=True)
        assert found.mean_average_precision == pytest.approx(3 / 11)
        assert np.isfinite(nearest(x, x, 2).similarities).all()


def test_lengths_do_not_matter_and_separated_classes_are_found_whole():
    lengths = np.linspace(0.1, 9, 30, dtype=np.float32)[:, None]
    scaled, plain = retrieval(QUERIES, QUERY_LABELS, lengths * BANK, BANK_LABELS), retrieval(*SETS)
    assert scaled.mean_average_precision == pytest.approx(plain.mean_average_precision)
    apart = np.eye(3, dtype=np.float32)[BANK_LABELS]
    assert retrieval(apart, BANK_LABELS, apart, BANK_LABELS, k=(1,)).mean_average_precision == 1.0


def test_queries_whose_class_the_bank_lacks_are_left_out():
    labels = np.where(np.arange(11) == 2, -1, np.where(np.arange(11) == 5, 7, QUERY_LABELS))
    unlabelled = np.where(np.arange(30) == 0, -1, BANK_LABELS)
    found = retrieval(QUERIES, labels, BANK, unlabelled, k=(4,))
    assert found.queries == 9
    keep = labels < np.where(labels < 0, -2, 3)
    expected = oracle(cosines(QUERIES[keep], BANK), labels[keep], unlabelled, 4)
    np.testing.assert_allclose(numbers(found, 4), expected, rtol=1e-6)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("block", [4, 64])
def test_nearest_are_the_largest_cosines_in_order(exclude_self, block):
    similarity = cosines(BANK, BANK)
    if exclude_self:
        np.fill_diagonal(similarity, -np.inf)
    found = nearest(BANK, BANK, 5, exclude_self=exclude_self, block=block)
    np.testing.assert_array_equal(found.indices, np.argsort(-similarity, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(found.similarities, -np.sort(-similarity, axis=1)[:, :5], atol=1e-6)


def test_bfloat16_agrees_loosely_and_inputs_spread_over_devices_agree():
    narrow = nearest(jnp.asarray(QUERIES, jnp.bfloat16), jnp.asarray(BANK, jnp.bfloat16), 3)
    plain = nearest(QUERIES, BANK, 3)
    np.testing.assert_allclose(narrow.similarities, plain.similarities, atol=0.02)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = nearest(QUERIES, jax.device_put(BANK, rows), 3)
    np.testing.assert_array_equal(spread.indices, plain.indices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": (31,)}, r"k=\(31,\): allowed is integers in \[1, 30\]"),
        ({"k": ()}, "k="),
        ({"block": 0}, "block=0"),
        ({"exclude_self": True}, "exclude_self=True"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        retrieval(*SETS, **change)


def test_impossible_searches_are_refused():
    with pytest.raises(ValueError, match=r"k=30: allowed is an integer in \[1, 29\]"):
        nearest(BANK, BANK, 30, exclude_self=True)
    with pytest.raises(ValueError, match="query_labels='11 queries without one'"):
        retrieval(QUERIES, np.full(11, 5), BANK, BANK_LABELS)
