"""Sinkhorn: golden numbers of lightly and solo-learn, a numpy loop, marginals, masks."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.sinkhorn import sinkhorn
from tests.golden_files import assert_close, golden

balance = functools.partial(jax.jit, static_argnames=("iterations", "log_domain"))(sinkhorn)


def scores(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def loop(x, *, temperature, iterations):
    """Divide columns and rows by their sums, one by one."""
    q = np.exp(np.asarray(x, np.float64) / temperature)
    for _ in range(iterations):
        for k in range(q.shape[1]):
            q[:, k] /= q[:, k].sum()
        for i in range(q.shape[0]):
            q[i] /= q[i].sum()
    return q


@pytest.mark.parametrize("log_domain", [True, False])
@pytest.mark.parametrize(
    ("case", "name", "iterations", "queue"),
    [
        ("sinkhorn", "q_iter1", 1, False),
        ("sinkhorn", "q", 3, False),
        ("sinkhorn", "q_iter10", 10, False),
        ("sinkhorn", "q_with_queue", 3, True),
        ("sinkhorn_solo", "q", 3, False),
    ],
)
def test_assignments_equal_golden(case, name, iterations, queue, log_domain):
    file = golden("swav")
    x = np.concatenate([file["in__s0"], file["in__queue0"]]) if queue else file["in__s0"]
    with jax.enable_x64(True):
        found = sinkhorn(jnp.asarray(x), iterations=iterations, log_domain=log_domain)
        assert_close(found, file[f"{case}__out__{name}"], tolerance=1e-8)
    found = balance(jnp.asarray(x, jnp.float32), iterations=iterations, log_domain=log_domain)
    assert_close(found, file[f"{case}__out__{name}"], tolerance=1e-5)


@pytest.mark.parametrize("log_domain", [True, False])
def test_assignments_equal_a_loop_and_rows_sum_to_one(log_domain):
    x = scores(12, 5)
    found = balance(jnp.asarray(x, jnp.float32), temperature=0.1, iterations=4, log_domain=log_domain)
    np.testing.assert_allclose(found, loop(x, temperature=0.1, iterations=4), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_every_prototype_gets_the_same_share_in_the_limit():
    x = jnp.asarray(scores(12, 4), jnp.float32)
    few, many = (balance(x, temperature=0.1, iterations=n).sum(axis=0) for n in (1, 100))
    np.testing.assert_allclose(many, 12 / 4, rtol=1e-4)
    assert np.abs(few - 3).max() > 0.1


@pytest.mark.parametrize("log_domain", [True, False])
def test_rows_of_weight_zero_count_for_nothing_and_come_out_as_zeros(log_domain):
    x, kept = scores(10, 4), np.array([0, 1, 1, 0, 1, 1, 0, 1, 1, 1], bool)
    x[~kept] = 50  # would overflow if it were counted
    options = {"temperature": 0.1, "log_domain": log_domain}
    found = balance(jnp.asarray(x, jnp.float32), weights=jnp.asarray(kept), **options)
    dense = balance(jnp.asarray(x[kept], jnp.float32), **options)
    np.testing.assert_allclose(found[kept], dense, atol=1e-6)
    assert not found[~kept].any()


@pytest.mark.parametrize("log_domain", [True, False])
def test_a_weight_of_two_equals_the_row_twice(log_domain):
    x = jnp.asarray(scores(6, 3), jnp.float32)
    options = {"temperature": 0.2, "log_domain": log_domain}
    found = balance(x, weights=jnp.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0]), **options)
    twice = balance(jnp.concatenate([x, x[1:2]]), **options)
    np.testing.assert_allclose(found, twice[:6], atol=1e-6)


@pytest.mark.parametrize("log_domain", [True, False])
def test_no_row_at_all_gives_zeros(log_domain):
    found = balance(jnp.ones((3, 2)), weights=jnp.zeros(3, bool), log_domain=log_domain)
    np.testing.assert_array_equal(found, jnp.zeros((3, 2)))


def test_as_many_images_as_prototypes_with_scores_of_the_identity_give_a_permutation():
    np.testing.assert_allclose(balance(jnp.eye(6)[::-1]), np.eye(6)[::-1], atol=1e-6)


def test_equal_scores_give_equal_shares():
    np.testing.assert_allclose(balance(jnp.full((5, 8), 0.3)), 1 / 8, rtol=1e-6)


def test_the_log_domain_is_finite_where_products_lose_whole_rows():
    x = jnp.array([[0.0, 9.0, 0.0], [-40.0, -41.0, -30.0], [0.0, 9.5, 1.0]])
    found = balance(x, temperature=0.04)

    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_order_of_images_and_a_common_offset_do_not_matter():
    x, order = jnp.asarray(scores(6, 4), jnp.float32), np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(balance(x[order] + 0.5), balance(x)[order], atol=1e-5)


def test_bfloat16_scores_are_balanced_in_float32():
    x = jnp.asarray(scores(6, 4), jnp.bfloat16)
    found = balance(x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, balance(x.astype(jnp.float32)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations=0"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"weights": jnp.ones(4)}, r"weights\.shape=\(4,\)"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(sinkhorn)(jnp.ones((3, 2)), **options)
