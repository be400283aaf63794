"""Losses of clustering methods: golden numbers of lightly and solo-learn, loops, gradients, collapse constants."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.clustering import balanced_codes, cluster_cross_entropy, swapped_prediction
from tests.golden_files import assert_close, golden

PRECISIONS = [(jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)]
classify = jax.jit(jax.value_and_grad(cluster_cross_entropy))


@jax.jit
@jax.value_and_grad
def swav(scores, queued):
    return swapped_prediction(scores, balanced_codes(scores[:, :2], queued))


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


def distributions(seed, *shape):
    return jax.nn.softmax(rows(seed, *shape), axis=-1)


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(
    ("case", "crops", "queue"),
    [
        ("two", 2, False),
        ("two_solo", 2, False),
        ("two_plus_four", 6, False),
        ("two_plus_four_queue", 6, True),
    ],
)
def test_swav_equals_golden(case, crops, queue, dtype, loss_tolerance, tolerance):
    file = golden("swav")
    with jax.enable_x64(dtype == jnp.float64):
        scores = jnp.asarray(np.stack([file[f"in__s{i}"] for i in range(crops)], axis=1), dtype)
        queued = np.stack([file["in__queue0"], file["in__queue1"]], axis=1)
        loss, gradient = swav(scores, jnp.asarray(queued, dtype) if queue else None)
        np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
        for i in range(crops):
            assert_close(gradient[:, i], file[f"{case}__grad__s{i}"], tolerance=tolerance)


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
def test_deepcluster_v2_equals_golden(dtype, loss_tolerance, tolerance):
    file = golden("swav")
    with jax.enable_x64(dtype == jnp.float64):
        scores = jnp.asarray(file["in__dc_out"].swapaxes(1, 2), dtype)
        loss, gradient = classify(scores, jnp.asarray(file["in__dc_assign"]))
        np.testing.assert_allclose(loss, file["deepclusterv2__loss"], rtol=loss_tolerance)
        assert_close(gradient.swapaxes(1, 2), file["deepclusterv2__grad__dc_out"], tolerance=tolerance)


def test_swapped_prediction_averages_over_other_crops_then_over_global_ones():
    scores, codes = rows(0, 3, 5, 4), distributions(1, 3, 2, 4)
    log_p = np.log(np.asarray(jax.nn.softmax(scores / 0.2), np.float64))
    total = 0.0
    for a in range(2):
        for v in set(range(5)) - {a}:
            total += -np.mean([np.asarray(codes)[i, a] @ log_p[i, v] for i in range(3)]) / 4 / 2
    np.testing.assert_allclose(swapped_prediction(scores, codes, temperature=0.2), total, rtol=1e-5)


def test_classification_averages_over_labelled_images_then_over_clusterings():
    scores, labels = rows(0, 3, 4, 2, 5), np.array([[0, -1, 3, -1], [4, 1, 1, 2], [-1, -1, 0, -5]])
    p = np.asarray(jax.nn.softmax(scores / 0.1), np.float64)
    heads = []
    for h in range(3):
        known = [i for i in range(4) if labels[h, i] >= 0]
        heads.append(np.mean([-np.log(p[h, i, v, labels[h, i]]) for i in known for v in range(2)]))
    np.testing.assert_allclose(cluster_cross_entropy(scores, jnp.asarray(labels)), np.mean(heads), rtol=1e-5)


def test_no_label_at_all_gives_zero_loss_and_gradient():
    loss, gradient = classify(rows(0, 2, 3, 4, 5), jnp.full((2, 3), -1))
    assert loss == 0 and not gradient.any()


def test_images_without_label_get_no_gradient():
    _, gradient = classify(rows(0, 1, 3, 2, 5), jnp.array([[2, -1, 0]]))
    assert not gradient[:, 1].any() and gradient[:, 0].any() and gradient[:, 2].any()


def test_no_gradient_passes_the_codes():
    scores = rows(0, 4, 2, 5)
    assert not jax.grad(lambda s: jnp.sum(balanced_codes(s, 2 * s) ** 2))(scores).any()
    assert not jax.grad(swapped_prediction, argnums=1)(scores, distributions(1, 4, 2, 5)).any()


def test_a_queue_that_is_not_used_counts_for_nothing_and_one_that_is_balances_too():
    scores, queued = rows(0, 6, 2, 4), rows(1, 10, 2, 4)
    alone = balanced_codes(scores)
    found = jax.jit(lambda use: balanced_codes(scores, queued, use_queue=use))
    np.testing.assert_allclose(found(False), alone, atol=1e-6)
    together = balanced_codes(jnp.concatenate([scores, queued]))[:6]
    np.testing.assert_allclose(found(True), together, atol=1e-6)
    assert np.abs(together - alone).max() > 0.01


def test_hard_codes_are_the_largest_entries():
    scores = rows(0, 6, 2, 4)
    soft, hard = balanced_codes(scores), balanced_codes(scores, hard=True)
    np.testing.assert_array_equal(hard, np.eye(4)[np.argmax(soft, axis=-1)])


def test_each_global_crop_is_balanced_by_itself_and_the_order_of_images_does_not_matter():
    scores, order = rows(0, 6, 2, 4), np.array([3, 0, 5, 1, 4, 2])
    codes = balanced_codes(scores)
    np.testing.assert_allclose(codes[:, 1:], balanced_codes(scores[:, 1:]), atol=1e-6)
    np.testing.assert_allclose(codes[order], balanced_codes(scores[order]), atol=1e-5)
    products = balanced_codes(scores, log_domain=False, epsilon=0.1, iterations=4)
    np.testing.assert_allclose(products, balanced_codes(scores, epsilon=0.1, iterations=4), atol=1e-5)


def test_equal_images_give_uniform_codes_and_the_logarithm_of_the_number_of_prototypes():
    scores = jnp.zeros((4, 3, 8))
    codes = balanced_codes(scores[:, :2])
    np.testing.assert_allclose(codes, 1 / 8, rtol=1e-6)
    np.testing.assert_allclose(swapped_prediction(scores, codes), np.log(8), rtol=1e-6)
    labels = jnp.zeros((2, 4), int)
    np.testing.assert_allclose(cluster_cross_entropy(jnp.ones((2, 4, 3, 8)), labels), np.log(8), rtol=1e-6)


def test_names_of_clusters_do_not_matter():
    scores, labels, order = (
        rows(0, 2, 4, 3, 5),
        jnp.array([[0, 1, 4, 2], [3, 3, -1, 0]]),
        np.array([4, 2, 0, 1, 3]),
    )
    expected = cluster_cross_entropy(scores, labels)
    renamed = jnp.where(labels >= 0, jnp.argsort(jnp.asarray(order))[labels], -1)
    np.testing.assert_allclose(cluster_cross_entropy(scores[..., order], renamed), expected, rtol=1e-6)


@pytest.mark.long
def test_bfloat16_scores_are_computed_in_float32_and_vmap_over_temperatures_is_a_loop():
    scores, labels = rows(0, 2, 3, 2, 4).astype(jnp.bfloat16), jnp.array([[0, 1, 2], [3, 0, -1]])
    found = cluster_cross_entropy(scores, labels)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, cluster_cross_entropy(scores.astype(jnp.float32), labels), rtol=1e-6)
    half = scores[0]
    assert balanced_codes(half).dtype == swapped_prediction(half, balanced_codes(half)).dtype == jnp.float32
    temperatures = jnp.array([0.1, 0.5])
    wide = half.astype(jnp.float32)
    for function in (
        lambda t: cluster_cross_entropy(scores, labels, temperature=t),
        lambda t: swapped_prediction(wide, balanced_codes(wide, epsilon=t), temperature=t),
    ):
        one_by_one = [function(float(t)) for t in temperatures]
        np.testing.assert_allclose(jax.vmap(function)(temperatures), one_by_one, rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "message"),
    [
        (swapped_prediction, ((2, 3, 5), (2, 2, 4)), {}, r"codes\.shape=\(2, 2, 4\)"),
        (swapped_prediction, ((2, 3, 5), (2, 2, 5)), {"temperature": 0.0}, r"temperature=0\.0"),
        (balanced_codes, ((2, 2, 5), (6, 1, 5)), {}, r"queued\.shape=\(6, 1, 5\)"),
        (balanced_codes, ((2, 2, 5),), {"epsilon": 0.0}, r"epsilon=0\.0"),
        (balanced_codes, ((2, 2, 5),), {"iterations": 0}, "iterations=0"),
        (cluster_cross_entropy, ((2, 3, 2, 5), (2, 4)), {}, r"labels\.shape=\(2, 4\)"),
        (cluster_cross_entropy, ((2, 3, 2, 5), (2, 3)), {"temperature": -1.0}, r"temperature=-1\.0"),
    ],
)
def test_bad_input_is_refused_by_name(function, arguments, options, message):
    arrays = [jnp.zeros(shape, int if len(shape) == 2 else float) for shape in arguments]
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(function)(*arrays, **options)
