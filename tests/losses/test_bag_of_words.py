"""Bags of visual words: golden numbers of OBoW, loops, limits, invariances, gradients."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core.numerics import normalize
from ssl_jax.losses.bag_of_words import (
    bag_of_words,
    bow_loss,
    crop_border,
    distances_to_words,
    hard_assign,
    local_average,
    perplexities,
    soft_assign,
    word_logits,
)
from ssl_jax.models import heads
from tests.golden_files import assert_close, golden

PRECISIONS = [(jnp.float32, 1e-5, 1e-4), (jnp.float64, 1e-9, 1e-8)]


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def bags_of(seed, *shape):
    return jax.nn.softmax(rows(seed, *shape), axis=-1)


@pytest.mark.parametrize(("dtype", "_", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("case", ["extract_eval", "extract_train"])
def test_codes_and_bags_equal_golden(case, dtype, _, tolerance):
    file = golden("obow")
    with jax.enable_x64(dtype == jnp.float64):
        maps = crop_border(jnp.asarray(file["in__feat"].transpose(0, 2, 3, 1), dtype), 1)
        distances = distances_to_words(maps, jnp.asarray(file["in__words"], dtype))
        scale = 3.0
        if case == "extract_train":
            scale = 0.99 * scale + 0.01 * jnp.mean(jnp.min(distances, axis=-1))
        assert_close(jnp.reshape(scale, 1), file[f"{case}__out__mean_min_distance"], tolerance=tolerance)
        codes = soft_assign(distances, scale, inverse_delta=15.0)
        assert_close(codes.transpose(0, 3, 1, 2), file[f"{case}__out__codes"], tolerance=tolerance)
        assert_close(bag_of_words(codes), file[f"{case}__out__bow"], tolerance=tolerance)


def test_what_enters_the_golden_vocabulary_are_local_averages_one_an_image():
    file = golden("obow")
    averages = local_average(crop_border(jnp.asarray(file["in__feat"].transpose(0, 2, 3, 1), jnp.float32), 1))
    for image, word in enumerate(file["extract_train__out__words_after"][:4]):
        assert np.abs(averages[image].reshape(-1, 12) - word).max(axis=1).min() < 1e-6


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
def test_prediction_with_generated_weights_equals_golden(dtype, loss_tolerance, tolerance):
    file = golden("obow")
    with jax.enable_x64(dtype == jnp.float64):
        names = ("fc.weight", "bn.weight", "bn.bias", "last_layer.weight", "last_layer.bias")
        first, gain, shift, last, bias = (
            jnp.asarray(file[f"loss__w__layers_w.0.b0_{name}"], dtype) for name in names
        )
        words = normalize(jnp.asarray(file["in__words"], dtype))
        generator = heads.mlp((24, 20), hidden_bias=False, dtype=dtype.dtype.name)
        _, state = generator.init(jax.random.key(0), words)
        params = {
            "dense_0": {"kernel": first.T},
            "norm_0": {"scale": gain, "bias": shift},
            "dense_1": {"kernel": last.T, "bias": bias},
        }
        weights, _ = generator.apply(params, state, words, train=True)

        def predict(student):
            logits = word_logits(student, weights, 5.0)
            bags = jnp.asarray(file["loss__out__target"], dtype)[:, None]
            return bow_loss(logits.reshape(4, 2, 16), bags), logits

        student = jnp.asarray(file["in__student"], dtype)
        (loss, logits), gradient = jax.jit(jax.value_and_grad(predict, has_aux=True))(student)
        np.testing.assert_allclose(loss, file["loss__loss"], rtol=loss_tolerance)
        assert_close(logits, file["loss__out__logits"], tolerance=tolerance)
        assert_close(gradient, file["loss__grad__student"], tolerance=tolerance)


def test_distances_equal_numpy_and_are_mapped_and_compiled_alike():
    maps, words = rows(0, 2, 3, 4, 5), rows(1, 6, 5)
    differences = np.asarray(maps, np.float64)[..., None, :] - np.asarray(words, np.float64)
    found = distances_to_words(maps, words)
    np.testing.assert_allclose(found, (differences**2).sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(distances_to_words)(maps, words), found, rtol=1e-5, atol=1e-5)
    mapped = jax.vmap(distances_to_words, in_axes=(0, None))(maps, words)
    np.testing.assert_allclose(mapped, found, rtol=1e-5, atol=1e-5)
    assert (distances_to_words(words, words) >= 0).all()
    far = distances_to_words(maps + 1000, words + 1000)
    np.testing.assert_allclose(far, found, rtol=1e-2, atol=1e-3)


def test_nearest_words_are_those_of_a_search_by_hand():
    features, words = rows(0, 20, 5), rows(1, 7, 5)
    codes = hard_assign(distances_to_words(features, words))
    for feature, code in zip(np.asarray(features), np.asarray(codes), strict=True):
        nearest = min(range(7), key=lambda k: np.sum((feature - np.asarray(words)[k]) ** 2))
        assert code[nearest] == 1 and code.sum() == 1


def test_soft_assignment_becomes_hard_as_it_gets_sharp_and_even_as_it_gets_flat():
    distances = distances_to_words(rows(0, 20, 5), rows(1, 7, 5))
    np.testing.assert_allclose(
        soft_assign(distances, 1.0, inverse_delta=1e6), hard_assign(distances), atol=1e-6
    )
    np.testing.assert_allclose(soft_assign(distances, 1.0, inverse_delta=1e-6), 1 / 7, rtol=1e-4)


def test_soft_assignment_follows_the_scale_of_the_features_and_moves_with_an_offset_by_nothing():
    features, words = rows(0, 20, 5), rows(1, 7, 5)
    expected = soft_assign(distances_to_words(features, words), 2.0)
    grown = soft_assign(distances_to_words(3 * features, 3 * words), 9 * 2.0)
    shifted = soft_assign(distances_to_words(features + 1, words + 1), 2.0)
    np.testing.assert_allclose(grown, expected, atol=1e-4)
    np.testing.assert_allclose(shifted, expected, atol=1e-4)


@pytest.mark.parametrize("pool", ["max", "sum"])
def test_bags_equal_a_loop_and_do_not_depend_on_the_order_of_locations(pool):
    codes = bags_of(0, 3, 4, 2, 6)
    found = bag_of_words(codes, pool=pool)
    for image, bag in zip(np.asarray(codes, np.float64).reshape(3, 8, 6), found, strict=True):
        pooled = [(max if pool == "max" else sum)(location[k] for location in image) for k in range(6)]
        np.testing.assert_allclose(bag, np.array(pooled) / np.sum(pooled), rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(bag_of_words(codes[:, ::-1], pool=pool), found, rtol=1e-6)
    np.testing.assert_allclose(bag_of_words(codes.reshape(3, 8, 6), pool=pool), found, rtol=1e-6)


def test_logits_know_the_direction_of_weights_only_and_train_direction_and_magnitude():
    features, weights = rows(0, 3, 4), rows(1, 5, 4)
    longer = weights * jnp.array([[1.0], [2.0], [0.1], [5.0], [3.0]])
    np.testing.assert_allclose(
        word_logits(features, longer, 2.0), word_logits(features, weights, 2.0), rtol=1e-5
    )
    bags = bags_of(2, 3, 1, 5)
    loss = lambda w, g: bow_loss(word_logits(features, w, g)[:, None], bags)  # noqa: E731
    to_weights, to_scale = jax.grad(loss, argnums=(0, 1))(weights, 2.0)
    assert to_scale != 0
    # A gradient along the row itself would change its length, which has no effect.
    np.testing.assert_allclose(jnp.sum(to_weights * weights, axis=1), 0, atol=1e-6)
    assert np.isfinite(jax.grad(loss)(jnp.zeros((5, 4)), 2.0)).all()


def test_loss_equals_a_loop_and_kinds_differ_by_the_entropy_alone():
    logits, bags = rows(0, 3, 2, 5), bags_of(1, 3, 1, 5)
    terms = []
    for i, v in np.ndindex(3, 2):
        y, x = np.asarray(bags[i, 0], np.float64), np.asarray(logits[i, v], np.float64)
        terms.append((y * (np.log(y) - x + np.log(np.exp(x).sum()))).sum())
    np.testing.assert_allclose(bow_loss(logits, bags), np.mean(terms), rtol=1e-5)
    entropy = -(np.asarray(bags) * np.log(bags)).sum(-1).mean()
    ce = bow_loss(logits, bags, kind="cross_entropy")
    np.testing.assert_allclose(ce, np.mean(terms) + entropy, rtol=1e-5)
    gradients = [
        jax.grad(lambda x, kind=kind: bow_loss(x, bags, kind=kind))(logits)
        for kind in ("kl", "cross_entropy")
    ]
    np.testing.assert_array_equal(*gradients)
    np.testing.assert_allclose(gradients[0], (jax.nn.softmax(logits) - bags) / 6, atol=1e-6)
    assert not jax.grad(bow_loss, argnums=1)(logits, bags).any()


def test_loss_is_zero_at_the_bag_and_finite_where_words_are_missing():
    bags = jnp.array([[[0.5, 0.5, 0.0]]])
    np.testing.assert_allclose(bow_loss(jnp.array([[[3.0, 3.0, -40.0]]]), bags), 0, atol=1e-6)
    assert np.isfinite(jax.grad(bow_loss)(jnp.zeros((1, 1, 3)), bags)).all()


def test_crops_may_have_bags_of_their_own():
    logits, bags = rows(0, 3, 2, 5), bags_of(1, 3, 2, 5)
    each = [bow_loss(logits[:, v : v + 1], bags[:, v : v + 1]) for v in (0, 1)]
    np.testing.assert_allclose(bow_loss(logits, bags), np.mean(each), rtol=1e-5)


def test_constant_predictors_cost_what_theory_says():
    bags = bags_of(0, 6, 1, 5)
    ce = bow_loss(jnp.zeros((6, 2, 5)), bags, kind="cross_entropy")
    np.testing.assert_allclose(ce, np.log(5), rtol=1e-6)
    # The best constant is the mean bag; it costs the mean bag's entropy.
    best = bow_loss(jnp.broadcast_to(jnp.log(bags.mean(0)), (6, 1, 5)), bags, kind="cross_entropy")
    np.testing.assert_allclose(best, jnp.log(perplexities(bags[:, 0])[0]), rtol=1e-5)


def test_perplexities_at_the_collapses():
    one = jnp.zeros((3, 5)).at[:, 2].set(1.0)
    np.testing.assert_allclose(perplexities(one), (1, 1), rtol=1e-6)
    np.testing.assert_allclose(perplexities(jnp.full((3, 5), 0.2)), (5, 5), rtol=1e-5)
    np.testing.assert_allclose(perplexities(jnp.eye(5)), (5, 1), rtol=1e-5)


def test_bfloat16_inputs_are_computed_in_float32():
    features, words = rows(0, 2, 4, 5).astype(jnp.bfloat16), rows(1, 6, 5).astype(jnp.bfloat16)
    wide = [x.astype(jnp.float32) for x in (features, words)]
    np.testing.assert_array_equal(distances_to_words(features, words), distances_to_words(*wide))
    logits = word_logits(features, words, 2.0)
    assert logits.dtype == jnp.float32
    loss = bow_loss(logits.astype(jnp.bfloat16), bags_of(2, 2, 4, 6))
    assert loss.dtype == jnp.float32 and bag_of_words(features).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f["crop_border"](jnp.zeros((1, 4, 5, 2)), 2), r"border=2"),
        (lambda f: f["crop_border"](jnp.zeros((1, 4, 5, 2)), -1), r"border=-1"),
        (lambda f: f["local_average"](jnp.zeros((1, 2, 5, 2))), r"maps\.shape=\(1, 2, 5, 2\)"),
        (lambda f: f["distances_to_words"](jnp.zeros((1, 2)), jnp.zeros((4, 3))), r"words\.shape=\(4, 3\)"),
        (lambda f: f["soft_assign"](jnp.zeros((1, 2)), 0.0), r"scale=0\.0"),
        (lambda f: f["soft_assign"](jnp.zeros((1, 2)), 1.0, inverse_delta=-1.0), r"inverse_delta=-1\.0"),
        (lambda f: f["bag_of_words"](jnp.zeros((1, 2)), pool="max"), r"codes\.shape=\(1, 2\)"),
        (lambda f: f["bag_of_words"](jnp.zeros((1, 2, 3)), pool="mean"), r"pool='mean'"),
        (lambda f: f["word_logits"](jnp.zeros((1, 2)), jnp.zeros((4, 3)), 1.0), r"weights\.shape=\(4, 3\)"),
        (lambda f: f["bow_loss"](jnp.zeros((2, 2, 3)), jnp.zeros((2, 3, 3))), r"bags\.shape=\(2, 3, 3\)"),
        (lambda f: f["bow_loss"](jnp.zeros((2, 2, 3)), jnp.zeros((2, 1, 3)), kind="mse"), r"kind='mse'"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    functions = (
        crop_border,
        local_average,
        distances_to_words,
        soft_assign,
        bag_of_words,
        word_logits,
        bow_loss,
    )
    with pytest.raises(ValueError, match=message):
        call({f.__name__: inspect.unwrap(f) for f in functions})
